//! How often files were cut shorter. A reader learns a file's size first and then its bytes: if the file is cut between the
//! two, it would see bytes of a size that are gone.

use super::{SHARDS, shard};
use crate::types::Ino;
use std::sync::atomic::{AtomicU64, Ordering};

/// For each shard, how often one of its files was cut.
///
/// A cut is counted between showing its size and taking the bytes away. Who saw the old size began before it was counted,
/// and who misses the bytes ends after it: both sizes and bytes are read under locks, which order them with the count.
pub(super) struct Cuts {
    numbers: Vec<AtomicU64>,
}

impl Default for Cuts {
    fn default() -> Self {
        Self {
            numbers: (0..SHARDS).map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl Cuts {
    pub(super) fn count(&self, ino: Ino) {
        self.numbers[shard(ino)].fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn so_far(&self, ino: Ino) -> u64 {
        self.numbers[shard(ino)].load(Ordering::Acquire)
    }

    /// Whether what was read since `then` is of one state.
    pub(super) fn none_since(&self, ino: Ino, then: u64) -> bool {
        self.so_far(ino) == then
    }
}
