//! Committed effects become state: bytes into data files, checksums and metadata into one batch that also
//! holds the applied index. The same code runs on every node; it decides nothing.
//!
//! Nothing is synced here. A crash at any line leaves data files ahead of the metadata; redo from the
//! published checkpoint writes the same bytes again and ends in the same state.

mod mend;
mod runs;

use crate::check::{Part, Parts};
use crate::data::sums::{self, Working};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::disk::aligned::AlignedBuf;
use crate::effects::{self, CheckPart, Effect, Entry};
use crate::error::StoreError;
use crate::key;
use crate::meta::{Change, Meta};
use crate::overlay::Settled;
use crate::store::Store;
use crate::types::{BLOCK, Ino, LogIndex, Term};
use bytes::{BufMut, Bytes, BytesMut};
use runs::{Run, Runs};
use std::sync::Arc;

/// Keys of one replica alone; never planned, never compared.
pub const APPLIED: &[u8] = b"z applied";

/// An entry that is committed and durable in this node's own log.
#[derive(Clone, Debug)]
pub struct Committed {
    pub index: LogIndex,
    pub term: Term,
    pub data: Bytes,
}

/// Checks that one batch carries out; nobody waits for more. The older ones of a node that was away are given up.
const CHECKS_MAX: usize = 128;

/// What a replica says that has come to a question long after it was asked.
pub const BEHIND: &str = "it has fallen behind, and many more were asked since";

/// What a replica says that is asked for a part of its state at an entry at or below which it may have applied more before.
pub const REDOING: &str = "it is still doing again what it had done before it was stopped or copied";

fn sole_check(entry: &Committed) -> Option<CheckPart> {
    if !effects::is_check(&entry.data) {
        return None;
    }
    match Entry::decode(entry.index, &entry.data).ok()?.effects.pop()? {
        Effect::Check { part, .. } => Some(part),
        _ => None,
    }
}

pub struct Applier<D: Disk, M: Meta> {
    store: Arc<Store<D, M>>,
    sums: Working,
    /// Whole ranges of checksums that go with this batch.
    ranges: Vec<Change>,
    /// Writes of this batch that haven't reached their files yet.
    runs: Runs,
    /// What this batch changes, for the metadata store and then for the overlay.
    settled: Settled,
    /// Entries up to here may have been applied before a crash, in part and in any order: their blocks may be
    /// torn until redo has passed them, so an old block that doesn't fit its checksum is no sign of rot.
    redo_until: LogIndex,
    /// Whether somebody still waits for what checks find. Not where much more of the log is still to be applied.
    pub answers: bool,
    digest: Digest,
    block: Vec<u8>,
    large: AlignedBuf,
    checks: Parts,
}

impl<D: Disk, M: Meta> Applier<D, M> {
    pub fn new(store: Arc<Store<D, M>>, redo_until: LogIndex) -> Result<Self, StoreError> {
        let digest = Digest::load(&store.meta)?;
        Ok(Self {
            store,
            sums: Working::default(),
            ranges: Vec::new(),
            runs: Runs::default(),
            settled: Settled::default(),
            redo_until,
            answers: true,
            digest,
            block: vec![0; BLOCK as usize],
            large: AlignedBuf::default(),
            checks: Parts::default(),
        })
    }

    /// Applies entries that follow each other and what is applied already. Returns the answers to check
    /// effects among them. After an error nothing more may be applied: the caller halts with status alive.
    pub fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Part>, StoreError> {
        let mut parts = Vec::new();
        let checks = entries.iter().filter(|entry| effects::is_check(&entry.data)).count();
        let mut too_late = checks.saturating_sub(CHECKS_MAX);
        let mut applied = self.store.applied();
        let mut ahead = None;
        for (at, entry) in entries.iter().enumerate() {
            // What was read ahead is the very next entry's: nothing stands between the two.
            let mut read = ahead.take();
            if entry.index != applied.next() {
                return Err(StoreError::Gap {
                    index: entry.index,
                    applied,
                });
            }
            applied = entry.index;
            // A run counts as its first entry: none may lead from redo to where old blocks are verified.
            if entry.index == self.redo_until.next() {
                self.write_runs()?;
            }
            // Raft's own entry at the start of a term carries nothing.
            if entry.data.is_empty() {
                continue;
            }
            for effect in self.decode(entry)? {
                self.settled.count(entry.index, &effect);
                if let Effect::Check { id, part } = effect {
                    self.commit(entry.index)?;
                    let found = if entry.index <= self.redo_until {
                        Err(REDOING.into())
                    } else if too_late > 0 || !self.answers {
                        Err(BEHIND.into())
                    } else {
                        let next = entries.get(at + 1).and_then(sole_check);
                        let (found, next) = self.checks.part(&self.store, &part, read.take(), next.as_ref());
                        ahead = next;
                        found
                    };
                    too_late = too_late.saturating_sub(1);
                    parts.push(Part {
                        id,
                        index: entry.index,
                        found,
                    });
                } else {
                    self.effect(entry.index, effect)?;
                }
            }
        }
        self.commit(applied)?;
        Ok(parts)
    }

