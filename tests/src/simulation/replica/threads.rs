//! The log thread, the apply thread and the checkpoint thread, as `replicator::threads` has them: each does one piece of work
//! at a time, which takes a while and ends in an event.

use super::{Event, Replica, Turn};
use crate::simulation::Store;
use crate::simulation::disk::FaultyDisk;
use crate::simulation::random::Random;
use holdfast_replicator::core::Persist;
use holdfast_storage::apply::{Applier, Committed};
use holdfast_storage::check::Part;
use holdfast_storage::checkpoint;
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::log::{HardState, Log, LogEntry, LogError};
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::types::LogIndex;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Looks between two checkpoints of a node that isn't busy.
const QUIET_LOOKS: u32 = 20;
const LOOK_EVERY_US: u64 = 500_000;

#[derive(Default)]
struct Batch {
    number: u64,
    hard_state: Option<HardState>,
    entries: Vec<LogEntry>,
    bytes: usize,
}

impl Batch {
    /// Joins what follows on without a conflict; otherwise gives it back.
    fn join(&mut self, next: Persist, most: usize) -> Result<(), Persist> {
        let follows = match (self.entries.last(), next.entries.first()) {
            (Some(last), Some(first)) => first.index == last.index.next(),
            _ => true,
        };
        let bytes: usize = next.entries.iter().map(|entry| entry.data.len()).sum();
        if !follows || (self.bytes > 0 && self.bytes + bytes > most) {
            return Err(next);
        }
        self.bytes += bytes;
        self.number = next.number;
        self.hard_state = next.hard_state.or(self.hard_state);
        self.entries.extend(next.entries);
        Ok(())
    }
}

pub struct Threads {
    store: Arc<Store>,
    pub log: Log<FaultyDisk>,
    waiting: VecDeque<Persist>,
    batch: Option<Batch>,
    /// The log is full: the batch waits for a checkpoint.
    log_full: bool,
    pub applier: Option<Applier<FaultyDisk, SimMeta>>,
    to_apply: VecDeque<Committed>,
    applying: Option<Vec<Committed>>,
    pub apply_awaited: bool,
    pub full_since_ms: Option<u64>,
    looks: u32,
    used_then: u64,
    /// The checkpoint under way was asked for: something waits for room.
    starved: bool,
    pub(super) asked: bool,
    checkpointing: bool,
    /// Why the batch that was applied beside a checkpoint wasn't.
    failed_beside: Option<String>,
}

impl Threads {
    pub fn new(log: Log<FaultyDisk>, store: Arc<Store>, redo_until: LogIndex) -> Result<Self, StoreError> {
        Ok(Self {
            applier: Some(Applier::new(store.clone(), redo_until)?),
            store,
            used_then: 0,
            starved: false,
            log,
            waiting: VecDeque::new(),
            batch: None,
            log_full: false,
            to_apply: VecDeque::new(),
            applying: None,
            apply_awaited: false,
            full_since_ms: None,
            looks: 0,
            asked: false,
            checkpointing: false,
            failed_beside: None,
        })
    }

    pub fn log_total(&self) -> u64 {
        self.log.geometry().total_bytes()
    }

    pub(super) fn write(&mut self, persists: Vec<Persist>) {
        self.waiting.extend(persists);
    }

    pub(super) fn carry_out(&mut self, committed: Vec<Committed>) {
        self.to_apply.extend(committed);
    }

