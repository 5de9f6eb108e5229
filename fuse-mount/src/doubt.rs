//! What the kernel may remember wrongly: after a change whose outcome isn't known it is told to forget.
//!
//! The kernel keeps names for ever, attributes for long, and drops what a change made stale only if that change succeeded.
//! The telling has a thread of its own: it may wait for a directory in which a change is under way.

use crate::kernel::Kernel;
use bytes::Bytes;
use holdfast_storage::op::Op;
use holdfast_storage::types::Ino;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Receiver;
use tracing::debug;

/// Names and an inode that a change concerned. Forgetting a name makes the kernel ask for its directory again, too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt {
    ino: Option<Ino>,
    names: [Option<(Ino, Bytes)>; 2],
}

impl Doubt {
    pub(crate) fn about(op: &Op) -> Self {
        let name = |parent: &Ino, name: &Bytes| [Some((*parent, name.clone())), None];
        match op {
            Op::Create { parent, name: at, .. }
            | Op::Unlink { parent, name: at, .. }
            | Op::Rmdir { parent, name: at, .. } => Self {
                ino: None,
                names: name(parent, at),
            },
            Op::Link { ino, parent, name: at } => Self {
                ino: Some(*ino),
                names: name(parent, at),
            },
            Op::Rename {
                from,
                from_name,
                to,
                to_name,
                ..
            } => Self {
                ino: None,
                names: [Some((*from, from_name.clone())), Some((*to, to_name.clone()))],
            },
            Op::SetAttr { ino, .. }
            | Op::Write { ino, .. }
            | Op::Fallocate { ino, .. }
            | Op::SetXattr { ino, .. }
            | Op::RemoveXattr { ino, .. }
            | Op::SetClass { ino, .. } => Self {
                ino: Some(*ino),
                names: [None, None],
            },
            // Neither shows in what the kernel remembers.
            Op::Seal { .. } | Op::Reap { .. } => Self::default(),
        }
    }
}

/// Until the mount ends.
pub(crate) fn settle(doubts: &Receiver<Doubt>, kernel: &Kernel) {
    while let Ok(doubt) = doubts.recv() {
        for (parent, name) in doubt.names.into_iter().flatten() {
            tell(kernel.forget_name(parent, OsStr::from_bytes(&name)));
        }
        if let Some(ino) = doubt.ino {
            tell(kernel.forget_inode(ino));
        }
    }
}

fn tell(result: std::io::Result<()>) {
    if let Err(error) = result {
        // Most likely the mount is ending: nothing is remembered any longer.
        debug!(%error, "the kernel was not told what to forget");
    }
}
