//! Appending: one aligned buffer, one write and one sync a batch.

use super::create;
use super::error::LogError;
use super::format::{self, Geometry, HARD_STATE, HEADER, Hash, Header};
use super::grow;
use super::index::{BatchRef, Index};
use super::recover::{self, Cursor, Opened};
use super::segments::{FOLDER, Free, Segment, Shared, segment_path};
use super::{HardState, LogEntry, LogReader, MAX_BATCH, Recovered, Synced};
use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, DiskFile};
use crate::types::{LogIndex, Term};
use std::sync::Arc;

/// The log's only writer. Readers follow what it has made stable.
pub struct Log<D: Disk> {
    disk: D,
    geometry: Geometry,
    shared: Arc<Shared<D::File>>,
    free: Vec<Free<D::File>>,
    cursor: Cursor,
    hard_state: HardState,
    trimmed: LogIndex,
    buffer: AlignedBuf,
    failed: bool,
}

impl<D: Disk> Log<D> {
    /// Makes an empty log of about this size; takes as long as writing that many zeros, and says how far it is.
    pub fn format(disk: D, total_bytes: u64, log_id: Hash) -> Result<(), LogError> {
        Self::format_as(disk, Geometry::of_total(total_bytes), log_id)
    }

    /// `format` with sizes chosen by the caller.
    #[expect(clippy::needless_pass_by_value, reason = "a disk is a handle, passed as everywhere")]
    pub fn format_as(disk: D, geometry: Geometry, log_id: Hash) -> Result<(), LogError> {
        create::create(&disk, geometry, log_id)
    }

    /// Reads all segments and checks the chain. A torn tail is cut and said; so is a damaged beginning if all up to its end is
    /// checkpointed (entries up to `trimmed` may be absent). Other damage is refused.
    pub fn open(disk: D, log_id: Hash, trimmed: LogIndex) -> Result<(Self, Recovered), LogError> {
        let Opened {
            geometry,
            held,
            free,
            cursor,
            recovered,
        } = recover::open(&disk, log_id, trimmed)?;
        let hard_state = recovered.hard_state;
        let shared = Arc::new(Shared::new(log_id, held));
        let buffer = AlignedBuf::default();
        let log = Self {
            disk,
            geometry,
            shared,
            free,
            cursor,
            hard_state,
            trimmed,
            buffer,
            failed: false,
        };
        Ok((log, recovered))
    }

    /// Makes the log that is there an empty one of another id, which goes on behind an entry that it doesn't hold: the node
    /// got all up to there by other means.
    pub fn begin_after(disk: D, new_id: Hash, before: (LogIndex, Term), state: HardState) -> Result<(), LogError> {
        create::give_up(&disk, new_id)?;
        let (mut log, _) = Self::open(disk, new_id, LogIndex::ZERO)?;
        log.shared.write().index = Index::after(before.0, Some(before.1));
        log.append(Some(state), &[]).map(drop)
    }