    fn next_batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        // Of a log of the product's size it is about as much.
        let most = self.log_total() as usize / 8;
        while let Some(persist) = self.waiting.pop_front() {
            if let Err(persist) = batch.join(persist, most) {
                self.waiting.push_front(persist);
                break;
            }
        }
        (batch.number > 0).then_some(batch)
    }

    /// Some of it as it was handed over, some read back from the log, as a thread that fell behind does.
    fn next_to_apply(&mut self, from_log: bool) -> Vec<Committed> {
        let handed: Vec<Committed> = self.to_apply.drain(..).collect();
        let Some(last) = handed.last().map(|entry| entry.index) else {
            return handed;
        };
        let read = if from_log {
            let from = self.store.applied().next();
            self.log.reader().read(from, last.next(), usize::MAX).ok()
        } else {
            None
        };
        match read {
            Some(read) if read.last().is_some_and(|entry| entry.index == last) => {
                read.into_iter().map(committed).collect()
            }
            _ => handed,
        }
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<Vec<Part>, StoreError> {
        let applied = self.store.applied();
        let new: Vec<Committed> = entries.into_iter().filter(|entry| entry.index > applied).collect();
        self.applier.as_mut().expect("not away").apply(&new)
    }

    /// With the apply thread's next batch in the middle of it.
    fn checkpoint(&mut self, beside_at: Option<u64>) -> Result<LogIndex, StoreError> {
        let Some((at, entries)) = beside_at.zip(self.applying.clone()) else {
            return checkpoint::run(&self.store);
        };
        let applied = self.store.applied();
        let entries: Vec<Committed> = entries.into_iter().filter(|entry| entry.index > applied).collect();
        let away = Arc::new(Mutex::new((self.applier.take(), None)));
        let beside = away.clone();
        let disk = self.store.data.disk().clone();
        let work = move || {
            let mut away = beside.lock().expect("one thread");
            let failed = away.0.as_mut().and_then(|applier| applier.apply(&entries).err());
            away.1 = failed.map(|error| chain(&error));
        };
        disk.beside(at, Box::new(work));
        let done = checkpoint::run(&self.store);
        disk.nothing_beside();
        let mut back = away.lock().expect("one thread");
        self.applier = back.0.take();
        self.failed_beside = back.1.take();
        done
    }

    /// The process dies in the midst of its threads' work: after a few calls to the disk.
    pub fn die(&mut self, disk: &FaultyDisk, random: &mut Random) {
        let calls = random.one_of(&[3, 12, 40]);
        disk.dies_after(random.between(0, calls));
        let first = random.between(0, 3);
        for thread in 0..3 {
            match (first + thread) % 3 {
                0 => {
                    if let Some(batch) = self.batch.take().or_else(|| self.next_batch()) {
                        let _ = self.log.append(batch.hard_state, &batch.entries);
                    }
                }
                1 => {
                    if let Some(entries) = self.applying.take() {
                        let _ = self.apply(entries);
                    }
                }
                _ => {
                    if self.checkpointing || random.chance(300) {
                        let _ = checkpoint::run(&self.store);
                    }
                }
            }
        }
    }

    /// An orderly end: the log is written to its end, what is committed applied, all of it checkpointed.
    pub fn end(&mut self) -> Result<(), String> {
        while let Some(batch) = self.batch.take().or_else(|| self.next_batch()) {
            for attempt in 0.. {
                match self.log.append(batch.hard_state, &batch.entries) {
                    Ok(_) => break,
                    Err(LogError::Full) if attempt < 2 => {
                        let index = checkpoint::run(&self.store).map_err(|error| chain(&error))?;
                        self.log.trim(index);
                    }
                    Err(error) => return Err(chain(&error)),
                }
            }
        }
        let rest = self
            .applying
            .take()
            .into_iter()
            .flatten()
            .chain(self.to_apply.drain(..));
        let rest: Vec<Committed> = rest.collect();
        self.apply(rest).map_err(|error| chain(&error))?;
        checkpoint::run(&self.store).map_err(|error| chain(&error))?;
        Ok(())
    }
}

fn committed(entry: LogEntry) -> Committed {
    Committed {
        index: entry.index,
        term: entry.term,
        data: entry.data,
    }
}

