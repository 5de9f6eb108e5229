//! Applies what is committed. When it falls behind, entries are read back from the log instead of being kept in memory.

use super::{ThreadEvent, ToLoop};
use crate::disk_health::{DiskHealth, Work};
use holdfast_storage::RealStore;
use holdfast_storage::apply::{Applier, Committed};
use holdfast_storage::digest::Mismatch;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::log::LogReader;
use holdfast_storage::mend::{self, Mended, Since, State};
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::types::{Ino, LogIndex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::Receiver;
use tokio::sync::oneshot;

pub(crate) enum ApplyWork {
    Entries(Vec<Committed>),
    /// All up to here is committed and in the log; read it from there.
    UpTo(LogIndex),
    Mend(MendWork),
}

/// What is looked at or mended between two batches, for whoever waits for the answer.
pub(crate) enum MendWork {
    Look(Vec<(Ino, u64)>, oneshot::Sender<Vec<State>>),
    /// Of this log index, the newest that is applied if none.
    Blocks(Option<LogIndex>, Vec<mend::Block>, oneshot::Sender<Vec<Mended>>),
    Keys(LogIndex, Vec<mend::Key>, oneshot::Sender<Vec<Mended>>),
    Digest(Mismatch, oneshot::Sender<()>),
}

/// Bytes and entries that one batch applies at most.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_ENTRIES: usize = 4096;

pub(crate) struct ApplyThread {
    pub(crate) store: Arc<RealStore>,
    pub(crate) applier: Applier<RealDisk, Rocks>,
    pub(crate) reader: LogReader<RealDisk>,
    pub(crate) work: Receiver<ApplyWork>,
    pub(crate) to_loop: ToLoop,
    /// Bytes handed in and not applied; the loop stops handing in entries above a bound.
    pub(crate) queued: Arc<AtomicU64>,
    /// The loop wants to be woken; otherwise it looks by itself whenever it turns.
    pub(crate) awaited: Arc<AtomicBool>,
    pub(crate) health: Arc<DiskHealth>,
    /// Below so many free bytes nothing is applied: a metadata store that runs out of room has to be opened anew.
    pub(crate) floor: u64,
}

impl ApplyThread {
    /// Until the loop hangs up; then everything that was handed in is applied.
    pub(crate) fn run(mut self) {
        while let Ok(work) = self.work.recv() {
            if let Err(error) = self.work(work) {
                let why = format!("an entry of the log can't be carried out: {}", chain(&error));
                let _ = self.to_loop.send(ThreadEvent::Halted(why));
                return;
            }
        }
    }

    fn work(&mut self, work: ApplyWork) -> Result<(), StoreError> {
        match work {
            ApplyWork::Entries(entries) => self.entries(entries),
            ApplyWork::UpTo(index) => self.up_to(index),
            ApplyWork::Mend(work) => self.mend(work),
        }
    }

    fn mend(&mut self, work: MendWork) -> Result<(), StoreError> {
        let health = self.health.clone();
        health.watch(Work::Apply, || self.mend_now(work))
    }

    /// None: too much came after it, or it isn't known any more.
    fn since(&self, as_of: LogIndex) -> Option<Since> {
        let read = Since::read(&self.reader, as_of, self.store.applied());
        read.unwrap_or_else(|error| {
            // Nothing was to be applied: that goes on.
            tracing::warn!(%as_of, error = chain(&error), "what has changed since can't be read from the log, so nothing is mended now");
            None
        })
    }

    fn mend_now(&mut self, work: MendWork) -> Result<(), StoreError> {
        // Whoever asked may have given up waiting.
        match work {
            MendWork::Look(blocks, answer) => {
                let applier = &mut self.applier;
                let looked = blocks.iter().map(|(ino, number)| applier.look(*ino, *number));
                let _ = answer.send(looked.collect::<Result<_, _>>()?);
            }
            MendWork::Blocks(as_of, blocks, answer) => {
                let since = as_of.map_or_else(|| Some(Since::anything()), |as_of| self.since(as_of));
                let _ = answer.send(match since {
                    Some(since) => self.applier.mend_blocks(&blocks, &since)?,
                    None => vec![Mended::Changed; blocks.len()],
                });
            }
            MendWork::Keys(as_of, keys, answer) => {
                let _ = answer.send(match self.since(as_of) {
                    Some(since) => self.applier.mend_keys(&keys, &since)?,
                    None => vec![Mended::Changed; keys.len()],
                });
            }
            MendWork::Digest(mismatch, answer) => {
                self.applier.correct_digest(mismatch)?;
                let _ = answer.send(());
            }
        }
        Ok(())
    }

    /// Gathers what else is waiting, so that a batch of the metadata store serves many entries.
    fn entries(&mut self, mut entries: Vec<Committed>) -> Result<(), StoreError> {
        let mut then = None;
        while entries.len() < BATCH_ENTRIES && bytes(&entries) < BATCH_BYTES {
            match self.work.try_recv() {
                Ok(ApplyWork::Entries(more)) => entries.extend(more),
                Ok(other) => {
                    then = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let handed_in = bytes(&entries) as u64;
        // Some may have been read from the log already.
        let applied = self.store.applied();
        entries.retain(|entry| entry.index > applied);
        if let Some(first) = entries.first()
            && first.index > applied.next()
        {
            self.up_to(LogIndex(first.index.0 - 1))?;
        }
        for batch in entries.chunks(BATCH_ENTRIES) {
            self.batch(batch)?;
        }
        self.queued.fetch_sub(handed_in, Ordering::AcqRel);
        then.map_or(Ok(()), |work| self.work(work))
    }

    fn up_to(&mut self, index: LogIndex) -> Result<(), StoreError> {
        while self.store.applied() < index {
            let read = self
                .reader
                .read(self.store.applied().next(), index.next(), BATCH_BYTES)?;
            let committed = |entry: holdfast_storage::log::LogEntry| Committed {
                index: entry.index,
                term: entry.term,
                data: entry.data,
            };
            let entries: Vec<Committed> = read.into_iter().map(committed).collect();
            self.applier.answers = entries.last().is_some_and(|last| last.index == index);
            self.batch(&entries)?;
            self.applier.answers = true;
        }
        Ok(())
    }

    fn batch(&mut self, mut entries: &[Committed]) -> Result<(), StoreError> {
        while !entries.is_empty() {
            let (now, later) = entries.split_at(self.room_for(entries.len())?);
            self.apply(now)?;
            entries = later;
        }
        Ok(())
    }

    /// How many of so many entries; waits until it is one at least.
    fn room_for(&self, count: usize) -> Result<usize, StoreError> {
        let mut takes = count;
        let has_room = || {
            // A disk that doesn't tell its room says what is wrong with the next write.
            let room = self
                .store
                .space()
                .map_or(u64::MAX, |space| space.entries_to_apply(self.floor));
            takes = count.min(usize::try_from(room).unwrap_or(usize::MAX));
            takes > 0
        };
        if self.health.wait_for_room(has_room) {
            Ok(takes)
        } else {
            Err(StoreError::NoRoom)
        }
    }

    fn apply(&mut self, entries: &[Committed]) -> Result<(), StoreError> {
        let parts = self.health.watch(Work::Apply, || self.applier.apply(entries))?;
        // Either this sees that the loop waits, or the loop, which looks after it has said so, sees what is applied.
        fence(Ordering::SeqCst);
        if !parts.is_empty() || self.awaited.load(Ordering::Relaxed) {
            let _ = self.to_loop.send(ThreadEvent::Applied(parts));
        }
        Ok(())
    }
}

pub(crate) fn bytes(entries: &[Committed]) -> usize {
    entries.iter().map(|entry| entry.data.len() + 128).sum()
}