    /// Appends and syncs; all of it is stable when it returns. Consecutive entries; a first index at or below the
    /// last one replaces everything from it on. What is longer than one batch becomes several: if the later ones
    /// fail, the earlier ones stay.
    ///
    /// The hard state's commit is at most the last entry after this append: what it says is committed is stored here.
    ///
    /// `Full` leaves the log usable: trim, then append again. After an `Io` error nothing more is written.
    pub fn append(&mut self, hard_state: Option<HardState>, entries: &[LogEntry]) -> Result<Synced, LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        let target = hard_state.unwrap_or(self.hard_state);
        self.check_order(entries, target.commit)?;
        let mut rest = entries;
        while !rest.is_empty() || self.hard_state != target {
            let (now, later) = rest.split_at(self.fitting(rest)?);
            let state = if later.is_empty() {
                target
            } else {
                held_back(target, self.hard_state, now)
            };
            self.write_batch(state, now)?;
            rest = later;
        }
        let held = self.shared.read();
        let index = held.index.last();
        Ok(Synced {
            index,
            term: held.index.term(index),
        })
    }

    /// Makes it as long as that, in whole segments of the size that it has, up to 1,024 of them; never shorter. Takes as long as writing that
    /// many zeros, a few segments at a time: those that were added stay, whatever comes in the way (no room: `Io`) of the next.
    pub fn grow(&mut self, total_bytes: u64) -> Result<(), LogError> {
        while let Some(to) = grow::next_step(self.geometry, total_bytes) {
            let new = grow::grow(&self.disk, self.shared.log_id, self.geometry, to)?;
            let new = new.into_iter().map(|path| Free::open(&self.disk, path, to));
            let new: Vec<_> = new.collect::<Result<_, _>>()?;
            // They are used last: what was given up with damage goes first.
            self.free.splice(0..0, new);
            self.geometry = to;
        }
        Ok(())
    }

    /// Entries up to `index` aren't needed any more by this node. They stay readable until their segment is needed.
    pub fn trim(&mut self, index: LogIndex) {
        let last = self.shared.read().index.last();
        self.trimmed = self.trimmed.max(index.min(last));
    }

    pub fn reader(&self) -> LogReader<D> {
        LogReader::new(self.shared.clone())
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Bytes that can be appended before the log is full, if nothing more is trimmed.
    pub fn free_bytes(&self) -> u64 {
        let held = self.shared.read();
        let older = held.segments.len().saturating_sub(1);
        let free_again = |segment: &&Segment<D::File>| {
            held.index
                .last_in(segment.number)
                .is_none_or(|last| last <= self.trimmed)
        };
        let recyclable = held.segments.iter().take(older).take_while(free_again).count();
        let whole = (self.free.len() + recyclable) as u64 * self.geometry.segment_bytes;
        whole + (self.geometry.segment_bytes - self.cursor.offset)
    }

    /// Bytes that can't be written over: entries that aren't trimmed, and what shares a segment with them.
    pub fn used(&self) -> u64 {
        self.geometry.total_bytes().saturating_sub(self.free_bytes())
    }

    fn batch_most(&self) -> u64 {
        MAX_BATCH.min(self.geometry.segment_bytes)
    }

    fn check_order(&self, entries: &[LogEntry], commit: LogIndex) -> Result<(), LogError> {
        let last = self.shared.read().index.last();
        let refuse = |index, why| Err(LogError::OutOfOrder { index, why });
        let new_last = entries.last().map_or(last, |entry| entry.index);
        if commit > new_last {
            return refuse(
                new_last.next(),
                format!("it is called committed (up to {commit}), but isn't given"),
            );
        }
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return Ok(());
        };
        if first <= self.trimmed {
            return refuse(
                first,
                format!("all up to {} are checkpointed and can't be replaced", self.trimmed),
            );
        }
        if first > last.next() {
            return refuse(first, format!("the last one here is {last}"));
        }
        match entries.windows(2).find(|pair| pair[0].index.next() != pair[1].index) {
            Some(pair) => refuse(pair[1].index, format!("it comes right after {}", pair[0].index)),
            None => Ok(()),
        }
    }

    /// How many of these entries one batch holds.
    fn fitting(&self, entries: &[LogEntry]) -> Result<usize, LogError> {
        let most = self.batch_most();
        let mut bytes = (HEADER + HARD_STATE) as u64;
        for (count, entry) in entries.iter().enumerate() {
            bytes += format::entry_len(entry) as u64;
            if bytes > most && count > 0 {
                return Ok(count);
            }
            if bytes > most {
                return Err(LogError::TooBig {
                    index: entry.index,
                    bytes,
                    most,
                });
            }
        }
        Ok(entries.len())
    }

    fn write_batch(&mut self, state: HardState, entries: &[LogEntry]) -> Result<(), LogError> {
        let entries_len: usize = entries.iter().map(format::entry_len).sum();
        let needs_state = |log: &Self| log.cursor.offset == 0 || state != log.hard_state;
        let len_with = |with_state: bool| HEADER + if with_state { HARD_STATE } else { 0 } + entries_len;
        if self.cursor.offset + format::padded(len_with(needs_state(self)) as u64) > self.geometry.segment_bytes {
            self.take_segment()?;
        }
        let with_state = needs_state(self);
        let len = len_with(with_state);
        let padded = format::padded(len as u64);
        self.fill_records(with_state.then_some(&state), entries, len, padded as usize);
        let chain = self.fill_header(entries, len);
        let (number, file) = self.newest();
        if let Err(source) = file.write_synced(&self.buffer[..padded as usize], self.cursor.offset) {
            self.failed = true;
            return Err(LogError::Io {
                what: "writing and syncing",
                path: segment_path(number),
                source,
            });
        }
        self.show(entries, number, padded);
        self.hard_state = state;
        self.cursor = Cursor {
            offset: self.cursor.offset + padded,
            batch: self.cursor.batch + 1,
            chain,
        };
        Ok(())
    }

    fn fill_records(&mut self, state: Option<&HardState>, entries: &[LogEntry], len: usize, padded: usize) {
        self.buffer.grow(padded);
        let mut out = &mut self.buffer[HEADER..len];
        if let Some(state) = state {
            format::put_hard_state(&mut out, state);
        }
        for entry in entries {
            format::put_entry(&mut out, entry);
        }
        // An earlier, longer batch may have left its bytes here.
        self.buffer[len..padded].fill(0);
    }

    /// Returns the header's hash, which the next batch carries.
    fn fill_header(&mut self, entries: &[LogEntry], len: usize) -> Hash {
        let header = Header {
            log_id: self.shared.log_id,
            segment: self.newest().0,
            batch: self.cursor.batch,
            chain: self.cursor.chain,
            before: self.before(entries),
            first: entries.first().map_or(LogIndex::ZERO, |entry| entry.index),
            entries: u32::try_from(entries.len()).expect("a batch is far below 4 GiB"),
            records_len: u32::try_from(len - HEADER).expect("a batch is far below 4 GiB"),
            records_hash: format::hash(&self.buffer[HEADER..len]),
        };
        let bytes = header.encode();
        self.buffer[..HEADER].copy_from_slice(&bytes);
        format::hash(&bytes)
    }

    fn before(&self, entries: &[LogEntry]) -> (LogIndex, Term) {
        let held = self.shared.read();
        let index = entries
            .first()
            .map_or(held.index.last(), |entry| LogIndex(entry.index.0 - 1));
        (index, held.index.term(index).unwrap_or_default())
    }

    fn newest(&self) -> (u64, Arc<D::File>) {
        let held = self.shared.read();
        let newest = held.segments.back().expect("a segment is taken before the first batch");
        (newest.number, newest.file.clone())
    }

    /// What is stable now can be found.
    fn show(&self, entries: &[LogEntry], segment: u64, len: u64) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return;
        };
        let mut held = self.shared.write();
        if first.index <= held.index.last() {
            let before = held.index.term(LogIndex(first.index.0 - 1));
            held.index.truncate(first.index, before);
        }
        for entry in entries {
            held.index.push_term(entry.index, entry.term);
        }
        let small = |number: u64| u32::try_from(number).expect("segments are at most 2 GiB");
        let (offset, len) = (small(self.cursor.offset), small(len));
        held.index.push(BatchRef {
            first: first.index,
            last: last.index,
            segment,
            offset,
            len,
        });
    }

    /// The next batch begins a segment: one that was never used, or the oldest if nothing in it is needed.
    fn take_segment(&mut self) -> Result<(), LogError> {
        let Some(Free { path, file, damaged }) = self.free.pop().or_else(|| self.oldest_if_trimmed()) else {
            return Err(LogError::Full);
        };
        let number = self.cursor_segment() + 1;
        let new_path = segment_path(number);
        tracing::debug!(from = path, to = new_path, "log: goes on in another segment");
        if damaged && let Err(source) = create::clear(&*file, self.geometry.segment_bytes) {
            self.failed = true;
            return Err(LogError::Io {
                what: "clearing what is damaged in",
                path,
                source,
            });
        }
        // Crash before the folder is synced: it has either name, and neither makes its old batches current ones.
        let renamed = self
            .disk
            .rename(&path, &new_path)
            .and_then(|()| self.disk.sync_dir(FOLDER));
        if let Err(source) = renamed {
            self.failed = true;
            return Err(LogError::Io {
                what: "renaming to",
                path: new_path,
                source,
            });
        }
        self.shared.write().segments.push_back(Segment { number, file });
        self.cursor.offset = 0;
        Ok(())
    }

    fn cursor_segment(&self) -> u64 {
        self.shared.read().segments.back().map_or(0, |segment| segment.number)
    }

    /// Readers don't find it any more when this returns.
    fn oldest_if_trimmed(&self) -> Option<Free<D::File>> {
        let mut held = self.shared.write();
        let oldest = held.segments.front()?.number;
        let needed = held.index.last_in(oldest).is_some_and(|last| last > self.trimmed);
        if needed || held.segments.len() < 2 {
            return None;
        }
        held.index.forget_segment(oldest);
        held.segments.pop_front().map(|segment| segment.given_up(false))
    }
}

/// The hard state for a batch that isn't the last of its append: it must not say that entries are committed
/// which come only in the next batch.
fn held_back(target: HardState, current: HardState, entries: &[LogEntry]) -> HardState {
    let last = entries.last().map_or(current.commit, |entry| entry.index);
    HardState {
        commit: target.commit.min(last.max(current.commit)),
        ..target
    }
}
