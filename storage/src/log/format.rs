//! Layout of the log's files. All numbers are little-endian; a *hash* is the first 16 bytes of a blake3.
//!
//! The log lies in the folder `log`:
//!
//! | name | what |
//! |---|---|
//! | `format` | the description below, 64 bytes; there only once every segment is made and zeroed |
//! | `NNNNNNNNNNNNNNNN.seg` | a segment in use; its number in 16 hexadecimal digits, from 1, without gaps |
//! | `NNNN.free` | a segment that isn't in use: full of zeros, or with what a log of another id has left; its place in decimal digits |
//!
//! **`format`**
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `HFLOG\0\0\1`; the last byte is the version |
//! | 8 | 16 | log id: made at random when a node's store is made, never used again |
//! | 24 | 8 | bytes of a segment, a multiple of 4096 |
//! | 32 | 4 | number of segments |
//! | 36 | 24 | zeros |
//! | 60 | 4 | crc32c of bytes 0..60 |
//!
//! **A segment** is a sequence of batches from offset 0, each written by one write and one sync. It ends where no
//! valid batch with the next batch number begins; what follows are zeros, or batches of the segment's earlier use,
//! told by their segment number. A batch never spans two segments: one that doesn't fit begins the next segment.
//! To use the oldest segment again, its file is renamed to the next number, the folder is synced, and its first
//! batch is written over what it held.
//!
//! **A batch** begins at a multiple of 4096 and is padded with zeros to one: a header of 128 bytes, then records.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `HFBATCH\1`; the last byte is the version |
//! | 8 | 16 | log id |
//! | 24 | 8 | number of the segment that holds it |
//! | 32 | 8 | number of the batch, from 1, without gaps over all segments |
//! | 40 | 16 | chain: hash of the header (its 128 bytes) of the batch before; zeros for batch 1 |
//! | 56 | 8 | index of the entry before this batch's first, or the last index if the batch has no entries |
//! | 64 | 8 | its term; 0 is "unknown" (or "no entry" where the index is 0) |
//! | 72 | 8 | index of the first entry, 0 if it has none |
//! | 80 | 4 | number of entries |
//! | 84 | 4 | bytes of records |
//! | 88 | 16 | hash of the records |
//! | 104 | 20 | zeros |
//! | 124 | 4 | crc32c of bytes 0..124 |
//!
//! Entries of a batch have consecutive indexes. A first index at or below the last one of the log so far means
//! that all entries from it on are replaced (a conflict of terms): readers keep the later.
//!
//! **A record** is a tag and its fields:
//!
//! | tag | what | then |
//! |---|---|---|
//! | 1 | entry | kind u8, zeros 2, length u32, index u64, term u64, data |
//! | 2 | hard state | zeros 7, term u64, vote u64, commit u64 |
//!
//! The first record of each segment's first batch is a hard state, so that using a segment again never loses it;
//! the last one of the log is the one that counts.

use super::{HardState, LogEntry};
use crate::types::{BLOCK, LogIndex, NUMBER_MAX, Term};
use bytes::{Buf, BufMut};
use std::ops::Range;

pub type Hash = [u8; 16];

pub(super) const HEADER: usize = 128;
pub(super) const ENTRY_HEAD: usize = 24;
pub(super) const HARD_STATE: usize = 32;
pub(super) const DESCRIPTION: usize = 64;

const BATCH_MAGIC: [u8; 8] = *b"HFBATCH\x01";
const FORMAT_MAGIC: [u8; 8] = *b"HFLOG\0\0\x01";
const CRC_AT: usize = HEADER - 4;
const DESCRIPTION_CRC_AT: usize = DESCRIPTION - 4;
const TAG_ENTRY: u8 = 1;
const TAG_HARD_STATE: u8 = 2;

pub(super) fn hash(bytes: &[u8]) -> Hash {
    let mut short = Hash::default();
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    short
}

fn get_hash(from: &mut &[u8]) -> Hash {
    let mut hash = Hash::default();
    from.copy_to_slice(&mut hash);
    hash
}

fn crc_holds(bytes: &[u8], at: usize) -> bool {
    crc32c::crc32c(&bytes[..at]) == (&bytes[at..]).get_u32_le()
}

fn put_crc(bytes: &mut [u8], at: usize) {
    let crc = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// A description with magic and checksum as they should be, for fuzzing.
#[cfg(any(test, fuzzing))]
pub(super) fn seal_description(bytes: &mut [u8; DESCRIPTION]) {
    bytes[..8].copy_from_slice(&FORMAT_MAGIC);
    put_crc(bytes, DESCRIPTION_CRC_AT);
}

#[cfg(any(test, fuzzing))]
pub(super) fn seal_header(bytes: &mut [u8]) {
    bytes[..8].copy_from_slice(&BATCH_MAGIC);
    put_crc(&mut bytes[..HEADER], CRC_AT);
}

/// How many segments of what size. The size is the same for the life of a log, and their number never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub segment_bytes: u64,
    pub segments: u32,
}

