//! A rotten block is never served and never spread. What is served is compared with the model everywhere (`look`): where a
//! block is known to be rotten a read may fail, but not give other bytes. Here is which inodes that may be so for: those
//! that rotted on this machine, and on a copy those that the source couldn't read.
//!
//! One case is left out: redo can't tell rot from what a crash has torn, so a rotten block of which a part was written between
//! the last checkpoint and a crash gets a checksum that fits. Inodes that were rotten when their process ended are doubtful.

use holdfast_storage::types::Ino;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Default)]
pub struct Rot {
    /// How often.
    rotten: BTreeMap<Ino, u64>,
    doubtful: BTreeSet<Ino>,
}

impl Rot {
    pub fn insert(&mut self, ino: Ino) {
        *self.rotten.entry(ino).or_default() += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.rotten.is_empty()
    }

    /// Reads may fail.
    pub fn contains(&self, ino: Ino) -> bool {
        self.rotten.contains_key(&ino)
    }

    /// Reads may give anything.
    pub fn is_doubtful(&self, ino: Ino) -> bool {
        self.doubtful.contains(&ino)
    }

    /// Redo may have given something rotten a checksum that fits.
    pub fn is_in_doubt(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// The process has ended: what redo makes of it isn't known.
    pub fn process_ended(&mut self) {
        self.doubtful.extend(self.rotten.keys().copied());
    }

    /// One block of it got its bytes back.
    pub fn mended_one(&mut self, ino: Ino) {
        let left = self.rotten.get_mut(&ino).map_or(0, |times| {
            *times = times.saturating_sub(1);
            *times
        });
        if left == 0 && !self.is_doubtful(ino) {
            self.rotten.remove(&ino);
        }
    }

    /// All that was damaged has its bytes again; what redo made of some of it isn't known.
    pub fn mended(&mut self) {
        self.rotten = self.doubtful.iter().map(|ino| (*ino, 1)).collect();
    }

    /// The store was copied from one where these are rotten.
    pub fn spreads_from(&mut self, source: &Self) {
        for (ino, times) in &source.rotten {
            *self.rotten.entry(*ino).or_default() += times;
        }
        self.doubtful.extend(source.doubtful.iter().copied());
    }
}