impl Replica {
    /// Whoever has work and isn't at it begins.
    pub(super) fn begin_work(&mut self, turn: &mut Turn<'_>) {
        let threads = &mut self.threads;
        if threads.batch.is_none() && !self.out {
            threads.batch = threads.next_batch();
            if threads.batch.is_some() {
                let most = turn.random.one_of(&[500, 2000, 10_000]);
                turn.later.push((turn.random.between(100, most), Event::LogDone));
            }
        }
        if threads.applying.is_none() && !threads.to_apply.is_empty() && self.halted.is_none() {
            let from_log = turn.random.chance(150);
            threads.applying = Some(threads.next_to_apply(from_log));
            let most = turn.random.one_of(&[300, 3000, 30_000]);
            turn.later.push((turn.random.between(50, most), Event::ApplyDone));
        }
    }

    pub(super) fn log_done(&mut self, turn: &mut Turn<'_>) {
        let threads = &mut self.threads;
        let Some(batch) = threads.batch.take().filter(|_| !self.out) else {
            return;
        };
        match threads.log.append(batch.hard_state, &batch.entries) {
            Ok(_synced) => {
                threads.log_full = false;
                let free = self.core.persisted(batch.number);
                self.send_all(free, turn);
            }
            Err(LogError::Full) => {
                (threads.log_full, threads.asked) = (true, true);
                threads.batch = Some(batch);
            }
            Err(error) => self.fail(format!("writing the log failed: {}", chain(&error)), turn),
        }
    }

    pub(super) fn apply_done(&mut self, turn: &mut Turn<'_>) {
        let threads = &mut self.threads;
        let floor = threads.log_total() / 4;
        if self.store.space().is_ok_and(|space| !space.can_apply(floor)) {
            threads.full_since_ms.get_or_insert(turn.now_ms);
            turn.later.push((LOOK_EVERY_US, Event::ApplyDone));
            return;
        }
        threads.full_since_ms = None;
        let Some(entries) = threads.applying.take() else { return };
        match threads.apply(entries) {
            Ok(parts) => turn.parts.extend(parts),
            Err(error) => {
                let why = format!("an entry of the log can't be carried out: {}", chain(&error));
                self.halted.get_or_insert(why);
            }
        }
    }

    pub(super) fn look_for_checkpoint(&mut self, turn: &mut Turn<'_>) {
        turn.later.push((LOOK_EVERY_US, Event::LookForCheckpoint));
        let threads = &mut self.threads;
        threads.looks += 1;
        let (used, total) = (threads.log.used(), threads.log_total());
        // The product's checkpoint thread reads it before the log's thread has made room.
        threads.used_then = threads.used_then.min(used);
        let busy = used.saturating_sub(threads.used_then) > total / 4 || used > total / 10 * 9;
        if self.out || threads.checkpointing || !(threads.asked || busy || threads.looks >= QUIET_LOOKS) {
            return;
        }
        threads.starved = std::mem::take(&mut threads.asked);
        (threads.looks, threads.checkpointing) = (0, true);
        let most = turn.random.one_of(&[2000, 50_000, 400_000]);
        turn.later.push((turn.random.between(500, most), Event::CheckpointDone));
    }

    pub(super) fn checkpoint_done(&mut self, turn: &mut Turn<'_>) {
        let beside = turn.random.chance(500).then(|| turn.random.between(0, 8));
        let threads = &mut self.threads;
        threads.checkpointing = false;
        if self.out {
            return;
        }
        let done = threads.checkpoint(beside);
        if let Some(why) = threads.failed_beside.take() {
            self.halted.get_or_insert(why);
        }
        match done {
            Ok(index) => {
                let threads = &mut self.threads;
                let (used, total) = (threads.log.used(), threads.log_total());
                if threads.starved || used > total / 4 * 3 {
                    self.kept.give_up();
                }
                threads.used_then = threads.log.used();
                threads.log.trim(self.kept.trim_to(index, turn.now_ms));
                if threads.log_full {
                    turn.later.push((turn.random.between(100, 2000), Event::LogDone));
                }
            }
            Err(error) => self.fail(format!("a checkpoint failed: {}", chain(&error)), turn),
        }
    }
}
