//! When files were cut shorter. A reader learns a file's size first and then its bytes: if the file is cut between the two,
//! it would see bytes of a size that are gone.

use super::{SHARDS, shard};
use crate::types::Ino;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// For each shard a number that grows when a cut of one of its files begins, and when it has been shown; odd between.
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

/// A cut that is being shown: one thread does that.
pub(super) struct Cut<'a>(&'a AtomicU64);

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Cuts {
    pub(super) fn begin(&self, ino: Ino) -> Cut<'_> {
        let number = &self.numbers[shard(ino)];
        number.fetch_add(1, Ordering::AcqRel);
        Cut(number)
    }

    /// None: a cut is just being shown.
    pub(super) fn so_far(&self, ino: Ino) -> Option<u64> {
        let number = self.numbers[shard(ino)].load(Ordering::Acquire);
        number.is_multiple_of(2).then_some(number)
    }

    /// Whether what was read since `then` is of one state.
    pub(super) fn none_since(&self, ino: Ino, then: Option<u64>) -> bool {
        fence(Ordering::Acquire);
        then.is_some() && self.so_far(ino) == then
    }
}
