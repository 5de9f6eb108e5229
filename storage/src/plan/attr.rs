//! Attributes of an inode: mode, owner, size, times.

use super::acl;
use super::scratch::{Scratch, Stop};
use crate::effects::Effect;
use crate::key;
use crate::op::{Refusal, Reply, SetAttr, SetTime};
use crate::record::Inode;
use crate::types::{Ino, MAX_FILE, Time};

pub(super) fn set(scratch: &mut Scratch<'_>, ino: Ino, set: &SetAttr) -> Result<Reply, Stop> {
    if set.mode.is_some() {
        scratch.require([key::inode(ino), key::xattrs(ino)])?;
    }
    let before = scratch.inode(ino)?;
    let mut inode = before.clone();
    if let Some(size) = set.size {
        check_size(&inode, size)?;
        if size < inode.size {
            scratch.data(Effect::Truncate { ino, size });
        }
        // Beyond the old size all reads as zeros already, for shrinking has made it so: growing touches no data.
        inode.size = size;
        inode.seal = None;
        inode.mtime = scratch.now();
    }
    if let Some(mode) = set.mode {
        inode.mode = inode.mode & libc::S_IFMT | mode & 0o7777;
        acl::follow_mode(scratch, ino, &inode)?;
    }
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    // A chown takes set-id bits away whoever asks, root too.
    if set.clear_setid || set.uid.is_some() || set.gid.is_some() {
        drop_setid(&mut inode);
    }
    inode.atime = time(set.atime, inode.atime, scratch.now());
    inode.mtime = time(set.mtime, inode.mtime, scratch.now());
    let asked = *set
        != SetAttr {
            clear_setid: set.clear_setid,
            ..SetAttr::default()
        };
    if asked || inode != before {
        inode.ctime = scratch.now();
        scratch.put_inode(ino, &inode);
    }
    Ok(Reply::Inode(ino, inode))
}

fn check_size(inode: &Inode, size: u64) -> Result<(), Refusal> {
    if inode.is_dir() {
        return Err(Refusal::IsDirectory);
    }
    if !inode.is_file() {
        return Err(Refusal::Invalid);
    }
    if size > MAX_FILE {
        Err(Refusal::TooLarge)
    } else {
        Ok(())
    }
}

fn time(set: Option<SetTime>, old: Time, now: Time) -> Time {
    match set {
        None => old,
        Some(SetTime::Now) => now,
        Some(SetTime::To(time)) => time,
    }
}

/// As the kernel does it: S_ISGID goes only where the group may execute; without that it isn't a set-id bit. On a
/// directory both bits mean something else.
pub(super) fn drop_setid(inode: &mut Inode) {
    if inode.is_dir() {
        return;
    }
    inode.mode &= !libc::S_ISUID;
    if inode.mode & libc::S_IXGRP != 0 {
        inode.mode &= !libc::S_ISGID;
    }
}
