//! Names come and go: create, link, unlink, rmdir; and inodes that have none any more.

use super::acl;
use super::class::{made, unmake};
use super::scratch::{Scratch, Stop};
use super::{DIRECTORY_SIZE, MAX_LINKS, MAX_TARGET};
use crate::class::Class;
use crate::effects::Effect;
use crate::key;
use crate::op::{Caller, Refusal, Reply};
use crate::record::{Child, Dirent, FIRST_COOKIE, Inode};
use crate::types::{Ino, MAX_NAME};
use bytes::Bytes;

/// The kernel resolves `.` and `..` itself; should one arrive, `dots` is the answer.
pub(super) fn check(name: &[u8], dots: Refusal) -> Result<(), Refusal> {
    match name {
        b"" => Err(Refusal::Invalid),
        b"." | b".." => Err(dots),
        _ if name.len() > MAX_NAME => Err(Refusal::NameTooLong),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Refusal::Invalid),
        _ => Ok(()),
    }
}

pub(super) fn create(
    scratch: &mut Scratch<'_>,
    (parent, name): (Ino, &Bytes),
    mode: u32,
    rdev: u32,
    target: &Bytes,
    class: Option<Class>,
    caller: Caller,
) -> Result<Reply, Stop> {
    check(name, Refusal::Exists)?;
    check_kind(mode, target)?;
    scratch.require([
        key::inode(parent),
        key::dirent(parent, name),
        key::xattrs(parent),
        key::own(key::NEXT_INO),
    ])?;
    let directory = scratch.live_directory(parent)?;
    if scratch.entry(parent, name)?.is_some() {
        return Err(Refusal::Exists.into());
    }
    let ino = scratch.new_ino()?;
    let mut inode = Inode {
        parent,
        ..new_inode(&directory, mode, rdev, target, caller, scratch)
    };
    made(scratch, ino, &mut inode, class);
    let attributes = acl::inherit(scratch, parent, &mut inode, caller.umask)?;
    scratch.put_inode(ino, &inode);
    if !attributes.is_empty() {
        scratch.put_xattrs(ino, &attributes);
    }
    add(scratch, parent, name, (ino, mode & libc::S_IFMT), directory.next_cookie)?;
    Ok(Reply::Inode(ino, inode))
}

fn check_kind(mode: u32, target: &[u8]) -> Result<(), Refusal> {
    match mode & libc::S_IFMT {
        libc::S_IFLNK if target.is_empty() => Err(Refusal::NotFound),
        libc::S_IFLNK if target.len() > MAX_TARGET => Err(Refusal::NameTooLong),
        libc::S_IFLNK if target.contains(&0) => Err(Refusal::Invalid),
        libc::S_IFLNK => Ok(()),
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFCHR | libc::S_IFBLK | libc::S_IFIFO | libc::S_IFSOCK
            if target.is_empty() =>
        {
            Ok(())
        }
        _ => Err(Refusal::Invalid),
    }
}

fn new_inode(directory: &Inode, mode: u32, rdev: u32, target: &Bytes, caller: Caller, scratch: &Scratch<'_>) -> Inode {
    let now = scratch.now();
    let kind = mode & libc::S_IFMT;
    let mut permissions = if kind == libc::S_IFLNK { 0o777 } else { mode & 0o7777 };
    // In a set-group-ID directory all is of its group, and so are its sub-directories' contents. Whether a file may
    // itself keep S_ISGID depends on the caller's groups: the kernel has taken it away (vfs_prepare_mode, since 6.0).
    let gid = if directory.mode & libc::S_ISGID != 0 {
        if kind == libc::S_IFDIR {
            permissions |= libc::S_ISGID;
        }
        directory.gid
    } else {
        caller.gid
    };
    Inode {
        mode: kind | permissions,
        uid: caller.uid,
        gid,
        nlink: if kind == libc::S_IFDIR { 2 } else { 1 },
        size: if kind == libc::S_IFDIR {
            DIRECTORY_SIZE
        } else {
            target.len() as u64
        },
        rdev: if kind == libc::S_IFCHR || kind == libc::S_IFBLK {
            rdev
        } else {
            0
        },
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        parent: Ino::ROOT,
        entries: 0,
        next_cookie: FIRST_COOKIE,
        class: directory.class,
        own_class: false,
        seal: None,
        target: target.clone(),
    }
}

pub(super) fn link(scratch: &mut Scratch<'_>, ino: Ino, parent: Ino, name: &Bytes) -> Result<Reply, Stop> {
    check(name, Refusal::Exists)?;
    scratch.require([key::inode(ino), key::inode(parent), key::dirent(parent, name)])?;
    let directory = scratch.live_directory(parent)?;
    if scratch.entry(parent, name)?.is_some() {
        return Err(Refusal::Exists.into());
    }
    let mut inode = scratch.inode(ino)?;
    if inode.is_dir() {
        return Err(Refusal::NotPermitted.into());
    }
    // Without names it may be reaped at any moment: none may come back to it.
    if inode.nlink == 0 {
        return Err(Refusal::NotFound.into());
    }
    if inode.nlink >= MAX_LINKS {
        return Err(Refusal::TooManyLinks.into());
    }
    inode.nlink += 1;
    inode.ctime = scratch.now();
    scratch.put_inode(ino, &inode);
    add(
        scratch,
        parent,
        name,
        (ino, inode.mode & libc::S_IFMT),
        directory.next_cookie,
    )?;
    Ok(Reply::Inode(ino, inode))
}

