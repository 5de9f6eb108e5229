//! Writes and syncs the log. While one sync is in flight what comes next gathers into the next batch.

use super::{ThreadEvent, ToLoop};
use crate::core::Persist;
use crate::disk_health::{DiskHealth, Work};
use crate::dropped::Drops;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::error::chain;
use holdfast_storage::log::{HardState, Log, LogEntry, LogError};
use holdfast_storage::types::LogIndex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

pub(crate) enum LogWork {
    /// In order; synced together as far as that goes.
    Persist(Vec<Persist>),
    /// Everything up to here is checkpointed.
    Trim(LogIndex),
    /// Nothing more will come.
    End,
}

/// Bytes that a merged batch gathers at most.
const BATCH_BYTES: usize = 6 << 20;

pub(crate) struct LogThread {
    pub(crate) log: Log<RealDisk>,
    pub(crate) work: Receiver<LogWork>,
    pub(crate) to_loop: ToLoop,
    /// Asks for a checkpoint, since the log has no room left.
    pub(crate) need_checkpoint: SyncSender<()>,
    /// Bytes of the log in use, for whoever paces checkpoints.
    pub(crate) used: Arc<AtomicU64>,
    pub(crate) health: Arc<DiskHealth>,
    pub(crate) drops: Arc<Drops>,
    pub(crate) ended: bool,
}

#[derive(Default)]
struct Batch {
    number: u64,
    hard_state: Option<HardState>,
    entries: Vec<LogEntry>,
    bytes: usize,
}

impl Batch {
    /// Joins what follows on without a conflict; otherwise gives it back.
    fn join(&mut self, next: Persist) -> Result<(), Persist> {
        let follows = match (self.entries.last(), next.entries.first()) {
            (Some(last), Some(first)) => first.index == last.index.next(),
            _ => true,
        };
        let bytes: usize = next.entries.iter().map(|entry| entry.data.len()).sum();
        if !follows || (self.bytes > 0 && self.bytes + bytes > BATCH_BYTES) {
            return Err(next);
        }
        self.number = next.number;
        self.hard_state = next.hard_state.or(self.hard_state);
        self.entries.extend(next.entries);
        self.bytes += bytes;
        Ok(())
    }
}

impl LogThread {
    /// Until it is told the end; then everything that was handed in is stable. Or until the log can't be written.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.write_all() {
            // Nothing more is written, so nothing more is ever called stable. The peers are the recovery.
            self.health.fail();
            let why = format!("writing the log failed: {}", chain(&error));
            let _ = self.to_loop.send(ThreadEvent::Failed(why));
        }
    }

    fn write_all(&mut self) -> Result<(), LogError> {
        // What arrived and isn't in a batch yet.
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                if self.ended {
                    return Ok(());
                }
                match self.work.recv() {
                    Ok(work) => self.take(work, &mut waiting),
                    Err(_) => return Ok(()),
                }
            }
            while let Ok(work) = self.work.try_recv() {
                self.take(work, &mut waiting);
            }
            let mut batch = Batch::default();
            while let Some(persist) = waiting.pop_front() {
                if let Err(persist) = batch.join(persist) {
                    waiting.push_front(persist);
                    break;
                }
            }
            if batch.number > 0 {
                self.write(&batch, &mut waiting)?;
                // While stopping nobody listens any more; the log is written to its end all the same.
                let _ = self.to_loop.send(ThreadEvent::Persisted(batch.number));
            }
            self.used.store(self.log.used(), Ordering::Relaxed);
        }
    }

    fn take(&mut self, work: LogWork, waiting: &mut VecDeque<Persist>) {
        match work {
            LogWork::Trim(index) => self.log.trim(index),
            LogWork::Persist(persists) => waiting.extend(persists),
            LogWork::End => self.ended = true,
        }
    }

    fn write(&mut self, batch: &Batch, waiting: &mut VecDeque<Persist>) -> Result<(), LogError> {
        if let Some(first) = batch.entries.first() {
            let note = || self.drops.note(&self.log.reader(), first.index);
            self.health.watch(Work::Log, note);
        }
        let mut tries_at_the_end = 0;
        loop {
            let append = || self.log.append(batch.hard_state, &batch.entries);
            match self.health.watch(Work::Log, append) {
                Ok(_synced) => return Ok(()),
                // Nothing was written. Back-pressure: acknowledgements stop until a checkpoint has made room.
                Err(LogError::Full) => {
                    tries_at_the_end += u32::from(self.ended);
                    if tries_at_the_end > 2 {
                        return Err(LogError::Full);
                    }
                    let _ = self.need_checkpoint.try_send(());
                    match self.work.recv() {
                        Ok(work) => self.take(work, waiting),
                        Err(_) => return Err(LogError::Full),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