    fn decode(&self, entry: &Committed) -> Result<Vec<Effect>, StoreError> {
        let decoded = Entry::decode(entry.index, &entry.data)?;
        if decoded.term != entry.term {
            return Err(StoreError::WrongTerm {
                index: entry.index,
                planned: decoded.term.0,
                stands: entry.term.0,
            });
        }
        Ok(decoded.effects)
    }

    /// Writes what has gathered in one batch, then lets readers see it there.
    fn commit(&mut self, index: LogIndex) -> Result<(), StoreError> {
        self.write_runs()?;
        let mut changes = std::mem::take(&mut self.ranges);
        self.sums.flush(&mut changes, &mut self.digest);
        for (key, value) in &self.settled.keys {
            self.digest.replace(&self.store.meta, key, value.as_deref())?;
        }
        let keys = self.settled.keys.iter();
        changes.extend(keys.map(|(key, value)| match value {
            Some(value) => Change::Put(key.clone(), value.clone()),
            None => Change::Delete(key.clone()),
        }));
        let mut applied = BytesMut::with_capacity(8);
        applied.put_u64_le(index.0);
        changes.push(Change::Put(Bytes::from_static(APPLIED), applied.freeze()));
        changes.push(self.digest.change(index));
        self.store.meta.write(changes)?;
        self.store.overlay.applied(index, &self.settled);
        self.store.set_applied(index);
        self.settled = Settled::default();
        Ok(())
    }

    fn effect(&mut self, index: LogIndex, effect: Effect) -> Result<(), StoreError> {
        match effect {
            Effect::Put { key, value } => drop(self.settled.keys.insert(key, Some(value))),
            Effect::Delete { key } => drop(self.settled.keys.insert(key, None)),
            Effect::Write { ino, offset, data } => {
                self.settled.files.insert(ino);
                if let Some(run) = self.runs.push(index, ino, offset, &data) {
                    self.write_run(ino, &run)?;
                }
                if self.runs.are_many() {
                    self.write_runs()?;
                }
            }
            Effect::Truncate { ino, size } => {
                self.settled.files.insert(ino);
                self.write_run_of(ino)?;
                self.truncate(index, ino, size)?;
            }
            Effect::Zero { ino, offset, len } => {
                self.settled.files.insert(ino);
                self.write_run_of(ino)?;
                self.zero(index, ino, offset, len)?;
            }
            Effect::Purge { ino } => {
                self.runs.take(ino);
                self.sums
                    .purge(&self.store.meta, ino, &mut self.ranges, &mut self.digest)?;
                self.store.data.remove(ino)?;
            }
            Effect::Check { .. } => {}
        }
        Ok(())
    }

    fn write_runs(&mut self) -> Result<(), StoreError> {
        for (ino, run) in self.runs.take_all() {
            self.write_run(ino, &run)?;
        }
        Ok(())
    }

    fn write_run_of(&mut self, ino: Ino) -> Result<(), StoreError> {
        match self.runs.take(ino) {
            Some(run) => self.write_run(ino, &run),
            None => Ok(()),
        }
    }

    /// A run counts as its first entry: during redo the blocks before it may be torn.
    fn write_run(&mut self, ino: Ino, run: &Run) -> Result<(), StoreError> {
        self.write(run.index, ino, run.offset, run.data())
    }

    fn write(&mut self, index: LogIndex, ino: Ino, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let mut at = 0;
        while at < data.len() {
            let position = offset + at as u64;
            let block = position / BLOCK;
            let inside = (position % BLOCK) as usize;
            let len = (BLOCK as usize - inside).min(data.len() - at);
            let part = &data[at..at + len];
            let sum = if len == BLOCK as usize {
                sums::of(part)
            } else {
                self.sum_with(index, ino, block, inside, part)?
            };
            self.sums.set(&self.store.meta, ino, block, sum)?;
            at += len;
        }
        // After the checks of the old blocks, which read what stands there now.
        self.store.data.write(ino, data, offset, &mut self.large)
    }

