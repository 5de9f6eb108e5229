//! Whether the metadata of a stopped replica fit together: every name leads to an inode of its type, every count is what is there,
//! every value can be read. Between two entries of the log that is always so; redo first. Memory: what has several names.

use crate::data::sums::GROUP;
use crate::error::StoreError;
use crate::key;
use crate::meta::Meta;
use crate::record::{Child, ClassRoot, Dirent, Inode, Xattrs};
use crate::types::{BLOCK, Ino};
use bytes::Bytes;
use std::collections::HashMap;

/// Keys read at once.
const PAGE: usize = 4096;
const TYPE: u32 = libc::S_IFMT;

/// Hears of all that doesn't fit, and how many keys were looked at.
pub trait Report {
    fn wrong(&mut self, what: String);
    fn keys(&mut self, count: u64);
}

type Pair = (Bytes, Bytes);

/// Never holds the metadata store while it looks something else up in it.
fn page(meta: &impl Meta, prefix: &[u8], from: &[u8]) -> Result<Vec<Pair>, StoreError> {
    let mut pairs = Vec::new();
    meta.scan(prefix, from, &mut |key, value| {
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        pairs.len() < PAGE
    })?;
    Ok(pairs)
}

fn each(
    meta: &impl Meta,
    prefix: &[u8],
    each: &mut dyn FnMut(&Bytes, &Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = Bytes::copy_from_slice(prefix);
    loop {
        let pairs = page(meta, prefix, &from)?;
        for (key, value) in &pairs {
            each(key, value)?;
        }
        let Some((last, _)) = pairs.last().filter(|_| pairs.len() == PAGE) else {
            return Ok(());
        };
        // The least key behind it.
        from = [last, &[0][..]].concat().into();
    }
}

/// Reads all of them.
pub fn metadata(meta: &impl Meta, report: &mut impl Report) -> Result<(), StoreError> {
    let mut names = Names::default();
    each(meta, b"i", &mut |key, value| {
        report.keys(1);
        inode(meta, key, value, &mut names, report)
    })?;
    for (ino, (links, found)) in names.several.iter().filter(|(_, (links, found))| links != found) {
        report.wrong(format!("inode {ino} has {links} links and {found} names"));
    }
    if names.links != names.found {
        let Names { links, found, .. } = names;
        report.wrong(format!("all files have {links} links and {found} names"));
    }
    each(meta, b"", &mut |key, value| belongs(meta, key, value, report))
}

#[derive(Default)]
struct Names {
    /// Of all that isn't a directory: links by the inodes, and names in the directories.
    links: u64,
    found: u64,
    /// Inodes with several links: how many, and names so far.
    several: HashMap<Ino, (u32, u32)>,
}

fn inode(
    meta: &impl Meta,
    key: &Bytes,
    value: &Bytes,
    names: &mut Names,
    report: &mut impl Report,
) -> Result<(), StoreError> {
    let Some(ino) = key::owner(key).filter(|_| key.len() == 9) else {
        report.wrong(format!("{key:?} is no key of an inode"));
        return Ok(());
    };
    let Ok(inode) = Inode::decode(value) else {
        report.wrong(format!("the attributes of inode {ino} can't be read"));
        return Ok(());
    };
    let is_orphan = meta.get(&key::orphan(ino))?.is_some();
    if is_orphan != (inode.nlink == 0) {
        report.wrong(format!(
            "inode {ino} has {} links and is {}kept as one without a name",
            inode.nlink,
            if is_orphan { "" } else { "not " }
        ));
    }
    if !inode.is_dir() {
        names.links += u64::from(inode.nlink);
        if inode.nlink > 1 {
            names.several.entry(ino).or_default().0 = inode.nlink;
        }
        return Ok(());
    }
    directory(meta, ino, &inode, names, report)
}

fn directory(
    meta: &impl Meta,
    ino: Ino,
    inode: &Inode,
    names: &mut Names,
    report: &mut impl Report,
) -> Result<(), StoreError> {
    let (mut entries, mut directories, mut in_order) = (0, 0, 0);
    each(meta, &key::dirent(ino, b""), &mut |key, value| {
        entries += 1;
        let name = key.slice(9..);
        let Ok(entry) = Dirent::decode(value) else {
            report.wrong(format!("the name {name:?} in directory {ino} can't be read"));
            return Ok(());
        };
        directories += u32::from(entry.kind == TYPE_DIR);
        let child = Child {
            ino: entry.ino,
            kind: entry.kind,
            name: name.clone(),
        };
        if meta.get(&key::child(ino, entry.cookie))? != Some(child.encode()) {
            report.wrong(format!(
                "the name {name:?} in directory {ino} isn't what it is in the order of listing"
            ));
        }
        if entry.cookie >= inode.next_cookie {
            report.wrong(format!(
                "the next name in directory {ino} would get the place of {name:?} in the order of listing"
            ));
        }
        leads_somewhere(meta, ino, &name, &entry, names, report)
    })?;
    each(meta, &key::children(ino), &mut |_, _| {
        in_order += 1;
        Ok(())
    })?;
    if entries != inode.entries || in_order != entries {
        report.wrong(format!(
            "directory {ino} has {entries} names, {in_order} in the order of listing, and counts {}",
            inode.entries
        ));
    }
    if inode.nlink != 0 && inode.nlink != 2 + directories {
        report.wrong(format!(
            "directory {ino} has {} links and {directories} directories in it",
            inode.nlink
        ));
    }
    Ok(())
}

const TYPE_DIR: u32 = libc::S_IFDIR;

fn leads_somewhere(
    meta: &impl Meta,
    parent: Ino,
    name: &Bytes,
    entry: &Dirent,
    names: &mut Names,
    report: &mut impl Report,
) -> Result<(), StoreError> {
    let value = meta.get(&key::inode(entry.ino))?;
    let Some(Ok(inode)) = value.as_ref().map(Inode::decode) else {
        report.wrong(format!(
            "the name {name:?} in directory {parent} leads to inode {}, which isn't there",
            entry.ino
        ));
        return Ok(());
    };
    if inode.mode & TYPE != entry.kind {
        report.wrong(format!(
            "the name {name:?} in directory {parent} is of another type than inode {}",
            entry.ino
        ));
    }
    if inode.is_dir() {
        if inode.parent != parent {
            report.wrong(format!(
                "directory {} is in {parent} and says that it is in {}",
                entry.ino, inode.parent
            ));
        }
        return Ok(());
    }
    names.found += 1;
    if inode.nlink > 1 {
        let counts = names.several.entry(entry.ino).or_default();
        *counts = (inode.nlink, counts.1 + 1);
    }
    Ok(())
}

/// What hangs on an inode, and can be read.
fn belongs(meta: &impl Meta, key: &Bytes, value: &Bytes, report: &mut impl Report) -> Result<(), StoreError> {
    let kind = key.first().copied().unwrap_or_default();
    if matches!(kind, b'i' | b'm' | b'z') {
        return Ok(());
    }
    report.keys(1);
    let (owner, is_readable) = match kind {
        b'd' => (key::owner(key), Dirent::decode(value).is_ok()),
        b'c' => (key::owner(key), Child::decode(value).is_ok()),
        b'x' => (key::owner(key), Xattrs::decode(value).is_ok()),
        b'o' => (key::owner(key), true),
        b'p' => (key::tail_number(key).map(Ino), ClassRoot::decode(value).is_ok()),
        b'b' => (key::owner(key), true),
        _ => (None, false),
    };
    let Some(owner) = owner else {
        report.wrong(format!("{key:?} is no key of this format"));
        return Ok(());
    };
    if !is_readable {
        report.wrong(format!("the value of {key:?}, of inode {owner}, can't be read"));
    }
    let inode = meta.get(&key::inode(owner))?;
    let Some(Ok(inode)) = inode.as_ref().map(Inode::decode) else {
        report.wrong(format!("{key:?} belongs to inode {owner}, which isn't there"));
        return Ok(());
    };
    let blocks = inode.size.div_ceil(BLOCK);
    let is_behind = key::tail_number(key).is_some_and(|group| group >= blocks.div_ceil(GROUP));
    if kind == b'b' && (!inode.is_file() || is_behind) {
        report.wrong(format!("inode {owner} has checksums where it has no bytes"));
    }
    Ok(())
}