pub(super) fn unlink(scratch: &mut Scratch<'_>, parent: Ino, name: &Bytes) -> Result<Reply, Stop> {
    check(name, Refusal::IsDirectory)?;
    let (entry, inode) = named(scratch, parent, name)?;
    if inode.is_dir() {
        return Err(Refusal::IsDirectory.into());
    }
    remove(scratch, parent, name, &entry)?;
    let orphaned = lose_name(scratch, entry.ino, inode)?;
    Ok(Reply::Done { orphaned })
}

pub(super) fn rmdir(scratch: &mut Scratch<'_>, parent: Ino, name: &Bytes) -> Result<Reply, Stop> {
    check(
        name,
        if name.as_ref() == b".." {
            Refusal::NotEmpty
        } else {
            Refusal::Invalid
        },
    )?;
    let (entry, inode) = named(scratch, parent, name)?;
    if !inode.is_dir() {
        return Err(Refusal::NotDirectory.into());
    }
    if inode.entries > 0 {
        return Err(Refusal::NotEmpty.into());
    }
    remove(scratch, parent, name, &entry)?;
    let orphaned = lose_name(scratch, entry.ino, inode)?;
    Ok(Reply::Done { orphaned })
}

fn named(scratch: &Scratch<'_>, parent: Ino, name: &Bytes) -> Result<(Dirent, Inode), Stop> {
    scratch.require([key::inode(parent), key::dirent(parent, name)])?;
    scratch.directory(parent)?;
    let entry = scratch.entry(parent, name)?.ok_or(Refusal::NotFound)?;
    let inode = scratch.target(&entry)?;
    Ok((entry, inode))
}

/// The inode loses one name, a directory its only one. Returns it if none is left.
pub(super) fn lose_name(scratch: &mut Scratch<'_>, ino: Ino, mut inode: Inode) -> Result<Option<Ino>, Stop> {
    inode.nlink = if inode.is_dir() {
        0
    } else {
        inode.nlink.checked_sub(1).ok_or(Refusal::Damaged)?
    };
    inode.ctime = scratch.now();
    if inode.nlink == 0 {
        unmake(scratch, ino, &mut inode);
    }
    scratch.put_inode(ino, &inode);
    if inode.nlink > 0 {
        return Ok(None);
    }
    scratch.put(key::orphan(ino), Bytes::new());
    Ok(Some(ino))
}

/// Puts an entry at `cookie`, which is the directory's next or one that was freed in this operation.
pub(super) fn add(
    scratch: &mut Scratch<'_>,
    parent: Ino,
    name: &Bytes,
    (ino, kind): (Ino, u32),
    cookie: u64,
) -> Result<(), Stop> {
    put(scratch, parent, name, (ino, kind), cookie);
    let mut directory = scratch.directory(parent)?;
    directory.entries += 1;
    directory.next_cookie = directory
        .next_cookie
        .max(cookie.checked_add(1).ok_or(Refusal::Damaged)?);
    if kind == libc::S_IFDIR {
        directory.nlink = directory.nlink.checked_add(1).ok_or(Refusal::TooManyLinks)?;
    }
    put_changed(scratch, parent, directory);
    Ok(())
}

/// Takes an entry out of its directory.
pub(super) fn remove(scratch: &mut Scratch<'_>, parent: Ino, name: &Bytes, entry: &Dirent) -> Result<(), Stop> {
    scratch.delete(key::dirent(parent, name));
    scratch.delete(key::child(parent, entry.cookie));
    let mut directory = scratch.directory(parent)?;
    directory.entries = directory.entries.checked_sub(1).ok_or(Refusal::Damaged)?;
    if entry.kind == libc::S_IFDIR {
        directory.nlink = directory.nlink.checked_sub(1).ok_or(Refusal::Damaged)?;
    }
    put_changed(scratch, parent, directory);
    Ok(())
}

/// Both records of an entry, old ones of the same name and cookie replaced.
pub(super) fn put(scratch: &mut Scratch<'_>, parent: Ino, name: &Bytes, (ino, kind): (Ino, u32), cookie: u64) {
    scratch.put(key::dirent(parent, name), Dirent { ino, cookie, kind }.encode());
    scratch.put(
        key::child(parent, cookie),
        Child {
            ino,
            kind,
            name: name.clone(),
        }
        .encode(),
    );
}

/// A directory whose entries have changed.
pub(super) fn put_changed(scratch: &mut Scratch<'_>, ino: Ino, mut directory: Inode) {
    directory.mtime = scratch.now();
    directory.ctime = scratch.now();
    scratch.put_inode(ino, &directory);
}

/// An inode without names that nobody has open goes for good. One that has a name, or is gone already, is left alone.
pub(super) fn reap(scratch: &mut Scratch<'_>, ino: Ino) -> Result<Reply, Stop> {
    scratch.require([key::orphan(ino), key::inode(ino), key::xattrs(ino)])?;
    if scratch.get(&key::orphan(ino))?.is_some() {
        let inode = scratch.inode(ino).map_err(|stop| match stop {
            Stop::Refused(Refusal::NotFound) => Refusal::Damaged.into(),
            other => other,
        })?;
        if inode.nlink > 0 {
            return Err(Refusal::Damaged.into());
        }
        scratch.delete(key::inode(ino));
        scratch.delete(key::orphan(ino));
        if scratch.get(&key::xattrs(ino))?.is_some() {
            scratch.delete(key::xattrs(ino));
        }
        scratch.data(Effect::Purge { ino });
    }
    Ok(Reply::Done { orphaned: None })
}
