//! What an application asks for: the planner's input. Times and identities come with it, never from the machine.

use crate::class::Class;
use crate::types::{Ino, Time};
use bytes::Bytes;

/// Who asks. Permissions are checked by the kernel (`default_permissions`); this decides owners, set-id bits and modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Permissions that a new inode doesn't get, unless its directory has a default ACL.
    pub umask: u32,
}

/// A change, or nothing: an operation that finds nothing to change yields no effects and a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new inode under a name. Fails with `Exists` if the name is taken.
    /// `mode` has the type bits. `target` is a symbolic link's. `class`: one that the configuration gives to a
    /// directory of this path; else it is inherited.
    Create {
        parent: Ino,
        name: Bytes,
        mode: u32,
        rdev: u32,
        target: Bytes,
        class: Option<Class>,
        caller: Caller,
    },
    Link {
        ino: Ino,
        parent: Ino,
        name: Bytes,
    },
    Unlink {
        parent: Ino,
        name: Bytes,
        caller: Caller,
    },
    Rmdir {
        parent: Ino,
        name: Bytes,
        caller: Caller,
    },
    Rename {
        from: Ino,
        from_name: Bytes,
        to: Ino,
        to_name: Bytes,
        how: Rename,
        caller: Caller,
    },
    SetAttr {
        ino: Ino,
        set: SetAttr,
    },
    /// At most `MAX_WRITE` bytes. The kernel decides the offset, also for O_APPEND (one active node, one kernel).
    /// `clear_setid`: the writer lacks CAP_FSETID (FUSE_WRITE_KILL_SUIDGID).
    Write {
        ino: Ino,
        offset: u64,
        data: Bytes,
        clear_setid: bool,
    },
    Fallocate {
        ino: Ino,
        offset: u64,
        len: u64,
        how: Fallocate,
    },
    SetXattr {
        ino: Ino,
        name: Bytes,
        value: Bytes,
        how: SetXattr,
        caller: Caller,
    },
    RemoveXattr {
        ino: Ino,
        name: Bytes,
    },
    /// By hand. `None`: what its directory has.
    SetClass {
        ino: Ino,
        class: Option<Class>,
    },
    /// Keeps the hash of a file whose class is sealed, if it is still as it was when the hash was taken.
    Seal {
        ino: Ino,
        size: u64,
        ctime: Time,
        hash: [u8; 32],
    },
    /// An inode without names that nobody has open any more goes for good.
    Reap {
        ino: Ino,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    Any,
    Create,
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallocate {
    /// Reserve; extends the size.
    Allocate,
    /// Reserve beyond the end without changing the size.
    KeepSize,
    /// Bytes read as zeros and the space is given back; the size stays.
    Punch,
    /// Bytes read as zeros; `keep_size` false extends the size.
    Zero { keep_size: bool },
}

/// Fields of `setattr`; `None` leaves one as it is. ctime is always set to now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits only.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// Truncation by a caller without CAP_FSETID, or a chown: set-id bits go.
    pub clear_setid: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    To(Time),
}

/// What the application gets back when its condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The inode as it is after the operation (create, link, setattr).
    Inode(Ino, crate::record::Inode),
    Written(u32),
    /// `orphaned`: the inode lost its last name in this operation (unlink, rmdir, rename over it).
    Done {
        orphaned: Option<Ino>,
    },
    /// False: the file has changed meanwhile, or its class isn't sealed any more.
    Sealed(bool),
}

/// Why an operation is refused. fuse-mount/src/errno.rs has each one's errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such file or directory")]
    NotFound,
    #[error("exists already")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("name longer than 255 bytes")]
    NameTooLong,
    #[error("invalid argument")]
    Invalid,
    #[error("not permitted")]
    NotPermitted,
    #[error("too many links")]
    TooManyLinks,
    #[error("file too large")]
    TooLarge,
    #[error("no space left")]
    NoSpace,
    #[error("no such attribute")]
    NoAttribute,
    #[error("attribute value too large")]
    AttributeTooLarge,
    #[error("not supported")]
    NotSupported,
    /// A stored record can't be read: nothing is changed.
    #[error("damaged metadata")]
    Damaged,
}
