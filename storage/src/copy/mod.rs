//! A whole replica copied from one that is in use, by differences: for a node that was away for longer than the log
//! reaches back, or whose disk is new.
//!
//! The source goes on as if nothing were. The target isn't open: no role, no vote, no reader, until `finish`. Piece by
//! piece of the key space, the checksums of all blocks among them, the two compare hashes; where they differ the target
//! takes the source's keys, and of the data the blocks whose checksums differ.
//!
//! So each key and each block is as it was at *some* moment between the checkpoint at which the copy began and its end,
//! not all at the same. That is what a crash leaves as well, and redo mends it: entries hold absolute values and exact
//! bytes, so whatever was changed meanwhile is written again, in order, and whatever wasn't is right already. Until redo
//! has passed the end of the copy (`Identity::joined`) the replica serves nothing.
//!
//! Which crash each step survives: from `Target::begin` to the end of `finish` a mark says that the store is being copied,
//! and nothing else opens it. If the target crashes in between, files and checksums may not fit each other any more: the
//! next `begin` makes the checksums anew from the files, and the copy goes on with what still differs.

mod finish;
pub(crate) mod mark;
mod rebuild;
mod source;
mod target;

pub use finish::Joint;
pub use mark::is_copying;
pub use source::{Blocks, Source};
pub use target::{Counts, Target, Wanted};

use crate::error::StoreError;
use crate::key;
use crate::meta::Meta;
use crate::record::Inode;
use crate::types::Ino;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Keys and bytes of one piece, at most.
pub const PIECE_KEYS: usize = 2048;
pub const PIECE_BYTES: usize = 128 << 10;
/// Blocks in one answer, at most.
pub const BLOCKS_MAX: u64 = 256;

/// What one side has in a piece of the key space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First key that may be in it.
    pub from: Bytes,
    /// First key behind it; empty: it reaches to the end.
    pub to: Bytes,
    pub keys: u64,
    pub hash: [u8; 32],
}

/// When the file system was made, in nanoseconds since 1970: the same in all replicas that hold the same one, however much of
/// its log they have. Since a forced recovery another number, which the stores from before don't have. 0: nothing was ever
/// applied here.
pub fn history(meta: &impl Meta) -> Result<u64, StoreError> {
    let Some(root) = meta.get(&key::inode(Ino::ROOT))? else {
        return Ok(0);
    };
    let born = Inode::decode(&root)?.btime;
    let nanos = (born.secs as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(born.nanos.into());
    let epoch = meta.get(&key::own(key::EPOCH))?.unwrap_or_default();
    let epoch = epoch.as_ref().try_into().map_or(0, u64::from_le_bytes);
    Ok((nanos ^ epoch).max(1))
}

pub(crate) fn hash_pair(hash: &mut blake3::Hasher, key: &[u8], value: &[u8]) {
    for bytes in [key, value] {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
}

/// Whether a key is part of what replicas have in common, or follows from it.
pub fn is_copied(key: &[u8]) -> bool {
    key.first() != Some(&b'z')
}

/// Each copied key from `from` on and before `to` (empty: to the end), until `each` breaks off; where it did.
fn walk(
    meta: &impl Meta,
    from: &[u8],
    to: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<Option<Bytes>, StoreError> {
    let mut stopped = None;
    meta.scan(b"", from, &mut |key, value| {
        if !is_copied(key) || (!to.is_empty() && key >= to) {
            return false;
        }
        if each(key, value).is_break() {
            stopped = Some(Bytes::copy_from_slice(key));
        }
        stopped.is_none()
    })?;
    Ok(stopped)
}
