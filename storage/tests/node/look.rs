//! The store as an application sees it, in the model's form.

use crate::model::{Facts, Tree};
use holdfast_storage::disk::Disk;
use holdfast_storage::meta::Meta;
use holdfast_storage::store::{ReadError, Store};
use holdfast_storage::types::Ino;
use std::collections::BTreeMap;

const PIECE: u64 = 512;
/// Where reads end, so that pieces of all sizes meet blocks at all places.
const READ: u64 = 20_480;

/// Everything, each block verified on the way. Inodes without a name can't be found by name: they are given.
pub fn tree<D: Disk, M: Meta>(store: &Store<D, M>, orphans: &[u64]) -> Result<Tree, ReadError> {
    let mut tree = Tree::default();
    walk(store, Ino::ROOT, Vec::new(), &mut tree)?;
    for orphan in orphans {
        tree.orphans.insert(*orphan, facts(store, Ino(*orphan))?);
    }
    Ok(tree)
}

fn walk<D: Disk, M: Meta>(store: &Store<D, M>, ino: Ino, path: Vec<u8>, tree: &mut Tree) -> Result<(), ReadError> {
    if store.inode(ino)?.is_dir() {
        let mut after = 0;
        loop {
            let page = store.readdir(ino, after, 2)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (_, child) in &page {
                let (found, inode) = store.lookup(ino, &child.name)?;
                assert_eq!(
                    (found, inode.mode & libc::S_IFMT),
                    (child.ino, child.kind),
                    "entry and name agree"
                );
                walk(store, child.ino, [&path, b"/".as_slice(), &child.name].concat(), tree)?;
            }
        }
    }
    tree.paths.insert(path, facts(store, ino)?);
    Ok(())
}

fn facts<D: Disk, M: Meta>(store: &Store<D, M>, ino: Ino) -> Result<Facts, ReadError> {
    let inode = store.inode(ino)?;
    let xattrs = store
        .xattrs(ino)?
        .0
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    let content = if inode.is_file() {
        content(store, ino, inode.size)?
    } else {
        BTreeMap::new()
    };
    Ok(Facts {
        ino: ino.0,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        nlink: inode.nlink,
        size: inode.size,
        rdev: inode.rdev,
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        btime: inode.btime,
        content,
        target: inode.target.to_vec(),
        xattrs,
        class: inode.class,
        own_class: inode.own_class,
        seal: inode.seal,
    })
}

fn content<D: Disk, M: Meta>(store: &Store<D, M>, ino: Ino, size: u64) -> Result<BTreeMap<u64, Vec<u8>>, ReadError> {
    let mut found = BTreeMap::new();
    let mut at = 0;
    while let Some(data) = store.seek_data(ino, at)? {
        let hole = store.seek_hole(ino, data)?;
        assert!(
            at <= data && data < hole && hole <= size,
            "data at {data}, a hole at {hole}, asked from {at}"
        );
        // Whole pieces of the model's size.
        at = data / PIECE * PIECE;
        while at < hole {
            let bytes = store.read(ino, at, READ as usize)?;
            for (number, piece) in (at / PIECE..).zip(bytes.chunks(PIECE as usize)) {
                if piece.iter().any(|byte| *byte != 0) {
                    let mut whole = piece.to_vec();
                    whole.resize(PIECE as usize, 0);
                    found.insert(number, whole);
                }
            }
            at += READ;
        }
        at = hole;
    }
    Ok(found)
}
