//! Opening a log: reads all segments, follows the chain, cuts a torn tail; goes past damage in what is checkpointed, refuses it elsewhere.

use super::create::read_description;
use super::error::LogError;
use super::format::{self, BadRecord, Geometry, HEADER, Hash, Header, NoHeader, Record};
use super::grow;
use super::index::{BatchRef, Index};
use super::segments::{Files, Free, Held, Segment, segment_path};
use super::{HardState, Recovered};
use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, DiskFile};
use crate::types::{BLOCK, LogIndex, Term};

/// Read at once; more for a longer batch.
const WINDOW: u64 = 1 << 20;

/// Where the next batch goes: into the newest segment (if it fits), with this number after this one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    pub(super) offset: u64,
    pub(super) batch: u64,
    pub(super) chain: Hash,
}

pub(super) struct Opened<F> {
    pub(super) geometry: Geometry,
    pub(super) held: Held<F>,
    pub(super) free: Vec<Free<F>>,
    pub(super) cursor: Cursor,
    pub(super) recovered: Recovered,
}

pub(super) fn open<D: Disk>(disk: &D, log_id: Hash, trimmed: LogIndex) -> Result<Opened<D::File>, LogError> {
    let (found, geometry) = read_description(disk)?;
    if found != log_id {
        let hex = |id: Hash| format!("{:032x}", u128::from_be_bytes(id));
        return Err(LogError::OtherLog {
            found: hex(found),
            expected: hex(log_id),
        });
    }
    grow::finish(disk, geometry)?;
    let Files { mut used, mut free } = Files::open(disk, geometry)?;
    let (Sound { replay, end }, passed) = sound(log_id, geometry, used.make_contiguous(), trimmed)?;
    let Replay {
        index,
        hard_state,
        batch,
        chain,
    } = replay;
    let passed = passed.map(|Passed { segments, why }| {
        // The writer takes the last one first, so the lowest number: the files of a log follow on each other.
        free.extend(used.drain(..segments).rev().map(|segment| segment.given_up(true)));
        let first = index.first();
        tracing::warn!(what = why, %first, "log: damaged in what is checkpointed; it begins behind that");
        format!("{why}; all up to there is checkpointed, so the log begins behind it, at entry {first}")
    });
    let torn = cut(used.make_contiguous(), &end, index.last())?;
    // A log that never began has no segment in use: the first batch takes one.
    let at_newest = end.segment + 1 == used.len();
    let offset = if used.is_empty() {
        geometry.segment_bytes
    } else {
        end.offset * u64::from(at_newest)
    };
    let last = index.last();
    let recovered = Recovered {
        hard_state,
        first: index.first(),
        last,
        last_term: index.term(last).unwrap_or_default(),
        torn,
        passed,
    };
    let cursor = Cursor {
        offset,
        batch: batch + 1,
        chain,
    };
    Ok(Opened {
        geometry,
        held: Held { index, segments: used },
        free,
        cursor,
        recovered,
    })
}

/// Where the chain ends, and what lies there that isn't whole.
struct End {
    /// Place among the segments in use.
    segment: usize,
    offset: u64,
    torn: Vec<Torn>,
}

/// What of the log can be trusted.
struct Sound {
    replay: Replay,
    end: End,
}

/// Segments at the beginning that aren't needed, one of them damaged.
struct Passed {
    segments: usize,
    why: String,
}

