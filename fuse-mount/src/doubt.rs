//! What the kernel may remember wrongly: after a change whose outcome isn't known it is told to forget.
//!
//! The kernel keeps names and attributes for ever and drops what a change made stale only if that change succeeded.

use bytes::Bytes;
use holdfast_storage::op::Op;
use holdfast_storage::types::Ino;

/// Names and an inode that a change concerned. Forgetting a name makes the kernel ask for its directory again, too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt {
    pub(crate) ino: Option<Ino>,
    pub(crate) names: [Option<(Ino, Bytes)>; 2],
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
