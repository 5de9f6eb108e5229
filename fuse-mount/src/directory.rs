//! A directory's entries in the order of their cookies, which stay theirs: a reader that comes back sees none twice.

use crate::attr;
use crate::backend::Backend;
use bytes::Bytes;
use fuser::FileType;
use holdfast_replicator::api::Failure;
use holdfast_storage::types::Ino;

/// Offsets of the two entries that aren't stored.
const SELF_OFFSET: u64 = 1;
const PARENT_OFFSET: u64 = 2;

pub(crate) struct Listed {
    pub(crate) ino: Ino,
    /// Where reading goes on after it.
    pub(crate) offset: u64,
    pub(crate) kind: FileType,
    pub(crate) name: Bytes,
}

/// Whether the caller's buffer has no room for the entry.
pub(crate) type Full = bool;

/// Hands entries after `offset` and before `end` to `add` until it is full; asks for `page` of them at a time.
pub(crate) fn list(
    backend: &impl Backend,
    dir: Ino,
    (offset, end): (u64, u64),
    page: usize,
    mut add: impl FnMut(&Listed) -> Result<Full, Failure>,
) -> Result<(), Failure> {
    for dot in dots(backend, dir, offset)? {
        if add(&dot)? {
            return Ok(());
        }
    }
    let mut after = offset.max(PARENT_OFFSET);
    loop {
        let children = backend.readdir(dir, after, page)?;
        let last = children.len() < page;
        for (cookie, child) in children {
            if cookie >= end {
                return Ok(());
            }
            after = cookie;
            let listed = Listed {
                ino: child.ino,
                offset: cookie,
                kind: attr::kind(child.kind)?,
                name: child.name,
            };
            if add(&listed)? {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
    }
}

fn dots(backend: &impl Backend, dir: Ino, offset: u64) -> Result<Vec<Listed>, Failure> {
    let mut dots = Vec::new();
    if offset < PARENT_OFFSET {
        let parent = backend.getattr(dir)?.parent;
        for (ino, at, name) in [(dir, SELF_OFFSET, "."), (parent, PARENT_OFFSET, "..")] {
            if offset < at {
                dots.push(Listed {
                    ino,
                    offset: at,
                    kind: FileType::Directory,
                    name: Bytes::from_static(name.as_bytes()),
                });
            }
        }
    }
    Ok(dots)
}