/// All of the log; or if that is damaged, the segments behind the damage, which hold whatever isn't checkpointed and, as each
/// one does, the hard state: what is left is a log whose older segments were used again.
fn sound<F: DiskFile>(
    log_id: Hash,
    geometry: Geometry,
    used: &[Segment<F>],
    trimmed: LogIndex,
) -> Result<(Sound, Option<Passed>), LogError> {
    let mut scanner = Scanner::new(log_id, geometry, used);
    let why = match scanner.scan(trimmed) {
        Ok(sound) => return Ok((sound, None)),
        Err(why) => why,
    };
    let place = match &why {
        LogError::Damaged { path, offset, what } => format!("{path} offset {offset}: {what}"),
        LogError::Io { path, source, .. } => format!("{path}: {source}"),
        _ => return Err(why),
    };
    let mut segments = scanner.refused + 1;
    while segments < used.len() {
        let mut scanner = Scanner::new(log_id, geometry, &used[segments..]);
        match scanner.scan(trimmed) {
            // What holds no batch has no hard state either.
            Ok(sound) if sound.replay.batch > 0 => return Ok((sound, Some(Passed { segments, why: place }))),
            Ok(_) => break,
            Err(_) => segments += scanner.refused + 1,
        }
    }
    Err(why)
}

struct Torn {
    segment: usize,
    offset: u64,
    what: String,
}

enum At {
    Batch(Header),
    Nothing,
    Torn(String),
}

struct Scanner<'a, F> {
    log_id: Hash,
    geometry: Geometry,
    segments: &'a [Segment<F>],
    buffer: AlignedBuf,
    /// What the buffer holds: place of the segment, first byte, bytes.
    window: Option<(usize, u64, u64)>,
    /// The segment that an error speaks of.
    refused: usize,
}

impl<'a, F: DiskFile> Scanner<'a, F> {
    fn new(log_id: Hash, geometry: Geometry, segments: &'a [Segment<F>]) -> Self {
        Self {
            log_id,
            geometry,
            segments,
            buffer: AlignedBuf::default(),
            window: None,
            refused: 0,
        }
    }

    fn scan(&mut self, trimmed: LogIndex) -> Result<Sound, LogError> {
        let mut replay = Replay::default();
        let end = self.follow(&mut replay)?;
        self.refuse_batches_after(&end, replay.batch)?;
        replay.refuse_gaps(trimmed)?;
        Ok(Sound { replay, end })
    }

    fn follow(&mut self, replay: &mut Replay) -> Result<End, LogError> {
        let mut end = End {
            segment: 0,
            offset: 0,
            torn: Vec::new(),
        };
        while end.segment < self.segments.len() {
            let here = self.batch_at(end.segment, end.offset, replay)?;
            if let At::Batch(header) = here {
                self.replay(&header, end.segment, end.offset, replay)?;
                end.offset += header.disk_len();
                continue;
            }
            if let At::Torn(what) = here {
                end.torn.push(Torn {
                    segment: end.segment,
                    offset: end.offset,
                    what,
                });
            }
            let next = end.segment + 1;
            // The chain goes on at the beginning of the next segment or ends here.
            if end.offset == 0 || next == self.segments.len() {
                break;
            }
            match self.batch_at(next, 0, replay)? {
                At::Batch(_) => {
                    end = End {
                        segment: next,
                        offset: 0,
                        torn: Vec::new(),
                    }
                }
                At::Torn(what) => {
                    end.torn.push(Torn {
                        segment: next,
                        offset: 0,
                        what,
                    });
                    break;
                }
                At::Nothing => break,
            }
        }
        Ok(end)
    }

    fn batch_at(&mut self, segment: usize, offset: u64, replay: &Replay) -> Result<At, LogError> {
        if offset + BLOCK > self.geometry.segment_bytes {
            return Ok(At::Nothing);
        }
        let header = match Header::decode(self.bytes(segment, offset, BLOCK)?) {
            Ok(header) => header,
            Err(NoHeader::Broken) => return Ok(At::Torn("the header's checksum doesn't hold".to_owned())),
            Err(NoHeader::Other) => return Ok(At::Nothing),
        };
        let number = self.segments[segment].number;
        let expected = replay.expects(number);
        if header.log_id != self.log_id || header.segment != number || expected.is_some_and(|n| n != header.batch) {
            return Ok(At::Nothing);
        }
        if header.disk_len() > self.geometry.segment_bytes - offset {
            return Ok(At::Torn("its length reaches beyond the segment".to_owned()));
        }
        let (hash, len) = (header.records_hash, HEADER + header.records_len as usize);
        if format::hash(&self.bytes(segment, offset, header.disk_len())?[HEADER..len]) != hash {
            let what = format!(
                "batch {} of {} bytes with {} entries from {} isn't whole",
                header.batch,
                header.disk_len(),
                header.entries,
                header.first
            );
            return Ok(At::Torn(what));
        }
        if expected.is_some() && header.chain != replay.chain {
            return Err(self.damaged(segment, offset, "the batch doesn't follow the one before it".to_owned()));
        }
        Ok(At::Batch(header))
    }

