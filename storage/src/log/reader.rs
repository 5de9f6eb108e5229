//! Reading entries back: for catch-up, and for applying again after a restart.

use super::LogEntry;
use super::error::LogError;
use super::format::{self, BadRecord, HEADER, Header, Record};
use super::index::BatchRef;
use super::segments::{Shared, segment_path};
use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, DiskFile};
use crate::types::{LogIndex, Term};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Sees what the writer has made stable. Each clone keeps the last batch that it read.
pub struct LogReader<D: Disk> {
    shared: Arc<Shared<D::File>>,
    recent: Mutex<Option<Batch>>,
}

/// A batch in memory, verified.
#[derive(Clone)]
struct Batch {
    segment: u64,
    offset: u32,
    records: Bytes,
}

impl<D: Disk> Clone for LogReader<D> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl<D: Disk> LogReader<D> {
    pub(super) fn new(shared: Arc<Shared<D::File>>) -> Self {
        Self {
            shared,
            recent: Mutex::new(None),
        }
    }

    /// The oldest entry held; `last_index` + 1 if there is none.
    pub fn first_index(&self) -> LogIndex {
        self.shared.read().index.first()
    }

    pub fn last_index(&self) -> LogIndex {
        self.shared.read().index.last()
    }

    /// From memory. Known for all entries held and, unless nothing was ever said of it, the one before the oldest.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        self.shared.read().index.term(index)
    }

    /// Entries `low..high` from the front: as many as fit into `max_bytes` of data, but at least one. Checksums are
    /// verified. The data shares the memory of its batch.
    pub fn read(&self, low: LogIndex, high: LogIndex, max_bytes: usize) -> Result<Vec<LogEntry>, LogError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        // Looked up at once: a conflict that replaces entries meanwhile leaves the old ones where they were.
        for (batch, file) in self.find(low, high, max_bytes)? {
            let records = match self.batch(&batch, &file) {
                Ok(records) => records,
                Err(error) => return Err(self.gone(low).unwrap_or(error)),
            };
            let (from, to) = (batch.first.max(low), batch.last.min(LogIndex(high.0 - 1)));
            for entry in entries_of(&records, from, to) {
                let entry = entry.map_err(|BadRecord { at }| damaged(&batch, format!("bad record at byte {at}")))?;
                if !entries.is_empty() && bytes + entry.data.len() > max_bytes {
                    return Ok(entries);
                }
                bytes += entry.data.len();
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    #[expect(clippy::type_complexity, reason = "named nowhere else")]
    fn find(&self, low: LogIndex, high: LogIndex, max_bytes: usize) -> Result<Vec<(BatchRef, Arc<D::File>)>, LogError> {
        let held = self.shared.read();
        let (first, last) = (held.index.first(), held.index.last());
        if low < first {
            return Err(LogError::Trimmed { index: low, first });
        }
        if high > last.next() {
            return Err(LogError::Beyond {
                index: LogIndex(high.0 - 1),
                last,
            });
        }
        let mut found = Vec::new();
        let (mut at, mut bytes) = (low, 0);
        while at < high && bytes <= max_bytes {
            let Some(batch) = held.index.find(at) else { break };
            let Some(file) = held.file(batch.segment) else { break };
            at = batch.last.next();
            // Of the first batch perhaps only a part is asked for.
            bytes += if found.is_empty() { 0 } else { batch.len as usize };
            found.push((batch, file));
        }
        Ok(found)
    }

    /// If an entry's segment was used again meanwhile, what was read there wasn't its batch, and that is no damage.
    fn gone(&self, index: LogIndex) -> Option<LogError> {
        let first = self.first_index();
        (index < first).then_some(LogError::Trimmed { index, first })
    }

    fn batch(&self, batch: &BatchRef, file: &D::File) -> Result<Bytes, LogError> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = recent
            .as_ref()
            .filter(|kept| kept.segment == batch.segment && kept.offset == batch.offset)
        {
            return Ok(kept.records.clone());
        }
        let records = self.read_batch(batch, file)?;
        *recent = Some(Batch {
            segment: batch.segment,
            offset: batch.offset,
            records: records.clone(),
        });
        Ok(records)
    }

    fn read_batch(&self, batch: &BatchRef, file: &D::File) -> Result<Bytes, LogError> {
        let mut buffer = AlignedBuf::zeroed(batch.len as usize);
        let read = file.read_at(&mut buffer, u64::from(batch.offset));
        read.map_err(LogError::io("reading", segment_path(batch.segment)))?;
        let header = Header::decode(&buffer).map_err(|_| damaged(batch, "the header can't be read".to_owned()))?;
        let end = HEADER + header.records_len as usize;
        let same = header.log_id == self.shared.log_id
            && header.segment == batch.segment
            && header.first == batch.first
            && end <= buffer.len();
        if !same || format::hash(&buffer[HEADER..end]) != header.records_hash {
            return Err(damaged(batch, "the batch isn't what was written there".to_owned()));
        }
        Ok(Bytes::from_owner(buffer).slice(HEADER..end))
    }
}

fn damaged(batch: &BatchRef, what: String) -> LogError {
    LogError::Damaged {
        path: segment_path(batch.segment),
        offset: u64::from(batch.offset),
        what,
    }
}

fn entries_of(records: &Bytes, from: LogIndex, to: LogIndex) -> impl Iterator<Item = Result<LogEntry, BadRecord>> + '_ {
    format::records(records).filter_map(move |record| match record {
        Err(error) => Some(Err(error)),
        Ok(Record::Entry {
            index,
            term,
            kind,
            data,
        }) if from <= index && index <= to => Some(Ok(LogEntry {
            index,
            term,
            kind,
            data: records.slice(data),
        })),
        Ok(_) => None,
    })
}
