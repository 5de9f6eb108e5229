//! Differences in words that an operator can do something with.

use super::super::shared::Shared;
use super::compare::Difference;
use holdfast_storage::key;
use holdfast_storage::types::{BLOCK, Ino};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is other there, and a name that leads to it.
pub(super) fn of_key(shared: &Shared, key: &[u8], names: &Names) -> (String, String) {
    let ino = key::owner(key);
    let number = ino.map_or_else(String::new, |ino| ino.to_string());
    let tail = key.get(9..).unwrap_or_default();
    let what = match key.first() {
        Some(b'i') => format!("attributes (size, owner, mode, times) of inode {number}"),
        Some(b'd') => format!("the name {:?} in directory {number}", String::from_utf8_lossy(tail)),
        Some(b'c') => format!(
            "place {} in the listing of directory {number}",
            key::tail_number(key).unwrap_or(0)
        ),
        Some(b'x') => format!("extended attributes of inode {number}"),
        Some(b'o') => format!("whether inode {number} has no name"),
        Some(b'p') => format!("the class of directory {}", key::tail_number(key).unwrap_or(0)),
        _ => format!("the store's own value {:?}", String::from_utf8_lossy(key)),
    };
    let path = ino.and_then(|ino| names.path_of(shared, ino)).unwrap_or_default();
    (what, path)
}

/// Consecutive blocks about which the nodes are split in the same way.
pub(super) fn runs(differences: &[Difference<(Ino, u64)>]) -> Vec<&[Difference<(Ino, u64)>]> {
    let follows = |one: &Difference<(Ino, u64)>, two: &Difference<(Ino, u64)>| {
        one.place.1 + 1 == two.place.1 && one.groups() == two.groups() && one.damaged() == two.damaged()
    };
    differences.chunk_by(follows).collect()
}

pub(super) fn of_blocks(run: &[Difference<(Ino, u64)>]) -> String {
    let (ino, first) = run[0].place;
    let mut what = format!(
        "data of inode {ino} at {}, {} bytes",
        first * BLOCK,
        run.len() as u64 * BLOCK
    );
    for node in run[0].damaged() {
        what.push_str(&format!("; {node}: the bytes on disk don't fit their checksum"));
    }
    what
}

/// Names of directories that one check reads to find paths. Where very much differs in very long ones the rest goes by its
/// inodes' numbers alone, for each path may take a whole listing.
const READ_MAX: u64 = 10_000_000;

#[derive(Default)]
pub(super) struct Names {
    read: AtomicU64,
}

impl Names {
    /// A name that leads to the inode, found from its parents; only asked for when something differs.
    pub(super) fn path_of(&self, shared: &Shared, ino: Ino) -> Option<String> {
        let store = shared.handle.store();
        let mut parts = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT && parts.len() < 256 {
            let parent = store.inode(at).ok()?.parent;
            let mut after = 0;
            let name = loop {
                let entries = store.readdir(parent, after, 1024).ok()?;
                after = entries.last()?.0;
                if self.read.fetch_add(entries.len() as u64, Ordering::Relaxed) > READ_MAX {
                    return None;
                }
                if let Some((_, child)) = entries.into_iter().find(|(_, child)| child.ino == at) {
                    break String::from_utf8_lossy(&child.name).into_owned();
                }
            };
            parts.push(name);
            at = parent;
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    }
}