    fn replay(&mut self, header: &Header, segment: usize, offset: u64, replay: &mut Replay) -> Result<(), LogError> {
        let number = self.segments[segment].number;
        let bytes = self.bytes(segment, offset, header.disk_len())?;
        let records = &bytes[HEADER..HEADER + header.records_len as usize];
        let place = Place {
            segment: number,
            offset: u32::try_from(offset).expect("segments are at most 2 GiB"),
        };
        let done = replay.batch(header, records, place, format::hash(&bytes[..HEADER]));
        done.map_err(|what| self.damaged(segment, offset, what))
    }

    /// Batches are written one after the other: one that is whole behind one that isn't is no torn tail.
    fn refuse_batches_after(&mut self, end: &End, last_batch: u64) -> Result<(), LogError> {
        let mut offset = end.offset;
        for segment in end.segment..self.segments.len() {
            while offset + BLOCK <= self.geometry.segment_bytes {
                let number = self.segments[segment].number;
                if let Ok(header) = Header::decode(self.bytes(segment, offset, BLOCK)?) {
                    let later = header.batch > last_batch + 1;
                    if header.log_id == self.log_id && header.segment == number && later {
                        let found = format!("batch {} is in {number:016x}.seg at {offset}", header.batch);
                        let missing = last_batch + 1;
                        let what = format!("batch {missing} should begin here, but can't be read, and {found}");
                        self.refused = end.segment;
                        return Err(self.damaged(end.segment, end.offset, what));
                    }
                }
                offset += BLOCK;
            }
            offset = 0;
        }
        // Only one segment can be empty: a new one is taken when the one before has no room for the next batch.
        let empty = self
            .segments
            .len()
            .saturating_sub(end.segment + usize::from(end.offset > 0));
        let never_began = last_batch == 0 && self.segments.iter().any(|segment| segment.number != 1);
        if empty > 1 || never_began {
            self.refused = end.segment.min(self.segments.len() - 1);
            return Err(self.damaged(
                end.segment,
                end.offset,
                "the segments after this one are empty".to_owned(),
            ));
        }
        Ok(())
    }

    /// `offset` and `len` are whole blocks within the segment.
    fn bytes(&mut self, segment: usize, offset: u64, len: u64) -> Result<&[u8], LogError> {
        self.refused = segment;
        let inside =
            |(at, from, count): (usize, u64, u64)| at == segment && from <= offset && offset + len <= from + count;
        if !self.window.is_some_and(inside) {
            let count = len.max(WINDOW).min(self.geometry.segment_bytes - offset);
            self.buffer.grow(count as usize);
            let path = || segment_path(self.segments[segment].number);
            let read = self.segments[segment]
                .file
                .read_at(&mut self.buffer[..count as usize], offset);
            self.window = None;
            if (read.map_err(|source| LogError::Io {
                what: "reading",
                path: path(),
                source,
            })? as u64)
                < count
            {
                return Err(self.damaged(segment, offset, "the file is too short".to_owned()));
            }
            self.window = Some((segment, offset, count));
        }
        let (_, from, _) = self.window.expect("just read");
        let begin = (offset - from) as usize;
        Ok(&self.buffer[begin..begin + len as usize])
    }

    fn damaged(&self, segment: usize, offset: u64, what: String) -> LogError {
        LogError::Damaged {
            path: segment_path(self.segments[segment].number),
            offset,
            what,
        }
    }
}

/// What the batches so far add up to.
struct Replay {
    index: Index,
    hard_state: HardState,
    /// Number of the last one; 0 before the first.
    batch: u64,
    chain: Hash,
}

