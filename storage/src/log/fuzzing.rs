//! The log's own decoders, for `fuzz/`: a batch, and a whole log made of anything.

use super::format::{self, DESCRIPTION, HEADER, Header, NoHeader, Record};
use super::segments::segment_path;
use super::{HardState, Hash, Log, LogEntry, LogError};
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::fuzzing::{Input, SMALL};
use crate::types::{BLOCK, LogIndex, NUMBER_MAX, Term};
use bytes::Bytes;

const ID: Hash = [0x1d; 16];

/// A description, a header with its records, and the same with checksums that hold.
pub fn batch(data: &[u8]) {
    let mut description = [0; DESCRIPTION];
    let len = data.len().min(DESCRIPTION);
    description[..len].copy_from_slice(&data[..len]);
    for sealed in [false, true] {
        if sealed {
            format::seal_description(&mut description);
        }
        if let Some((id, geometry)) = format::decode_description(&description) {
            let again = format::encode_description(id, geometry);
            assert_eq!(format::decode_description(&again), Some((id, geometry)));
        }
    }
    header(data);
    let mut bytes = data.to_vec();
    if bytes.len() >= HEADER {
        format::seal_header(&mut bytes);
        header(&bytes);
    }
    let mut again = Vec::new();
    for record in format::records(data.get(HEADER..).unwrap_or(data)) {
        match record {
            Ok(Record::HardState(state)) => format::put_hard_state(&mut again, &state),
            Ok(Record::Entry {
                index,
                term,
                kind,
                data: place,
            }) => {
                let from = data.get(HEADER..).unwrap_or(data);
                let data = Bytes::copy_from_slice(&from[place]);
                let entry = LogEntry {
                    index,
                    term,
                    kind,
                    data,
                };
                format::put_entry(&mut again, &entry);
            }
            Err(_) => break,
        }
    }
    let whole = format::records(&again).collect::<Result<Vec<_>, _>>();
    assert!(whole.is_ok(), "records that were read can be read again");
}

fn header(bytes: &[u8]) {
    match Header::decode(bytes) {
        Ok(header) => {
            assert_eq!(Header::decode(&header.encode()), Ok(header.clone()));
            assert!(header.disk_len().is_multiple_of(BLOCK));
        }
        Err(NoHeader::Broken | NoHeader::Other) => {}
    }
}

/// Batches with checksums that hold, in any segment at any place with any numbers, some of them rotten afterwards. What opens
/// gives all its entries, takes another one, and opens again with the same.
pub fn log(data: &[u8]) {
    let disk = SimDisk::new();
    Log::format_as(disk.clone(), SMALL, ID).expect("formats");
    let mut input = Input(data);
    let first = match input.u8() {
        0 => 1,
        _ => input.number(),
    };
    let used = u64::from(input.u8() % 5).min(u64::from(SMALL.segments));
    for at in 0..used {
        let Some(number) = first.checked_add(at) else { break };
        let free = super::segments::free_path(at as u32);
        disk.rename(&free, &segment_path(number)).expect("it is there");
    }
    let trimmed = LogIndex(input.number() % NUMBER_MAX);
    let mut chain = Hash::default();
    while !input.is_empty() {
        let number = first.saturating_add(u64::from(input.u8() % 4));
        chain = put_batch(&disk, number, chain, &mut input);
    }
    let Ok((log, recovered)) = Log::open(disk.clone(), ID, trimmed) else {
        return;
    };
    let entries = read_all(&log);
    assert_eq!(
        entries.last().map(|entry| entry.index),
        (recovered.first <= recovered.last).then_some(recovered.last)
    );
    drop(log);
    go_on(&disk, trimmed, &entries, recovered.last, recovered.hard_state);
}

fn go_on(disk: &SimDisk, trimmed: LogIndex, before: &[LogEntry], last: LogIndex, state: HardState) {
    let (mut log, recovered) = Log::open(disk.clone(), ID, trimmed).expect("it has opened before");
    assert_eq!((recovered.last, recovered.torn), (last, None), "what was torn was cut");
    let next = LogEntry {
        index: last.next(),
        term: state.term,
        kind: 0,
        data: Bytes::from_static(b"next"),
    };
    if next.index.0 >= NUMBER_MAX {
        return;
    }
    log.trim(trimmed);
    match log.append(Some(state), std::slice::from_ref(&next)) {
        Ok(synced) => assert_eq!(synced.index(), next.index),
        Err(LogError::Full) => return,
        Err(error) => panic!("{error}"),
    }
    drop(log);
    let (log, _) = Log::open(disk.clone(), ID, trimmed).expect("what was appended is whole");
    let all = read_all(&log);
    assert_eq!(all.last(), Some(&next));
    // The oldest segment may have been used again.
    let kept = &all[..all.len() - 1];
    assert!(before.ends_with(kept));
}

