//! The side that has the data. Everything here only reads, beside all that the replica does.

use super::{PIECE_BYTES, PIECE_KEYS, Piece, hash_pair, history, walk};
use crate::data::sums::{self, Sum};
use crate::disk::Disk;
use crate::disk::aligned::AlignedBuf;
use crate::error::StoreError;
use crate::meta::Meta;
use crate::store::Store;
use crate::types::{BLOCK, Ino};
use bytes::{Bytes, BytesMut};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// From this length on a read goes around the page cache: nobody here reads those bytes again.
const LARGE: u64 = 64 << 10;
/// A block that doesn't fit its checksum may just be on its way to the disk; it is looked at so often.
const LOOKS: u32 = 40;

/// Consecutive blocks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    pub ino: Ino,
    pub first: u64,
    /// One a block: `sums::HOLE` has no bytes, nor has `sums::DAMAGED`, which the source itself can't read.
    pub sums: Vec<Sum>,
    /// Of the others, one behind the other.
    pub data: Bytes,
}

pub struct Source<D: Disk, M: Meta> {
    store: Arc<Store<D, M>>,
    piece_keys: usize,
}

impl<D: Disk, M: Meta> Source<D, M> {
    pub fn new(store: Arc<Store<D, M>>) -> Self {
        Self::with_pieces_of(store, PIECE_KEYS)
    }

    /// `new`, with pieces of at most so many keys.
    pub fn with_pieces_of(store: Arc<Store<D, M>>, piece_keys: usize) -> Self {
        Self { store, piece_keys }
    }

    /// As `copy::history`.
    pub fn history(&self) -> Result<u64, StoreError> {
        history(&self.store.meta)
    }

    /// About how many keys are to be compared.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.store.meta.count()
    }

    /// The next piece of the key space, as it is now.
    pub fn piece(&self, from: &[u8]) -> Result<Piece, StoreError> {
        let mut hash = blake3::Hasher::new();
        let (mut keys, mut bytes) = (0, 0);
        let to = walk(&self.store.meta, from, b"", |key, value| {
            if keys == self.piece_keys || bytes >= PIECE_BYTES {
                return ControlFlow::Break(());
            }
            keys += 1;
            bytes += key.len() + value.len();
            hash_pair(&mut hash, key, value);
            ControlFlow::Continue(())
        })?;
        Ok(Piece {
            from: Bytes::copy_from_slice(from),
            to: to.unwrap_or_default(),
            keys: keys as u64,
            hash: *hash.finalize().as_bytes(),
        })
    }

    /// Keys and values from `from` on and before `to`, as they are now. It may have become too many for one answer: then
    /// also where they go on.
    #[expect(clippy::type_complexity, reason = "pairs, and where they go on")]
    pub fn keys(&self, from: &[u8], to: &[u8]) -> Result<(Vec<(Bytes, Bytes)>, Option<Bytes>), StoreError> {
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        let next = walk(&self.store.meta, from, to, |key, value| {
            if pairs.len() == self.piece_keys || bytes >= PIECE_BYTES {
                return ControlFlow::Break(());
            }
            bytes += key.len() + value.len();
            pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        Ok((pairs, next))
    }

    /// Blocks as they are applied now, each verified: what isn't applied yet comes to the target with the log.
    pub fn blocks(&self, ino: Ino, range: Range<u64>) -> Result<Blocks, StoreError> {
        let len = (range.end - range.start) * BLOCK;
        let mut buffer = AlignedBuf::zeroed(len as usize);
        for look in 1.. {
            let applied = self.store.applied();
            let mut sums = sums::read(&self.store.meta, ino, range.clone())?;
            if sums.iter().all(|sum| *sum == sums::HOLE) {
                return Ok(pack(ino, range.start, sums, &[]));
            }
            if len >= LARGE {
                self.store.data.read_from_disk(ino, &mut buffer, range.start * BLOCK)?;
            } else {
                self.store.data.read(ino, &mut buffer, range.start * BLOCK)?;
            }
            let wrong: Vec<usize> = sums
                .iter()
                .zip(buffer.chunks_exact(BLOCK as usize))
                .enumerate()
                .filter(|(_, (sum, block))| has_bytes(**sum) && sums::of(block) != **sum)
                .map(|(at, _)| at)
                .collect();
            if wrong.is_empty() {
                return Ok(pack(ino, range.start, sums, &buffer));
            }
            // Only what nothing is pending over is what it is to be.
            let pending = !self
                .store
                .overlay
                .pieces(ino, range.start * BLOCK, range.end * BLOCK)
                .is_empty();
            if look < LOOKS {
                self.store.wait_for_batch_after(applied);
                continue;
            }
            if pending {
                return Err(StoreError::InFlux {
                    ino,
                    offset: (range.start + wrong[0] as u64) * BLOCK,
                });
            }
            for at in wrong {
                tracing::error!(%ino, offset = (range.start + at as u64) * BLOCK, "a block on disk doesn't fit its checksum; a copy of this store gets it as damaged");
                self.store.met_rotten(ino, range.start + at as u64);
                sums[at] = sums::DAMAGED;
            }
            return Ok(pack(ino, range.start, sums, &buffer));
        }
        unreachable!("the last look returns")
    }
}

pub(super) fn has_bytes(sum: Sum) -> bool {
    sum != sums::HOLE && sum != sums::DAMAGED
}

fn pack(ino: Ino, first: u64, sums: Vec<Sum>, buffer: &[u8]) -> Blocks {
    let mut data = BytesMut::with_capacity(buffer.len());
    for (sum, block) in sums.iter().zip(buffer.chunks_exact(BLOCK as usize)) {
        if has_bytes(*sum) {
            data.extend_from_slice(block);
        }
    }
    Blocks {
        ino,
        first,
        sums,
        data: data.freeze(),
    }
}