#[derive(Clone, Copy)]
struct Place {
    segment: u64,
    offset: u32,
}

impl Default for Replay {
    fn default() -> Self {
        let index = Index::after(LogIndex::ZERO, None);
        Self {
            index,
            hard_state: HardState::default(),
            batch: 0,
            chain: Hash::default(),
        }
    }
}

fn known(term: Term) -> Option<Term> {
    (term != Term(0)).then_some(term)
}

impl Replay {
    /// Number of the next batch; the first one of a log whose beginning is gone can have any.
    fn expects(&self, segment: u64) -> Option<u64> {
        (self.batch != 0 || segment == 1).then_some(self.batch + 1)
    }

    fn batch(&mut self, header: &Header, records: &[u8], place: Place, hash: Hash) -> Result<(), String> {
        if self.batch == 0 {
            self.index = Index::after(header.before.0, known(header.before.1));
        }
        if header.entries > 0 {
            self.make_room(header)?;
        }
        let mut next = header.first;
        for record in format::records(records) {
            match record.map_err(|BadRecord { at }| format!("the record at byte {at} of the batch can't be read"))? {
                Record::HardState(state) => self.hard_state = state,
                Record::Entry { index, term, .. } => {
                    if index != next || header.entries == 0 {
                        return Err(format!("entry {index} stands where {next} should"));
                    }
                    self.index.push_term(index, term);
                    next = index.next();
                }
            }
        }
        if next.0 - header.first.0 != u64::from(header.entries) {
            return Err(format!("the batch doesn't have {} entries", header.entries));
        }
        if header.entries > 0 {
            let (first, last, len) = (header.first, LogIndex(next.0 - 1), header.disk_len());
            let len = u32::try_from(len).expect("segments are at most 2 GiB");
            self.index.push(BatchRef {
                first,
                last,
                segment: place.segment,
                offset: place.offset,
                len,
            });
        }
        self.batch = header.batch;
        self.chain = hash;
        Ok(())
    }

    fn make_room(&mut self, header: &Header) -> Result<(), String> {
        let (before, term) = (header.before.0, known(header.before.1));
        let last = self.index.last();
        if header.first != before.next() {
            return Err(format!("entries begin at {} after {before}", header.first));
        }
        if before < last {
            self.index.truncate(header.first, term);
        } else if before > last && self.index.is_empty() {
            // The node got all up to here by other means than its log.
            self.index = Index::after(before, term);
        } else if before > last {
            return Err(format!(
                "entries begin at {}, the ones before end at {last}",
                header.first
            ));
        }
        Ok(())
    }

    /// With what is stored elsewhere (up to `trimmed`) it is all that this node had.
    fn refuse_gaps(&self, trimmed: LogIndex) -> Result<(), LogError> {
        let (first, last) = (self.index.first(), self.index.last());
        if first > trimmed.next() {
            return Err(LogError::Trimmed {
                index: trimmed.next(),
                first,
            });
        }
        let needed = trimmed.max(self.hard_state.commit);
        if last < needed {
            return Err(LogError::Lost { last, needed });
        }
        Ok(())
    }
}

/// Makes what isn't whole at the end of the log unreadable for good; says what it was.
fn cut<F: DiskFile>(segments: &[Segment<F>], end: &End, last: LogIndex) -> Result<Option<String>, LogError> {
    let mut said = Vec::new();
    for Torn { segment, offset, what } in &end.torn {
        let Segment { number, file } = &segments[*segment];
        let path = segment_path(*number);
        tracing::warn!(path, offset, %last, what, "log: cut a torn tail, after the last entry that is whole");
        said.push(format!("{path} offset {offset}: {what}; cut after entry {last}"));
        let zeros = AlignedBuf::zeroed(BLOCK as usize);
        file.write_synced(&zeros, *offset)
            .map_err(LogError::io("cutting the torn tail of", path))?;
    }
    Ok((!said.is_empty()).then(|| said.join("; ")))
}