fn read_all(log: &Log<SimDisk>) -> Vec<LogEntry> {
    let reader = log.reader();
    let (first, last) = (reader.first_index(), reader.last_index());
    if first > last {
        return Vec::new();
    }
    let entries = reader.read(first, last.next(), usize::MAX).expect("what was recovered");
    assert_eq!(entries.len() as u64, last.0 - first.0 + 1);
    for entry in &entries {
        assert_eq!(reader.term(entry.index), Some(entry.term));
    }
    entries
}

/// Returns its hash, for the one after it.
fn put_batch(disk: &SimDisk, number: u64, chain: Hash, input: &mut Input<'_>) -> Hash {
    let how = input.u8();
    let offset = u64::from(input.u8() % 4) * BLOCK;
    let mut records = Vec::new();
    let first = input.number();
    let mut index = LogIndex(first);
    let mut entries = 0;
    for _ in 0..input.u8() % 8 {
        match input.u8() {
            0 => {
                let state = HardState {
                    term: Term(input.number()),
                    vote: input.number(),
                    commit: LogIndex(input.number()),
                };
                format::put_hard_state(&mut records, &state);
            }
            1 => records.extend_from_slice(input.piece()),
            _ => {
                let entry = LogEntry {
                    index,
                    term: Term(input.number()),
                    kind: 0,
                    data: Bytes::copy_from_slice(input.piece()),
                };
                format::put_entry(&mut records, &entry);
                index = LogIndex(index.0.wrapping_add(1));
                entries += 1;
            }
        }
    }
    let odd = |bit: u8| how & 1 << bit != 0;
    let header = Header {
        log_id: if odd(0) { [9; 16] } else { ID },
        segment: if odd(1) { input.number() } else { number },
        batch: input.number(),
        chain: if odd(2) { Hash::default() } else { chain },
        before: (
            LogIndex(if odd(3) { input.number() } else { first.wrapping_sub(1) }),
            Term(input.number()),
        ),
        first: LogIndex(if entries == 0 && !odd(4) { 0 } else { first }),
        entries: if odd(5) { input.number() as u32 } else { entries },
        records_len: if odd(6) {
            input.number() as u32
        } else {
            records.len() as u32
        },
        records_hash: format::hash(&records),
    };
    let mut bytes = header.encode().to_vec();
    let hash = format::hash(&bytes);
    bytes.extend(records);
    if odd(7) {
        let at = usize::from(input.u8()) * 16 % bytes.len();
        bytes[at] ^= 1;
    }
    bytes.truncate((SMALL.segment_bytes - offset) as usize);
    if let Ok(file) = disk.open(&segment_path(number), OpenHow::default()) {
        file.write_at(&bytes, offset).expect("the simulated disk has room");
    }
    hash
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let entry = LogEntry {
        index: LogIndex(42),
        term: Term(5),
        kind: 0,
        data: Bytes::from_static(b"data of an entry"),
    };
    let state = HardState {
        term: Term(5),
        vote: 2,
        commit: LogIndex(41),
    };
    let mut records = Vec::new();
    format::put_hard_state(&mut records, &state);
    format::put_entry(&mut records, &entry);
    let header = Header {
        log_id: ID,
        segment: 3,
        batch: 99,
        chain: [1; 16],
        before: (LogIndex(41), Term(5)),
        first: LogIndex(42),
        entries: 1,
        records_len: records.len() as u32,
        records_hash: format::hash(&records),
    };
    let description = format::encode_description(ID, SMALL).to_vec();
    // Two batches in the first segment, one in the second: a hard state and an entry, an entry, the entry replaced.
    let log = [
        &[0, 2, 0][..],
        &[0, 0, 0, 1, 2, 0, 1, 2, 0, 2, 1, 3, b'o', b'n', b'e', 1, 0],
        &[0, 0, 1, 2, 1, 2, 1, 3, b't', b'w', b'o', 2, 1],
        &[1, 0, 0, 2, 2, 0, 2, 1, 1, 2, 2, 3, b'n', b'e', b'w', 3, 1],
    ];
    vec![
        ("log_batch", [&header.encode()[..], &records].concat()),
        ("log_batch", records),
        ("log_batch", description),
        ("log", log.concat()),
    ]
}

#[cfg(test)]
#[test]
fn the_seed_of_a_log_is_one_that_opens() {
    let (_, seed) = seeds().pop().expect("the last is the log");
    let disk = SimDisk::new();
    Log::format_as(disk.clone(), SMALL, ID).expect("formats");
    let mut input = Input(&seed[3..]);
    for at in 0..2 {
        disk.rename(&super::segments::free_path(at), &segment_path(u64::from(at) + 1))
            .expect("it is there");
    }
    let mut chain = Hash::default();
    while !input.is_empty() {
        let number = 1 + u64::from(input.u8());
        chain = put_batch(&disk, number, chain, &mut input);
    }
    let (log, recovered) = Log::open(disk, ID, LogIndex::ZERO).expect("a log as it should be");
    assert_eq!((recovered.last, recovered.last_term), (LogIndex(2), Term(2)));
    assert_eq!(
        read_all(&log).last().map(|entry| entry.data.clone()),
        Some(Bytes::from_static(b"new"))
    );
}
