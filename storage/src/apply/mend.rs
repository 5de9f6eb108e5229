//! Puts what a peer has in the place of what is damaged here. Between two batches of entries nothing is under way, so what
//! stands on the disk, what is stored of it and what was applied are of one moment.

use super::Applier;
use crate::apply::is_own;
use crate::data::sums;
use crate::digest::Mismatch;
use crate::disk::Disk;
use crate::disk::aligned::AlignedBuf;
use crate::error::StoreError;
use crate::key;
use crate::mend::{Block, Key, Mended, State, hash_of};
use crate::meta::{Change, Meta};
use crate::overlay::Settled;
use crate::record::Inode;
use crate::types::{BLOCK, Ino, LogIndex};
use std::collections::BTreeMap;

/// Damaged blocks of which it is known when they were last written in part.
const KNOWN: usize = 1 << 16;

/// When damaged blocks were last written in part: what they should be changed then. Not kept over a start.
#[derive(Default)]
pub(super) struct Touched {
    /// Nothing is known of what came up to here.
    since: LogIndex,
    at: BTreeMap<(Ino, u64), LogIndex>,
}

impl Touched {
    pub(super) fn from(since: LogIndex) -> Self {
        Self {
            since,
            at: BTreeMap::new(),
        }
    }

    pub(super) fn note(&mut self, ino: Ino, block: u64, index: LogIndex) {
        if self.at.len() == KNOWN {
            let newest = self.at.values().max().copied();
            *self = Self::from(newest.unwrap_or(index));
        }
        self.at.insert((ino, block), index);
    }

    fn not_after(&self, ino: Ino, block: u64, index: LogIndex) -> bool {
        self.since <= index && self.at.get(&(ino, block)).is_none_or(|at| *at <= index)
    }
}

impl<D: Disk, M: Meta> Applier<D, M> {
    fn is_redoing(&self) -> bool {
        self.store.applied() < self.redo_until
    }

    pub fn look(&mut self, ino: Ino, number: u64) -> Result<State, StoreError> {
        if self.is_redoing() {
            return Ok(State::Redoing);
        }
        let stored = self.sums.get(&self.store.meta, ino, number)?;
        Ok(match stored {
            sums::HOLE => State::Sound,
            sums::DAMAGED => State::Damaged,
            sum if self.has_on_disk(ino, number, sum) => State::Sound,
            sum => State::Rotten(sum),
        })
    }

    fn has_on_disk(&self, ino: Ino, number: u64, sum: sums::Sum) -> bool {
        let mut block = AlignedBuf::zeroed(BLOCK as usize);
        let read = self.store.data.read_from_disk(ino, &mut block, number * BLOCK);
        read.is_ok() && sums::of(&block) == sum
    }

    /// The bytes are on the disk before the checksum says so: after a crash between the two the block is what it was, damaged.
    pub fn mend_block(&mut self, mend: &Block) -> Result<Mended, StoreError> {
        if self.is_redoing() {
            return Ok(Mended::Changed);
        }
        let (ino, number) = (mend.ino, mend.number);
        let stored = self.sums.get(&self.store.meta, ino, number)?;
        let is_zeros = mend.data.is_empty();
        let same = |sum| sum == mend.is || (is_zeros && sum == sums::HOLE);
        let stands = |sum| sum == mend.was || (mend.was == sums::of_zeros() && sum == sums::HOLE);
        let belongs = if same(stored) {
            if stored == sums::HOLE || self.has_on_disk(ino, number, stored) {
                return Ok(Mended::Sound);
            }
            true
        } else if stored == sums::DAMAGED {
            self.touched.not_after(ino, number, mend.as_of)
        } else {
            mend.was != sums::DAMAGED && stands(stored)
        };
        if !belongs {
            return Ok(Mended::Changed);
        }
        if is_zeros {
            self.store.data.punch(ino, number * BLOCK, BLOCK)?;
        } else {
            self.store
                .data
                .write(ino, &mend.data, number * BLOCK, &mut self.large)?;
            self.cut_at_end(ino, number)?;
        }
        self.store.data.sync_one(ino)?;
        if !is_zeros && !self.has_on_disk(ino, number, mend.is) {
            return Ok(Mended::DoesNotHold);
        }
        let sum = if is_zeros { sums::HOLE } else { mend.is };
        self.sums.set(&self.store.meta, ino, number, sum)?;
        let mut changes = Vec::new();
        self.sums.flush(&mut changes, &mut self.digest);
        self.write_mended(changes)?;
        Ok(Mended::Done)
    }

    /// The last block of a file was written as a whole; it is stored only up to the file's end.
    fn cut_at_end(&self, ino: Ino, number: u64) -> Result<(), StoreError> {
        let Some(value) = self.store.meta.get(&key::inode(ino))? else {
            return Ok(());
        };
        let size = Inode::decode(&value)?.size;
        if size / BLOCK == number {
            self.store.data.truncate(ino, size)?;
        }
        Ok(())
    }

    pub fn mend_key(&mut self, mend: &Key) -> Result<Mended, StoreError> {
        if self.is_redoing() || is_own(&mend.key) {
            return Ok(Mended::Changed);
        }
        let value = self.store.meta.get(&mend.key)?;
        if value == mend.value {
            return Ok(Mended::Sound);
        }
        if value.as_deref().map(hash_of) != mend.was {
            return Ok(Mended::Changed);
        }
        let change = match &mend.value {
            Some(value) => Change::Put(mend.key.clone(), value.clone()),
            None => Change::Delete(mend.key.clone()),
        };
        self.digest
            .replace(&self.store.meta, &mend.key, mend.value.as_deref())?;
        self.write_mended(vec![change])?;
        let mut settled = Settled::default();
        settled.keys.insert(mend.key.clone(), mend.value.clone());
        self.store.overlay.applied(self.store.applied(), &settled);
        Ok(Mended::Done)
    }

    /// The digest says what the store holds from now on: a comparison with the others shows that it isn't what was applied.
    pub fn correct_digest(&mut self, mismatch: Mismatch) -> Result<(), StoreError> {
        self.digest.correct(mismatch.kept, mismatch.holds);
        self.write_mended(Vec::new())
    }

    fn write_mended(&self, mut changes: Vec<Change>) -> Result<(), StoreError> {
        changes.push(self.digest.change());
        self.store.meta.write(changes)?;
        // Readers that wait for the next batch look at once.
        self.store.set_applied(self.store.applied());
        Ok(())
    }
}
