//! What the kernel is told and asked of its own memory, beside the answers to its requests.
//!
//! Only by threads that serve no requests: the kernel may wait in it for locks that running requests hold.

use fuser::{INodeNo, Notifier};
use holdfast_storage::types::Ino;
use rustix::io::{Errno, write};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;

/// FUSE_NOTIFY_INVAL_INODE of the kernel's include/uapi/linux/fuse.h.
const INVAL_INODE: i32 = 2;
const INVAL_INODE_LEN: usize = 40;

/// The kernel's side of one mount.
pub(crate) struct Kernel {
    notifier: Notifier,
    device: OwnedFd,
}

impl Kernel {
    pub(crate) fn new(notifier: Notifier, device: OwnedFd) -> Self {
        Self { notifier, device }
    }

    /// It asks again for this name, and for its directory.
    pub(crate) fn forget_name(&self, parent: Ino, name: &OsStr) -> io::Result<()> {
        self.notifier.inval_entry(INodeNo(parent.0), name)
    }

    /// It asks again for this inode's attributes and bytes.
    pub(crate) fn forget_inode(&self, ino: Ino) -> io::Result<()> {
        self.notifier.inval_inode(INodeNo(ino.0), 0, 0)
    }

    /// Whether it has this inode in memory. Asked by making it drop the attributes; fuser hides that answer.
    pub(crate) fn holds(&self, ino: Ino) -> io::Result<bool> {
        match write(&self.device, &inval_attributes(ino)) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// `fuse_out_header` and `fuse_notify_inval_inode_out`; an offset below zero leaves the pages alone.
fn inval_attributes(ino: Ino) -> [u8; INVAL_INODE_LEN] {
    let mut message = [0; INVAL_INODE_LEN];
    message[0..4].copy_from_slice(&(INVAL_INODE_LEN as u32).to_ne_bytes());
    message[4..8].copy_from_slice(&INVAL_INODE.to_ne_bytes());
    message[16..24].copy_from_slice(&ino.0.to_ne_bytes());
    message[24..32].copy_from_slice(&(-1_i64).to_ne_bytes());
    message
}
