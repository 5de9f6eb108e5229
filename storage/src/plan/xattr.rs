//! Extended attributes: all of an inode in one record. Which namespaces there are is decided in the fuse-mount.

use super::acl;
use super::scratch::{Scratch, Stop};
use crate::key;
use crate::op::{Caller, Refusal, Reply, SetXattr};
use crate::record::{Inode, Xattrs};
use crate::types::{Ino, MAX_NAME};
use bytes::Bytes;

/// Longest value of one attribute, as in the kernel.
const MAX_VALUE: usize = 64 << 10;

pub(super) const DONE: Reply = Reply::Done { orphaned: None };

pub(super) fn set(
    scratch: &mut Scratch<'_>,
    ino: Ino,
    name: &Bytes,
    value: &Bytes,
    how: SetXattr,
    caller: Caller,
) -> Result<Reply, Stop> {
    check_name(name)?;
    if acl::is_acl(name) {
        return acl::set(scratch, ino, name, value, caller);
    }
    let (inode, mut all) = load(scratch, ino)?;
    let old = all.0.get(name);
    match (how, old) {
        (SetXattr::Create, Some(_)) => return Err(Refusal::Exists.into()),
        (SetXattr::Replace, None) => return Err(Refusal::NoAttribute.into()),
        _ if value.len() > MAX_VALUE => return Err(Refusal::AttributeTooLarge.into()),
        (_, Some(old)) if old == value => return Ok(DONE),
        _ => {}
    }
    all.0.insert(name.clone(), value.clone());
    store(scratch, ino, inode, &all)?;
    Ok(DONE)
}

pub(super) fn remove(scratch: &mut Scratch<'_>, ino: Ino, name: &Bytes) -> Result<Reply, Stop> {
    check_name(name)?;
    if acl::is_acl(name) {
        return acl::remove(scratch, ino, name);
    }
    let (inode, mut all) = load(scratch, ino)?;
    all.0.remove(name).ok_or(Refusal::NoAttribute)?;
    store(scratch, ino, inode, &all)?;
    Ok(DONE)
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    match name.len() {
        0 => Err(Refusal::Invalid),
        len if len > MAX_NAME => Err(Refusal::NameTooLong),
        _ if name.contains(&0) => Err(Refusal::Invalid),
        _ => Ok(()),
    }
}

pub(super) fn load(scratch: &Scratch<'_>, ino: Ino) -> Result<(Inode, Xattrs), Stop> {
    scratch.require([key::inode(ino), key::xattrs(ino)])?;
    Ok((scratch.inode(ino)?, scratch.xattrs(ino)?))
}

pub(super) fn store(scratch: &mut Scratch<'_>, ino: Ino, mut inode: Inode, all: &Xattrs) -> Result<(), Stop> {
    if all.len() > Xattrs::MAX {
        return Err(Refusal::AttributeTooLarge.into());
    }
    inode.ctime = scratch.now();
    scratch.put_inode(ino, &inode);
    scratch.put_xattrs(ino, all);
    Ok(())
}
