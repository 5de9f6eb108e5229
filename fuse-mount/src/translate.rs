//! The kernel's words in the planner's: numbers, names and flags.

use crate::backend::Backend;
use crate::errno;
use bytes::Bytes;
use fuser::{INodeNo, RenameFlags, ReplyXattr, Request};
use holdfast_replicator::api::Failure;
use holdfast_storage::class::Class;
use holdfast_storage::op::{Caller, Fallocate, Op, Refusal, Rename, SetXattr};
use holdfast_storage::types::Ino;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(crate) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(crate) fn bytes(name: &OsStr) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

pub(crate) fn caller(req: &Request, umask: u32) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        umask,
    }
}

/// The kernel leaves the umask to us (FUSE_DONT_MASK): with a default ACL it doesn't count.
pub(crate) fn create(caller: Caller, parent: INodeNo, name: &OsStr, mode: u32, rdev: u32, target: Bytes) -> Op {
    create_of_class(None, caller, parent, name, mode, rdev, target)
}

/// `class`: what the configuration gives to a new directory of this path.
pub(crate) fn create_of_class(
    class: Option<Class>,
    caller: Caller,
    parent: INodeNo,
    name: &OsStr,
    mode: u32,
    rdev: u32,
    target: Bytes,
) -> Op {
    Op::Create {
        parent: ino(parent),
        name: bytes(name),
        mode,
        rdev,
        target,
        class,
        caller,
    }
}

pub(crate) fn rename_how(flags: RenameFlags) -> Result<Rename, Failure> {
    match flags.bits() {
        0 => Ok(Rename::Replace),
        libc::RENAME_NOREPLACE => Ok(Rename::NoReplace),
        libc::RENAME_EXCHANGE => Ok(Rename::Exchange),
        _ => Err(Refusal::Invalid.into()),
    }
}

pub(crate) fn fallocate_how(mode: i32) -> Result<Fallocate, Failure> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEPING: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Ok(Fallocate::Allocate),
        libc::FALLOC_FL_KEEP_SIZE => Ok(Fallocate::KeepSize),
        PUNCH => Ok(Fallocate::Punch),
        libc::FALLOC_FL_ZERO_RANGE => Ok(Fallocate::Zero { keep_size: false }),
        ZERO_KEEPING => Ok(Fallocate::Zero { keep_size: true }),
        _ => Err(Refusal::NotSupported.into()),
    }
}

pub(crate) fn set_xattr_how(flags: i32) -> Result<SetXattr, Failure> {
    match flags {
        0 => Ok(SetXattr::Any),
        libc::XATTR_CREATE => Ok(SetXattr::Create),
        libc::XATTR_REPLACE => Ok(SetXattr::Replace),
        _ => Err(Refusal::Invalid.into()),
    }
}

/// None: nothing of the kind before the end of the file, or the search began behind it.
pub(crate) fn seek(backend: &impl Backend, ino: Ino, offset: i64, whence: i32) -> Result<Option<u64>, Failure> {
    let offset = u64::try_from(offset).map_err(|_| Refusal::Invalid)?;
    if offset >= backend.getattr(ino)?.size {
        return Ok(None);
    }
    match whence {
        libc::SEEK_DATA => backend.seek_data(ino, offset),
        libc::SEEK_HOLE => backend.seek_hole(ino, offset).map(Some),
        _ => Err(Refusal::Invalid.into()),
    }
}

/// Size 0 asks how large a buffer is needed.
pub(crate) fn sized(reply: ReplyXattr, value: &[u8], size: u32) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(errno::BUFFER_TOO_SMALL);
    } else {
        reply.data(value);
    }
}