impl Geometry {
    /// Sixteenths of the whole, but between 4 and 64 MiB each and at least four.
    pub fn of_total(total_bytes: u64) -> Self {
        let segment = (total_bytes / 16).clamp(4 << 20, 64 << 20) / BLOCK * BLOCK;
        let segments = (total_bytes / segment).clamp(4, 1 << 20);
        Self {
            segment_bytes: segment,
            segments: u32::try_from(segments).expect("clamped"),
        }
    }

    pub fn total_bytes(&self) -> u64 {
        self.segment_bytes * u64::from(self.segments)
    }

    /// Whether a log can be made so.
    pub(super) fn is_valid(&self) -> bool {
        self.segment_bytes >= BLOCK
            && self.segment_bytes.is_multiple_of(BLOCK)
            && self.segment_bytes <= 1 << 31
            && self.segments >= 2
    }
}

pub(super) fn encode_description(log_id: Hash, geometry: Geometry) -> [u8; DESCRIPTION] {
    let mut bytes = [0; DESCRIPTION];
    let mut out = &mut bytes[..];
    out.put_slice(&FORMAT_MAGIC);
    out.put_slice(&log_id);
    out.put_u64_le(geometry.segment_bytes);
    out.put_u32_le(geometry.segments);
    put_crc(&mut bytes, DESCRIPTION_CRC_AT);
    bytes
}

/// `None`: not a description that this version can read.
pub(super) fn decode_description(bytes: &[u8; DESCRIPTION]) -> Option<(Hash, Geometry)> {
    let mut from = bytes.strip_prefix(&FORMAT_MAGIC)?;
    if !crc_holds(bytes, DESCRIPTION_CRC_AT) {
        return None;
    }
    let log_id = get_hash(&mut from);
    let geometry = Geometry {
        segment_bytes: from.get_u64_le(),
        segments: from.get_u32_le(),
    };
    geometry.is_valid().then_some((log_id, geometry))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) log_id: Hash,
    pub(super) segment: u64,
    pub(super) batch: u64,
    pub(super) chain: Hash,
    /// The entry before the first one of this batch, or the last one.
    pub(super) before: (LogIndex, Term),
    pub(super) first: LogIndex,
    pub(super) entries: u32,
    pub(super) records_len: u32,
    pub(super) records_hash: Hash,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut out = &mut bytes[..];
        out.put_slice(&BATCH_MAGIC);
        out.put_slice(&self.log_id);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.batch);
        out.put_slice(&self.chain);
        out.put_u64_le(self.before.0.0);
        out.put_u64_le(self.before.1.0);
        out.put_u64_le(self.first.0);
        out.put_u32_le(self.entries);
        out.put_u32_le(self.records_len);
        out.put_slice(&self.records_hash);
        put_crc(&mut bytes, CRC_AT);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let bytes = bytes.get(..HEADER).ok_or(NoHeader::Other)?;
        let mut from = bytes.strip_prefix(&BATCH_MAGIC).ok_or(NoHeader::Other)?;
        if !crc_holds(bytes, CRC_AT) {
            return Err(NoHeader::Broken);
        }
        let header = Self {
            log_id: get_hash(&mut from),
            segment: from.get_u64_le(),
            batch: from.get_u64_le(),
            chain: get_hash(&mut from),
            before: (LogIndex(from.get_u64_le()), Term(from.get_u64_le())),
            first: LogIndex(from.get_u64_le()),
            entries: from.get_u32_le(),
            records_len: from.get_u32_le(),
            records_hash: get_hash(&mut from),
        };
        let (before, term) = header.before;
        let numbers = [header.segment, header.batch, before.0, term.0, header.first.0];
        if numbers.iter().any(|number| *number >= NUMBER_MAX) {
            return Err(NoHeader::Broken);
        }
        Ok(header)
    }

    /// Bytes of the batch with its padding.
    pub(super) fn disk_len(&self) -> u64 {
        padded(HEADER as u64 + u64::from(self.records_len))
    }
}

/// Why a block doesn't begin a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// It begins as a header does, but its checksum doesn't hold.
    Broken,
    Other,
}

pub(super) fn padded(len: u64) -> u64 {
    len.div_ceil(BLOCK) * BLOCK
}

pub(super) fn entry_len(entry: &LogEntry) -> usize {
    ENTRY_HEAD + entry.data.len()
}

