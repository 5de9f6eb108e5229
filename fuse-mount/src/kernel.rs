//! What the kernel is told and asked of its own memory, beside the answers to its requests.
//!
//! On a thread of its own: the kernel may wait in it for locks that running requests hold.

use crate::backend::Backend;
use crate::doubt::Doubt;
use crate::request::Desk;
use fuser::{INodeNo, Notifier};
use holdfast_storage::types::Ino;
use rustix::io::{Errno, write};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Weak;
use std::sync::mpsc::Receiver;
use tracing::debug;

/// FUSE_NOTIFY_INVAL_INODE of the kernel's include/uapi/linux/fuse.h.
const INVAL_INODE: i32 = 2;
const INVAL_INODE_LEN: usize = 40;

/// What the thread has to do.
pub(crate) enum Errand {
    /// A change failed whose outcome isn't known.
    Doubt(Doubt),
    /// The kernel has let go of an inode without names.
    Forgotten(Ino),
}

/// The kernel's side of one mount.
pub(crate) struct Kernel {
    notifier: Notifier,
    device: OwnedFd,
}

impl Kernel {
    pub(crate) fn new(notifier: Notifier, device: OwnedFd) -> Self {
        Self { notifier, device }
    }

    /// Runs errands until the mount ends.
    pub(crate) fn serve<B: Backend>(&self, errands: &Receiver<Errand>, desk: &Weak<Desk<B>>) {
        while let Ok(errand) = errands.recv() {
            let done = match errand {
                Errand::Doubt(doubt) => self.forget(doubt),
                Errand::Forgotten(ino) => self.holds(ino).map(|held| {
                    if !held && let Some(desk) = desk.upgrade() {
                        desk.forgotten(ino);
                    }
                }),
            };
            if let Err(error) = done {
                // The mount is ending: nothing is remembered any longer, and orphans are found by the next one.
                debug!(%error, "the kernel was not told");
            }
        }
    }

    /// It drops what it remembers, and asks again.
    fn forget(&self, doubt: Doubt) -> io::Result<()> {
        for (parent, name) in doubt.names.into_iter().flatten() {
            self.notifier
                .inval_entry(INodeNo(parent.0), OsStr::from_bytes(&name))?;
        }
        match doubt.ino {
            Some(ino) => self.notifier.inval_inode(INodeNo(ino.0), 0, 0),
            None => Ok(()),
        }
    }

    /// Whether it has this inode in memory. Its forgetting alone doesn't say so: it may have been told of the inode
    /// again before that arrived. Asked by making it drop the attributes, and fuser hides that answer.
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