    /// Checksum of a block after `part` was laid over it; the old block is verified first, so that rot isn't laundered.
    fn sum_with(
        &mut self,
        index: LogIndex,
        ino: Ino,
        block: u64,
        inside: usize,
        part: &[u8],
    ) -> Result<sums::Sum, StoreError> {
        if !self.load(index, ino, block)? {
            return Ok(sums::DAMAGED);
        }
        self.block[inside..inside + part.len()].copy_from_slice(part);
        Ok(sums::of(&self.block))
    }

    /// Brings a block into `self.block`; false if it is rotten.
    fn load(&mut self, index: LogIndex, ino: Ino, block: u64) -> Result<bool, StoreError> {
        let old = self.sums.get(&self.store.meta, ino, block)?;
        if old == sums::HOLE {
            // During redo the file may hold bytes that a later entry wrote; that entry comes again.
            self.block.fill(0);
            return Ok(true);
        }
        if old == sums::DAMAGED {
            return Ok(false);
        }
        // What can't be read now may be readable again: an error stops this node here, and no mark says that the block is lost.
        self.store.data.read(ino, &mut self.block, block * BLOCK)?;
        if index <= self.redo_until || old == sums::of(&self.block) {
            return Ok(true);
        }
        self.store.met_rotten(ino, block);
        tracing::error!(%ino, offset = block * BLOCK, %index, "a block that is overwritten in part doesn't fit its checksum");
        Ok(false)
    }

    fn truncate(&mut self, index: LogIndex, ino: Ino, size: u64) -> Result<(), StoreError> {
        let (block, inside) = (size / BLOCK, (size % BLOCK) as usize);
        if inside == 0 {
            self.sums
                .cut(&self.store.meta, ino, block, &mut self.ranges, &mut self.digest)?;
        } else {
            let old = self.sums.get(&self.store.meta, ino, block)?;
            let sum = if old == sums::HOLE {
                old
            } else {
                self.sum_with(index, ino, block, inside, &ZEROS[inside..])?
            };
            self.sums
                .cut(&self.store.meta, ino, block + 1, &mut self.ranges, &mut self.digest)?;
            self.sums.set(&self.store.meta, ino, block, sum)?;
        }
        self.store.data.truncate(ino, size)
    }

    fn zero(&mut self, index: LogIndex, ino: Ino, offset: u64, len: u64) -> Result<(), StoreError> {
        let end = offset.saturating_add(len);
        let whole = offset.div_ceil(BLOCK)..end / BLOCK;
        if whole.start >= whole.end {
            // At most two blocks, neither of them whole.
            let middle = (offset / BLOCK + 1) * BLOCK;
            self.zero_inside(index, ino, offset, end.min(middle))?;
            return self.zero_inside(index, ino, middle, end);
        }
        self.zero_inside(index, ino, offset, whole.start * BLOCK)?;
        self.zero_inside(index, ino, whole.end * BLOCK, end)?;
        self.sums
            .clear(&self.store.meta, ino, whole.clone(), &mut self.ranges, &mut self.digest)?;
        self.store
            .data
            .punch(ino, whole.start * BLOCK, (whole.end - whole.start) * BLOCK)
    }

    /// Zeros within one block.
    fn zero_inside(&mut self, index: LogIndex, ino: Ino, from: u64, to: u64) -> Result<(), StoreError> {
        if from >= to || self.sums.get(&self.store.meta, ino, from / BLOCK)? == sums::HOLE {
            return Ok(());
        }
        self.write(index, ino, from, &ZEROS[..(to - from) as usize])
    }
}

static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// The index that the metadata store holds; may be ahead of the checkpoint.
pub(crate) fn stored_index(meta: &impl Meta) -> Result<LogIndex, StoreError> {
    let value = meta.get(APPLIED)?;
    Ok(LogIndex(
        value
            .and_then(|value| value.as_ref().try_into().ok())
            .map_or(0, u64::from_le_bytes),
    ))
}

/// Whether a key belongs to one replica alone.
pub(crate) fn is_own(key: &[u8]) -> bool {
    key.first() == Some(&b'z') || key.first() == Some(&key::sums(Ino(0), 0)[0])
}
