//! Raft's view of the log: recent entries in memory, older ones read back from disk.

use crate::disk_health::is_the_disks_fault;
use holdfast_storage::log::{HardState, LogEntry, LogError};
use holdfast_storage::types::{LogIndex, Term};
use raft::eraftpb::{self, ConfState, Entry, EntryType, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

/// Entries on disk, for those that are no longer in memory.
pub trait OldEntries {
    fn first_index(&self) -> LogIndex;
    fn term(&self, index: LogIndex) -> Option<Term>;
    /// `low..high`, at most about `max_bytes` but at least one.
    fn read(&self, low: LogIndex, high: LogIndex, max_bytes: usize) -> Result<Vec<LogEntry>, Unread>;
}

/// Why entries couldn't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The log has let go of them meanwhile, or this process lacks something: no fault of the disk.
    NotNow(String),
    /// They are damaged, or the disk refuses.
    Failed(String),
}

impl<D: holdfast_storage::disk::Disk> OldEntries for holdfast_storage::log::LogReader<D> {
    fn first_index(&self) -> LogIndex {
        self.first_index()
    }
    fn term(&self, index: LogIndex) -> Option<Term> {
        self.term(index)
    }
    fn read(&self, low: LogIndex, high: LogIndex, max_bytes: usize) -> Result<Vec<LogEntry>, Unread> {
        self.read(low, high, max_bytes).map_err(|error| {
            let is_fault = match &error {
                // A conflict can cut what was there when it was asked for.
                LogError::Trimmed { .. } | LogError::Beyond { .. } => false,
                LogError::Io { source, .. } => is_the_disks_fault(source),
                _ => true,
            };
            let why = holdfast_storage::error::chain(&error);
            if is_fault {
                Unread::Failed(why)
            } else {
                Unread::NotNow(why)
            }
        })
    }
}

pub fn to_raft(entry: LogEntry) -> Entry {
    let mut out = Entry::default();
    out.index = entry.index.0;
    out.term = entry.term.0;
    out.data = entry.data;
    if entry.kind != 0 {
        out.entry_type = EntryType::EntryConfChangeV2;
    }
    out
}

pub fn from_raft(entry: &Entry) -> LogEntry {
    LogEntry {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind: u8::from(entry.entry_type != EntryType::EntryNormal),
        data: entry.data.clone(),
    }
}

/// Bytes of a catch-up read: several messages.
const FETCH_BYTES: usize = 4 << 20;
/// Of a read that the loop waits for.
const REDO_BYTES: usize = 1 << 20;
/// Bytes of applied entries kept in memory: for peers that are a little behind, and of those that no peer lacks. Few,
/// for memory that is used again at once is still in the processor's cache.
const KEEP_FOR_PEERS: usize = 24 << 20;
const KEEP: usize = 512 << 10;
/// How finely it is known how far behind a peer is, and for how much of the log.
const MARK_EVERY: u64 = 256 << 10;
const MARKS: usize = 1 << 16;
/// An entry of which no more is known.
const GUESSED: u64 = 4096;

pub struct MemoryLog<O> {
    old: O,
    hard_state: HardState,
    voters: Vec<u64>,
    /// Consecutive; the first has index `first`.
    entries: VecDeque<Entry>,
    first: u64,
    /// Term of the entry before the first. Small entries take more room on disk than here, so the disk may have let go of it
    /// already; raft-rs needs it for whoever goes on at `first`.
    before: Option<u64>,
    bytes: usize,
    /// Bytes of all entries since the start that weren't replaced, and how many they were before some of them.
    appended: u64,
    marks: VecDeque<(u64, u64)>,
    /// What a peer that is far behind needs and isn't in memory; to be read off the loop.
    wanted: RefCell<Vec<Wanted>>,
    /// First indexes of what is wanted and being read: raft-rs asks anew at each proposal.
    reading: RefCell<BTreeSet<u64>>,
    /// Read for a peer, until it has been sent.
    fetched: RefCell<Vec<Entry>>,
    /// Why committed entries that this node has yet to apply couldn't be read.
    broken: RefCell<Option<String>>,
}

/// Entries to be read from disk for a peer.
#[derive(Debug)]
pub struct Wanted {
    pub low: u64,
    pub high: u64,
    pub context: GetEntriesContext,
}

/// As the log on disk has it; it isn't asked for what is before all.
fn term_of(old: &impl OldEntries, index: u64) -> Option<u64> {
    (index > 0).then(|| old.term(LogIndex(index)))?.map(|term| term.0)
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + 64
}

/// How many of these one message of so many bytes takes: at least one.
fn fitting<'a>(entries: impl Iterator<Item = &'a Entry>, max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += size(entry);
        bytes == size(entry) || bytes <= max_bytes
    };
    entries.take_while(fits).count()
}

