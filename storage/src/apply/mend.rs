//! Puts what a peer has in the place of what is damaged here. Between two batches of entries nothing is under way, so what
//! stands on the disk, what is stored of it and what was applied are of one moment.

use super::Applier;
use crate::apply::is_own;
use crate::data::sums;
use crate::digest::Mismatch;
use crate::disk::Disk;
use crate::disk::aligned::AlignedBuf;
use crate::error::{StoreError, chain};
use crate::key;
use crate::mend::{Block, Key, Mended, Since, State};
use crate::meta::{Change, Meta};
use crate::overlay::Settled;
use crate::record::Inode;
use crate::types::{BLOCK, Ino};
use bytes::Bytes;
use std::collections::BTreeSet;

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

    /// What became of each. The bytes are on the disk before their checksum says so: after a crash between the two the block is
    /// what it was, damaged. An error is the metadata store's; what the data's disk refuses doesn't hold.
    pub fn mend_blocks(&mut self, blocks: &[Block], since: &Since) -> Result<Vec<Mended>, StoreError> {
        let mut outcomes = Vec::with_capacity(blocks.len());
        let mut files = BTreeSet::new();
        for block in blocks {
            let outcome = self.put(block, since)?;
            if outcome == Mended::Done {
                files.insert(block.ino);
            }
            outcomes.push(outcome);
        }
        // Left are those that couldn't be synced.
        files.retain(|ino| !said(&self.store.data.sync_through(*ino)));
        for (block, outcome) in blocks.iter().zip(&mut outcomes) {
            let (ino, number) = (block.ino, block.number);
            if *outcome != Mended::Done {
                continue;
            }
            if files.contains(&ino) || !(block.is == sums::HOLE || self.has_on_disk(ino, number, block.is)) {
                *outcome = Mended::DoesNotHold;
                continue;
            }
            self.sums.set(&self.store.meta, ino, number, block.is)?;
        }
        if outcomes.contains(&Mended::Done) {
            let mut changes = Vec::new();
            self.sums.flush(&mut changes, &mut self.digest);
            self.write_mended(changes)?;
            self.store.meta.flush()?;
        }
        Ok(outcomes)
    }

    /// Writes the bytes where they surely belong.
    fn put(&mut self, block: &Block, since: &Since) -> Result<Mended, StoreError> {
        let (ino, number) = (block.ino, block.number);
        if self.is_redoing() {
            return Ok(Mended::Changed);
        }
        let stored = self.sums.get(&self.store.meta, ino, number)?;
        if stored == block.is {
            // Whatever was changed since: these bytes are what belongs here.
            if stored == sums::HOLE || self.has_on_disk(ino, number, stored) {
                return Ok(Mended::Sound);
            }
        } else if since.has_block(ino, number) || (block.by_one && stored != sums::DAMAGED) {
            return Ok(Mended::Changed);
        }
        let inode = self.store.meta.get(&key::inode(ino))?;
        // One that can't be read is for those who mend keys.
        let Some(Ok(inode)) = inode.as_ref().map(Inode::decode) else {
            return Ok(Mended::Changed);
        };
        if number * BLOCK >= inode.size && block.is != sums::HOLE {
            return Ok(Mended::Changed);
        }
        let data = &self.store.data;
        let put = if block.is == sums::HOLE {
            data.punch(ino, number * BLOCK, BLOCK)
        } else {
            let mut whole = AlignedBuf::zeroed(BLOCK as usize);
            whole[..block.data.len().min(BLOCK as usize)].copy_from_slice(&block.data);
            data.write_through(ino, &whole, number * BLOCK)
        };
        // The last block of a file is stored only up to the file's end.
        let put = put.and_then(|()| {
            if inode.size / BLOCK == number {
                data.truncate(ino, inode.size)
            } else {
                Ok(())
            }
        });
        Ok(if said(&put) { Mended::Done } else { Mended::DoesNotHold })
    }

    /// Stable when it returns: no entry of the log would do it again.
    pub fn mend_keys(&mut self, keys: &[Key], since: &Since) -> Result<Vec<Mended>, StoreError> {
        let mended = keys.iter().map(|mend| self.mend_key(mend, since));
        let mended: Vec<Mended> = mended.collect::<Result<_, _>>()?;
        if mended.contains(&Mended::Done) {
            self.store.meta.flush()?;
        }
        Ok(mended)
    }

    pub(crate) fn mend_key(&mut self, mend: &Key, since: &Since) -> Result<Mended, StoreError> {
        if self.is_redoing() || is_own(&mend.key) || since.has_key(&mend.key) {
            return Ok(Mended::Changed);
        }
        if self.store.meta.get(&mend.key)? == mend.value {
            return Ok(Mended::Sound);
        }
        let mut changes = Vec::new();
        let ino = key::owner(&mend.key).filter(|_| mend.key.first() == Some(&b'i'));
        // The data first: if their disk refuses, nothing is changed.
        match (&mend.value, ino) {
            (Some(value), ino) => {
                changes.push(Change::Put(mend.key.clone(), value.clone()));
                if let Some(ino) = ino
                    && !self.cut(ino, value, &mut changes)?
                {
                    return Ok(Mended::DoesNotHold);
                }
            }
            (None, ino) => {
                changes.push(Change::Delete(mend.key.clone()));
                if let Some(ino) = ino {
                    // Nothing else would ever remove its data.
                    if !said(&self.store.data.remove(ino)) {
                        return Ok(Mended::DoesNotHold);
                    }
                    self.sums.purge(&self.store.meta, ino, &mut changes, &mut self.digest)?;
                }
            }
        }
        self.digest
            .replace(&self.store.meta, &mend.key, mend.value.as_deref())?;
        self.sums.flush(&mut changes, &mut self.digest);
        self.write_mended(changes)?;
        let mut settled = Settled::default();
        settled.keys.insert(mend.key.clone(), mend.value.clone());
        self.store.overlay.applied(self.store.applied(), &settled);
        Ok(Mended::Done)
    }

    /// Nothing looks at what lies behind a file's end, until it grows. Whether the disk has done it.
    fn cut(&mut self, ino: Ino, inode: &Bytes, changes: &mut Vec<Change>) -> Result<bool, StoreError> {
        // A fault of the other two is theirs: it is stored as they have it.
        let Some(inode) = Inode::decode(inode).ok().filter(Inode::is_file) else {
            return Ok(true);
        };
        let data = &self.store.data;
        let done = data.truncate(ino, inode.size).and_then(|()| data.sync_through(ino));
        if said(&done) {
            let behind = inode.size.div_ceil(BLOCK);
            self.sums
                .cut(&self.store.meta, ino, behind, changes, &mut self.digest)?;
        }
        Ok(done.is_ok())
    }

    /// The digest says what the store holds from now on: a comparison with the others shows that it isn't what was applied.
    pub fn correct_digest(&mut self, mismatch: Mismatch) -> Result<(), StoreError> {
        self.digest.correct(mismatch.kept, mismatch.holds);
        self.write_mended(Vec::new())?;
        self.store.meta.flush()
    }

    fn write_mended(&self, mut changes: Vec<Change>) -> Result<(), StoreError> {
        changes.push(self.digest.change(self.store.applied()));
        self.store.meta.write(changes)?;
        // Readers that wait for the next batch look at once.
        self.store.set_applied(self.store.applied());
        Ok(())
    }
}

/// Whether it was done; if not, why is said.
fn said(done: &Result<(), StoreError>) -> bool {
    if let Err(error) = done {
        tracing::error!(error = chain(error), "what is damaged can't be mended on this disk");
    }
    done.is_ok()
}
