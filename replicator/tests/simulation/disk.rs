//! A node's log on a disk that forgets: what is written and not yet synced may survive a crash, from the front.

use crate::random::Random;
use holdfast_replicator::core::Persist;
use holdfast_replicator::memory_log::{OldEntries, Unread};
use holdfast_storage::log::{HardState, LogEntry};
use holdfast_storage::types::{LogIndex, Term};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Default)]
pub(crate) struct Stable {
    pub(crate) hard_state: HardState,
    /// The first has index 1.
    pub(crate) entries: Vec<LogEntry>,
}

impl Stable {
    fn write(&mut self, hard_state: Option<HardState>, entries: &[LogEntry]) {
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state;
        }
        append(&mut self.entries, entries);
        assert!(
            self.hard_state.commit.0 <= self.entries.len() as u64,
            "a hard state that commits what isn't stored"
        );
    }
}

/// As the log does it: a first index at or below the last one replaces everything from it on.
pub(crate) fn append(log: &mut Vec<LogEntry>, entries: &[LogEntry]) {
    if let Some(first) = entries.first() {
        assert!(first.index.0 <= log.len() as u64 + 1, "a gap before {}", first.index);
        log.truncate(first.index.0 as usize - 1);
        log.extend_from_slice(entries);
    }
}

#[derive(Default)]
pub(crate) struct SimDisk {
    stable: Rc<RefCell<Stable>>,
    unsynced: VecDeque<Persist>,
}

impl SimDisk {
    pub(crate) fn reader(&self) -> Reader {
        Reader(self.stable.clone())
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.stable.borrow().hard_state
    }

    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        self.stable.borrow().entries.clone()
    }

    pub(crate) fn last(&self) -> u64 {
        self.stable.borrow().entries.len() as u64
    }

    pub(crate) fn write(&mut self, persist: Persist) {
        self.unsynced.push_back(persist);
    }

    /// Number of the newest write.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.unsynced.back().map(|persist| persist.number)
    }

    pub(crate) fn sync(&mut self, number: u64) {
        while self.unsynced.front().is_some_and(|persist| persist.number <= number) {
            let Some(persist) = self.unsynced.pop_front() else {
                break;
            };
            self.stable.borrow_mut().write(persist.hard_state, &persist.entries);
        }
    }

    /// Power is gone: of what wasn't synced any number of writes survives, the last of them perhaps in part.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let survive = random.between(0, self.unsynced.len() as u64 + 1);
        for _ in 0..survive {
            let Some(persist) = self.unsynced.pop_front() else {
                break;
            };
            self.stable.borrow_mut().write(persist.hard_state, &persist.entries);
        }
        if let Some(torn) = self.unsynced.pop_front()
            && torn.entries.len() > 1
        {
            let kept = random.between(1, torn.entries.len() as u64) as usize;
            let mut stable = self.stable.borrow_mut();
            // The log writes term and vote with the first part, the commit not before the last.
            let old = stable.hard_state.commit.0.min(torn.entries[0].index.0 - 1);
            let partly = torn.hard_state.map(|target| HardState {
                commit: LogIndex(old),
                ..target
            });
            stable.write(partly, &torn.entries[..kept]);
        }
        self.unsynced.clear();
    }
}

impl SimDisk {
    /// The disk is damaged: synced entries behind this one are gone.
    pub(crate) fn lose_behind(&mut self, last: u64) {
        let mut stable = self.stable.borrow_mut();
        stable.entries.truncate(last as usize);
        stable.hard_state.commit.0 = stable.hard_state.commit.0.min(last);
    }
}

impl SimDisk {
    /// A store that was copied: its log begins with what the source's had.
    pub(crate) fn copied(hard_state: HardState, entries: &[LogEntry]) -> Self {
        let disk = Self::default();
        disk.stable.borrow_mut().write(None, entries);
        disk.stable.borrow_mut().write(Some(hard_state), &[]);
        disk
    }
}

pub(crate) struct Reader(Rc<RefCell<Stable>>);

impl OldEntries for Reader {
    fn first_index(&self) -> LogIndex {
        LogIndex(1)
    }

    fn term(&self, index: LogIndex) -> Option<Term> {
        self.0
            .borrow()
            .entries
            .get(index.0 as usize - 1)
            .map(|entry| entry.term)
    }

    fn read(&self, low: LogIndex, high: LogIndex, _max_bytes: usize) -> Result<Vec<LogEntry>, Unread> {
        let stable = self.0.borrow();
        let high = high.0.min(stable.entries.len() as u64 + 1);
        stable
            .entries
            .get(low.0 as usize - 1..high as usize - 1)
            .map(<[_]>::to_vec)
            .ok_or_else(|| Unread::NotNow(format!("{low}..{high} isn't there")))
    }
}