impl<O: OldEntries> MemoryLog<O> {
    /// A log whose last entry on disk is `last`.
    pub fn new(old: O, hard_state: HardState, last: LogIndex, voters: Vec<u64>) -> Self {
        Self {
            before: term_of(&old, last.0),
            old,
            hard_state,
            voters,
            entries: VecDeque::new(),
            first: last.0 + 1,
            bytes: 0,
            appended: 0,
            marks: VecDeque::new(),
            wanted: RefCell::default(),
            reading: RefCell::default(),
            fetched: RefCell::default(),
            broken: RefCell::default(),
        }
    }

    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Takes over entries of a Ready, replacing what conflicts.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(head) = entries.first() else { return };
        assert!(
            head.index <= self.last() + 1,
            "entries {}.. would leave a gap behind {}",
            head.index,
            self.last()
        );
        if head.index < self.first {
            self.entries.clear();
            self.appended -= self.bytes as u64;
            self.bytes = 0;
            self.first = head.index;
            self.before = term_of(&self.old, head.index - 1);
        }
        while self.last() >= head.index && !self.entries.is_empty() {
            let replaced = self.entries.pop_back().as_ref().map_or(0, size);
            self.bytes -= replaced;
            self.appended -= replaced as u64;
        }
        while self.marks.back().is_some_and(|(index, _)| *index >= head.index) {
            self.marks.pop_back();
        }
        for entry in entries {
            self.mark(entry.index);
            self.appended += size(entry) as u64;
            self.bytes += size(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Entries up to `index` are on disk and applied, those up to `spread` on the peers that are here as well.
    pub fn release(&mut self, index: u64, spread: u64) {
        let most = |first| if first <= spread { KEEP } else { KEEP_FOR_PEERS };
        while self.first <= index && self.bytes > most(self.first) && !self.entries.is_empty() {
            let released = self.entries.pop_front();
            self.bytes -= released.as_ref().map_or(0, size);
            self.before = released.map(|entry| entry.term);
            self.first += 1;
        }
    }

    pub fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Remembers where in the bytes an entry begins, a few thousand times at most.
    fn mark(&mut self, index: u64) {
        if self.marks.back().is_none_or(|(_, at)| self.appended >= at + MARK_EVERY) {
            if self.marks.len() >= MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back((index, self.appended));
        }
    }

    /// About how many bytes the entries behind `index` have. Those from before the start are guessed.
    pub fn bytes_after(&self, index: u64) -> u64 {
        if index >= self.last() {
            return 0;
        }
        let newer = self.marks.partition_point(|(first, _)| *first <= index + 1);
        match (newer.checked_sub(1), self.marks.front()) {
            (Some(at), _) => self.appended - self.marks[at].1,
            (None, Some((first, at))) => self.appended - at + (first - index - 1) * GUESSED,
            (None, None) => (self.last() - index) * GUESSED,
        }
    }

    pub fn take_wanted(&mut self) -> Vec<Wanted> {
        self.wanted.take()
    }

    /// What was read from `low` on, or nothing if it couldn't be; taken by `entries` before `end_fetched`.
    pub fn put_fetched(&mut self, low: u64, entries: Vec<Entry>) {
        self.reading.get_mut().remove(&low);
        self.fetched.replace(entries);
    }

    pub fn end_fetched(&mut self) {
        self.fetched.get_mut().clear();
    }

    /// Nothing if they can't be read: raft-rs would end the process. Whoever asks finds out why by `broken`.
    fn read(&self, low: u64, high: u64, max_bytes: usize) -> Vec<Entry> {
        let high = high.min(self.first);
        fetch(&self.old, low, high, max_bytes.min(REDO_BYTES)).unwrap_or_else(|unread| {
            let (Unread::NotNow(why) | Unread::Failed(why)) = unread;
            self.broken.borrow_mut().get_or_insert(why);
            Vec::new()
        })
    }

    pub fn broken(&self) -> Option<String> {
        self.broken.borrow().clone()
    }
}

/// Reads what a peer wants; runs off the loop.
pub fn fetch(old: &impl OldEntries, low: u64, high: u64, max_bytes: usize) -> Result<Vec<Entry>, Unread> {
    let read = old.read(LogIndex(low), LogIndex(high), max_bytes.min(FETCH_BYTES))?;
    Ok(read.into_iter().map(to_raft).collect())
}

impl<O: OldEntries> Storage for MemoryLog<O> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = eraftpb::HardState::default();
        hard_state.term = self.hard_state.term.0;
        hard_state.vote = self.hard_state.vote;
        hard_state.commit = self.hard_state.commit.0;
        let mut conf = ConfState::default();
        conf.voters = self.voters.clone();
        Ok(RaftState::new(hard_state, conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max = max
            .into()
            .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        if low < self.old.first_index().0 && low < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if low < self.first {
            if !context.can_async() {
                // Only at start, before anything is served: redo behind the checkpoint.
                return Ok(self.read(low, high, max));
            }
            let mut fetched = self.fetched.borrow_mut();
            if fetched.first().is_some_and(|entry| entry.index == low) {
                // The rest goes into the messages after this one: raft-rs asks as long as it may send.
                let count = fitting(fetched.iter().take_while(|entry| entry.index < high), max);
                return Ok(fetched.drain(..count).collect());
            }
            // Another peer that wants the same asks again with its next answer.
            if self.reading.borrow_mut().insert(low) {
                self.wanted.borrow_mut().push(Wanted {
                    low,
                    high: high.min(self.first),
                    context,
                });
            }
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        let from = (low - self.first) as usize;
        let to = (high - self.first) as usize;
        let count = fitting(self.entries.range(from..to), max);
        Ok(self.entries.range(from..from + count).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == 0 {
            return Ok(0);
        }
        if index >= self.first {
            let entry = self.entries.get((index - self.first) as usize);
            return entry
                .map(|entry| entry.term)
                .ok_or(Error::Store(StorageError::Unavailable));
        }
        let known = self.before.filter(|_| index + 1 == self.first);
        known
            .or_else(|| self.old.term(LogIndex(index)).map(|term| term.0))
            .ok_or(Error::Store(StorageError::Compacted))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.old.first_index().0.min(self.first).max(1))
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // A node that fell behind the retained log is refused with an explanation (see `Core::left_behind`).
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl OldEntries for Nothing {
        fn first_index(&self) -> LogIndex {
            LogIndex(1)
        }
        fn term(&self, _index: LogIndex) -> Option<Term> {
            None
        }
        fn read(&self, _low: LogIndex, _high: LogIndex, _max_bytes: usize) -> Result<Vec<LogEntry>, Unread> {
            Err(Unread::NotNow("nothing is there".into()))
        }
    }

    fn entry(index: u64, len: usize) -> Entry {
        let mut entry = Entry::default();
        entry.index = index;
        entry.data = vec![0; len].into();
        entry
    }

    /// The disk's log was written over up to behind what memory holds.
    #[test]
    fn the_term_before_the_first_entry_is_known() {
        let mut log = MemoryLog::new(Nothing, HardState::default(), LogIndex(0), vec![1, 2, 3]);
        for index in 1..=20 {
            log.append(&[entry(index, 100_000)]);
        }
        log.release(20, u64::MAX);
        assert!(log.first > 1);
        assert_eq!(log.term(log.first_index().unwrap() - 1).unwrap(), 0);
        assert!(log.term(log.first - 2).is_err());
    }

    /// What was read in one go is more than a follower's log may have room for.
    #[test]
    fn what_was_read_for_a_peer_goes_out_in_messages_of_the_size_asked_for() {
        let mut log = MemoryLog::new(Nothing, HardState::default(), LogIndex(100), vec![1, 2, 3]);
        let read: Vec<Entry> = (11..=60)
            .map(|index| entry(index, if index == 30 { 5000 } else { 936 }))
            .collect();
        log.put_fetched(11, read);
        let mut low = 11;
        while let Ok(message) = log.entries(low, 61, 4000, GetEntriesContext::empty(true)) {
            assert_eq!(message[0].index, low);
            assert!(message.len() == 1 || message.iter().map(size).sum::<usize>() <= 4000);
            low += message.len() as u64;
        }
        assert_eq!(low, 61, "none is left out");
    }

    #[test]
    fn what_a_peer_lacks_is_known_also_when_memory_has_let_it_go() {
        let mut log = MemoryLog::new(Nothing, HardState::default(), LogIndex(0), vec![1, 2, 3]);
        for index in 1..=1000 {
            log.append(&[entry(index, 100_000)]);
        }
        log.release(1000, u64::MAX);
        assert!(log.bytes <= KEEP + 100_064);
        for behind in [1, 10, 500, 999] {
            let told = log.bytes_after(1000 - behind);
            let real = behind * 100_064;
            assert!(told >= real && told <= real + 2 * MARK_EVERY, "{behind}: {told}");
        }
        assert_eq!(log.bytes_after(1000), 0);
        // Another leader's entries replace the last ones.
        log.append(&[entry(999, 10)]);
        assert!(log.bytes_after(998) <= MARK_EVERY, "{}", log.bytes_after(998));
        log.append(&[entry(990, 10)]);
        assert!(log.bytes_after(989) <= 2 * MARK_EVERY, "{}", log.bytes_after(989));
    }
}