pub(super) fn put_entry(out: &mut impl BufMut, entry: &LogEntry) {
    out.put_u8(TAG_ENTRY);
    out.put_u8(entry.kind);
    out.put_u16_le(0);
    out.put_u32_le(u32::try_from(entry.data.len()).expect("a batch is far below 4 GiB"));
    out.put_u64_le(entry.index.0);
    out.put_u64_le(entry.term.0);
    out.put_slice(&entry.data);
}

pub(super) fn put_hard_state(out: &mut impl BufMut, state: &HardState) {
    out.put_u64_le(u64::from(TAG_HARD_STATE));
    out.put_u64_le(state.term.0);
    out.put_u64_le(state.vote);
    out.put_u64_le(state.commit.0);
}

/// One record; an entry's data by its place among the bytes of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Entry {
        index: LogIndex,
        term: Term,
        kind: u8,
        data: Range<usize>,
    },
    HardState(HardState),
}

/// Records whose checksum holds and that still can't be read: another version wrote them, or a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRecord {
    pub(super) at: usize,
}

pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record, BadRecord>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        let begin = at;
        let record = record_at(bytes, begin);
        at = record.as_ref().map_or(bytes.len(), |(_, end)| *end);
        Some(record.map(|(record, _)| record).ok_or(BadRecord { at: begin }))
    })
}

fn record_at(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    match bytes[at] {
        TAG_ENTRY => {
            let mut head = bytes.get(at..at + ENTRY_HEAD)?;
            head.advance(1);
            let kind = head.get_u8();
            head.advance(2);
            let len = head.get_u32_le() as usize;
            let (index, term) = (LogIndex(head.get_u64_le()), Term(head.get_u64_le()));
            let data = at + ENTRY_HEAD..at + ENTRY_HEAD + len;
            let end = data.end;
            let sound = end <= bytes.len() && index.0.max(term.0) < NUMBER_MAX;
            sound.then_some((
                Record::Entry {
                    index,
                    term,
                    kind,
                    data,
                },
                end,
            ))
        }
        TAG_HARD_STATE => {
            let mut from = bytes.get(at + 8..at + HARD_STATE)?;
            let (term, vote) = (Term(from.get_u64_le()), from.get_u64_le());
            let state = HardState {
                term,
                vote,
                commit: LogIndex(from.get_u64_le()),
            };
            let sound = term.0.max(state.commit.0) < NUMBER_MAX;
            sound.then_some((Record::HardState(state), at + HARD_STATE))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_default_geometry_keeps_its_bounds() {
        let segments = |total| {
            (
                Geometry::of_total(total).segment_bytes >> 20,
                Geometry::of_total(total).segments,
            )
        };
        assert_eq!(segments(1 << 30), (64, 16));
        assert_eq!(segments(1 << 20), (4, 4));
        assert_eq!(segments(8 << 30), (64, 128));
        assert_eq!(segments(160 << 20), (10, 16));
    }

    #[test]
    fn a_header_reads_back_and_any_flipped_byte_is_noticed() {
        let header = Header {
            log_id: [7; 16],
            segment: 3,
            batch: 99,
            chain: [1; 16],
            before: (LogIndex(41), Term(5)),
            first: LogIndex(42),
            entries: 2,
            records_len: 5000,
            records_hash: [2; 16],
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header.clone()));
        assert_eq!(header.disk_len(), 8192);
        for at in 0..HEADER {
            let mut rotten = bytes;
            rotten[at] ^= 0x10;
            assert!(Header::decode(&rotten).is_err(), "byte {at}");
        }
    }

    #[test]
    fn records_read_back_and_cut_ones_are_refused() {
        let entry = LogEntry {
            index: LogIndex(4),
            term: Term(2),
            kind: 1,
            data: Bytes::from_static(b"hello"),
        };
        let state = HardState {
            term: Term(2),
            vote: 3,
            commit: LogIndex(1),
        };
        let mut bytes = Vec::new();
        put_hard_state(&mut bytes, &state);
        put_entry(&mut bytes, &entry);
        let data = HARD_STATE + ENTRY_HEAD..HARD_STATE + ENTRY_HEAD + 5;
        let read: Vec<_> = records(&bytes).collect();
        let as_read = Record::Entry {
            index: LogIndex(4),
            term: Term(2),
            kind: 1,
            data,
        };
        assert_eq!(read, [Ok(Record::HardState(state)), Ok(as_read)]);
        let cut: Vec<_> = records(&bytes[..bytes.len() - 1]).collect();
        assert_eq!(cut[1], Err(BadRecord { at: HARD_STATE }));
    }
}
