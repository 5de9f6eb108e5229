//! What the log refuses, and what it cuts.

use bytes::Bytes;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::disk::{Disk, DiskFile, OpenHow};
use holdfast_storage::log::{Geometry, HardState, Log, LogEntry, LogError};
use holdfast_storage::types::{LogIndex, Term};

const ID: [u8; 16] = [0x1d; 16];
const SMALL: Geometry = Geometry {
    segment_bytes: 32 << 10,
    segments: 4,
};

fn entry(index: u64, term: u64, size: usize) -> LogEntry {
    let data = Bytes::from(vec![index as u8 ^ (term as u8) << 4; size]);
    LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: 0,
        data,
    }
}

fn new_log() -> (SimDisk, Log<SimDisk>) {
    let disk = SimDisk::new();
    Log::format_as(disk.clone(), SMALL, ID).expect("formats");
    let (log, _) = Log::open(disk.clone(), ID, LogIndex::ZERO).expect("opens");
    (disk, log)
}

/// One batch an entry: 1 at offset 0, 2 at 4096, ...; eight a segment.
fn with_entries(count: u64) -> (SimDisk, Log<SimDisk>) {
    let (disk, mut log) = new_log();
    for index in 1..=count {
        log.append(None, &[entry(index, 1, 1000)]).expect("appends");
    }
    (disk, log)
}

fn open(disk: &SimDisk, trimmed: u64) -> Result<(Log<SimDisk>, holdfast_storage::log::Recovered), LogError> {
    Log::open(disk.clone(), ID, LogIndex(trimmed))
}

const FIRST: &str = "log/0000000000000001.seg";

#[test]
fn an_append_is_one_write_with_its_sync() {
    let (disk, mut log) = with_entries(1);
    let before = disk.calls();
    log.append(
        Some(HardState {
            term: Term(1),
            ..HardState::default()
        }),
        &[entry(2, 1, 3900)],
    )
    .expect("appends");
    assert_eq!(disk.calls() - before, 1);
}

#[test]
fn rot_in_the_middle_is_refused_by_place() {
    for at in [0, 8, 130, 700] {
        let (disk, log) = with_entries(12);
        drop(log);
        disk.rot(FIRST, 2 * 4096 + at).expect("there");
        let Err(LogError::Damaged { path, offset, what }) = open(&disk, 0) else {
            panic!("must be refused")
        };
        assert_eq!((path.as_str(), offset), (FIRST, 2 * 4096), "{what}");
    }
}

#[test]
fn rot_at_the_end_of_a_segment_is_refused_when_the_next_one_goes_on() {
    let (disk, log) = with_entries(9);
    drop(log);
    disk.rot(FIRST, 7 * 4096 + 500).expect("there");
    assert!(matches!(open(&disk, 0), Err(LogError::Damaged { offset: 28672, .. })));
}

#[test]
fn rot_in_the_oldest_batch_is_refused() {
    let (disk, log) = with_entries(9);
    drop(log);
    disk.rot(FIRST, 500).expect("there");
    assert!(matches!(open(&disk, 0), Err(LogError::Damaged { offset: 0, .. })));
}

/// Eight entries a segment, four segments.
#[test]
fn rot_in_what_is_checkpointed_is_passed() {
    for (segment, at) in [(1, 500), (1, 7 * 4096), (2, 0), (2, 3 * 4096 + 8), (2, 7 * 4096 + 130)] {
        for trimmed in 0..=28 {
            let (disk, mut log) = with_entries(28);
            let state = HardState {
                term: Term(7),
                vote: 3,
                commit: LogIndex(20),
            };
            log.append(Some(state), &[]).expect("appends");
            drop(log);
            disk.rot(&format!("log/{segment:016x}.seg"), at).expect("there");
            let opened = open(&disk, trimmed);
            let behind = segment * 8;
            if trimmed < behind {
                assert!(matches!(opened.map(drop), Err(LogError::Damaged { .. })), "{trimmed}");
                continue;
            }
            let (mut log, found) = opened.expect("goes past it");
            assert!(found.passed.expect("said").contains(&format!("{segment:016x}.seg")));
            assert_eq!(
                (found.first, found.last, found.hard_state),
                (LogIndex(behind + 1), LogIndex(28), state)
            );
            go_round(&disk, &mut log, trimmed, 29);
        }
    }
}

/// The ring is used up and further, and opens as what it is after each step.
fn go_round(disk: &SimDisk, log: &mut Log<SimDisk>, trimmed: u64, next: u64) {
    log.trim(LogIndex(trimmed));
    for index in next..next + 40 {
        log.append(None, &[entry(index, 7, 1000)]).expect("there is room");
        let (again, found) = open(disk, index - 12).expect("opens");
        assert_eq!((found.last, found.torn), (LogIndex(index), None));
        let reader = again.reader();
        let first = LogIndex(index - 11).max(reader.first_index());
        let entries = reader.read(first, LogIndex(index + 1), usize::MAX).expect("reads");
        assert_eq!(entries.last(), Some(&entry(index, 7, 1000)));
        log.trim(LogIndex(index - 12));
    }
}

#[test]
fn rot_in_the_last_batch_is_cut_and_said_and_never_comes_back() {
    let (disk, log) = with_entries(5);
    drop(log);
    disk.rot(FIRST, 4 * 4096 + 500).expect("there");
    let (_, found) = open(&disk, 0).expect("opens");
    assert_eq!(found.last, LogIndex(4));
    assert!(found.torn.expect("said").contains("0000000000000001.seg offset 16384"));
    disk.rot(FIRST, 4 * 4096 + 500).expect("the bits flip back");
    let (mut log, found) = open(&disk, 0).expect("opens");
    assert_eq!((found.last, found.torn), (LogIndex(4), None));
    log.append(None, &[entry(5, 2, 10)]).expect("appends");
    drop(log);
    assert_eq!(open(&disk, 0).expect("opens").1.last_term, Term(2));
}

#[test]
fn losing_what_was_committed_or_checkpointed_is_refused() {
    let (disk, mut log) = with_entries(5);
    let state = HardState {
        term: Term(1),
        vote: 1,
        commit: LogIndex(5),
    };
    log.append(Some(state), &[]).expect("appends");
    log.append(None, &[entry(6, 1, 10)]).expect("appends");
    drop(log);
    assert!(matches!(
        open(&disk, 7),
        Err(LogError::Lost {
            last: LogIndex(6),
            needed: LogIndex(7)
        })
    ));
    assert_eq!(open(&disk, 0).expect("opens").1.hard_state, state);
}

#[test]
fn another_store_s_log_and_a_missing_segment_are_refused() {
    let (disk, log) = with_entries(9);
    drop(log);
    let other = Log::open(disk.clone(), [9; 16], LogIndex::ZERO);
    assert!(matches!(other, Err(LogError::OtherLog { .. })));
    assert!(matches!(
        Log::format_as(disk.clone(), SMALL, ID),
        Err(LogError::AlreadyFormatted)
    ));
    disk.remove(FIRST).expect("there");
    assert!(matches!(open(&disk, 0), Err(LogError::Damaged { .. })));
    assert!(matches!(open(&SimDisk::new(), 0), Err(LogError::NotFormatted)));
}

#[test]
fn a_full_log_says_so_and_goes_on_after_a_trim() {
    let (disk, mut log) = with_entries(32);
    assert_eq!((log.free_bytes(), log.used()), (0, SMALL.total_bytes()));
    assert!(matches!(log.append(None, &[entry(33, 1, 10)]), Err(LogError::Full)));
    log.trim(LogIndex(8));
    assert_eq!(log.free_bytes(), SMALL.segment_bytes);
    assert_eq!(
        log.reader().first_index(),
        LogIndex(1),
        "kept until the space is needed"
    );
    log.append(None, &[entry(33, 1, 10)]).expect("appends");
    let reader = log.reader();
    assert_eq!(
        (reader.first_index(), reader.term(LogIndex(8))),
        (LogIndex(9), Some(Term(1)))
    );
    let gone = reader.read(LogIndex(8), LogIndex(10), 100);
    assert!(matches!(
        gone,
        Err(LogError::Trimmed {
            index: LogIndex(8),
            first: LogIndex(9)
        })
    ));
    drop(log);
    assert!(
        matches!(open(&disk, 7), Err(LogError::Trimmed { .. })),
        "entry 8 would be missing"
    );
    let (log, found) = open(&disk, 8).expect("opens");
    assert_eq!((found.first, found.last), (LogIndex(9), LogIndex(33)));
    assert_eq!(log.reader().term(LogIndex(8)), Some(Term(1)));
}

#[test]
fn the_hard_state_outlives_the_segment_it_was_written_to() {
    let (disk, mut log) = new_log();
    let state = HardState {
        term: Term(7),
        vote: 2,
        commit: LogIndex::ZERO,
    };
    log.append(Some(state), &[]).expect("appends");
    for index in 1..200 {
        log.append(None, &[entry(index, 7, 3000)]).expect("appends");
        log.trim(LogIndex(index));
    }
    drop(log);
    assert_eq!(open(&disk, 199).expect("opens").1.hard_state, state);
}

#[test]
fn gaps_and_replacing_what_is_checkpointed_are_refused() {
    let (_, mut log) = with_entries(5);
    log.trim(LogIndex(3));
    assert!(matches!(
        log.append(None, &[entry(7, 1, 1)]),
        Err(LogError::OutOfOrder { .. })
    ));
    assert!(matches!(
        log.append(None, &[entry(3, 1, 1)]),
        Err(LogError::OutOfOrder { .. })
    ));
    assert!(matches!(
        log.append(None, &[entry(6, 1, 1), entry(8, 1, 1)]),
        Err(LogError::OutOfOrder { .. })
    ));
    assert!(matches!(
        log.append(None, &[entry(6, 1, 40_000)]),
        Err(LogError::TooBig { .. })
    ));
    let beyond = HardState {
        term: Term(1),
        vote: 0,
        commit: LogIndex(7),
    };
    assert!(matches!(
        log.append(Some(beyond), &[entry(6, 1, 1)]),
        Err(LogError::OutOfOrder { .. })
    ));
    log.append(None, &[entry(6, 1, 1)]).expect("still usable");
}

/// As after a copy. The first batch says behind which entry it goes on: without, nobody knows that entry's term.
#[test]
fn a_log_that_goes_on_behind_a_copy_is_refused_without_its_beginning() {
    const NEW: [u8; 16] = [8; 16];
    const BEFORE: LogIndex = LogIndex(1442);
    let (disk, log) = with_entries(9);
    drop(log);
    let state = HardState {
        term: Term(3),
        vote: 2,
        commit: BEFORE,
    };
    Log::begin_after(disk.clone(), NEW, (BEFORE, Term(2)), state).expect("begins anew");
    let (_, found) = Log::open(disk.clone(), NEW, BEFORE).expect("opens");
    assert_eq!((found.first, found.last), (BEFORE.next(), BEFORE));
    assert_eq!((found.last_term, found.hard_state), (Term(2), state));

    disk.rot(FIRST, 100).expect("there");
    let lost = Log::open(disk.clone(), NEW, BEFORE).map(drop);
    assert!(matches!(
        lost,
        Err(LogError::Lost {
            last: LogIndex(0),
            needed: BEFORE
        })
    ));
    disk.rot(FIRST, 100).expect("the bits flip back");

    let (mut log, _) = Log::open(disk.clone(), NEW, BEFORE).expect("opens");
    log.append(None, &[entry(1443, 3, 10)]).expect("appends");
    drop(log);
    let (_, found) = Log::open(disk, NEW, BEFORE).expect("opens");
    assert_eq!(
        (found.first, found.last, found.last_term),
        (LogIndex(1443), LogIndex(1443), Term(3))
    );
}

#[test]
fn reading_keeps_to_its_bounds_but_gives_at_least_one() {
    let (_, mut log) = new_log();
    let entries: Vec<_> = (1..=20).map(|index| entry(index, 1, 1000)).collect();
    log.append(None, &entries).expect("appends");
    let reader = log.reader();
    let read = |low, high, most| reader.read(LogIndex(low), LogIndex(high), most).expect("reads");
    assert_eq!(read(1, 21, 1 << 20), entries);
    assert_eq!(read(3, 18, 5000), entries[2..7]);
    assert_eq!(read(20, 21, 0), entries[19..]);
    assert_eq!(read(5, 5, 100), []);
    assert!(matches!(
        reader.read(LogIndex(20), LogIndex(22), 9),
        Err(LogError::Beyond { .. })
    ));
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let (disk, mut log) = with_entries(3);
    disk.fail_after(0);
    assert!(matches!(log.append(None, &[entry(4, 1, 1)]), Err(LogError::Io { .. })));
    assert!(matches!(log.append(None, &[entry(4, 1, 1)]), Err(LogError::Failed)));
}

/// The bytes of a segment's first two batches, as any later version must be able to read them.
#[test]
fn the_layout_on_disk_is_the_one_that_is_documented() {
    let (disk, mut log) = new_log();
    let state = HardState {
        term: Term(3),
        vote: 2,
        commit: LogIndex(1),
    };
    let small = |index, data: &'static [u8]| LogEntry {
        index: LogIndex(index),
        term: Term(3),
        kind: 1,
        data: Bytes::from_static(data),
    };
    log.append(Some(state), &[small(1, b"first"), small(2, b"")])
        .expect("appends");
    log.append(None, &[small(2, b"replaced")]).expect("appends");
    let mut bytes = vec![0; 3 * 4096];
    disk.open(FIRST, OpenHow::default())
        .expect("there")
        .read_at(&mut bytes, 0)
        .expect("reads");
    assert_eq!(dump(&bytes), include_str!("fixtures/log-segment-v1.txt"));
}

/// Hexadecimal lines of 16 bytes, those of zeros left out.
fn dump(bytes: &[u8]) -> String {
    let line = |(at, line): (usize, &[u8])| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:05x} {}\n", at * 16, hex.join(" "))
    };
    let lines = bytes
        .chunks(16)
        .enumerate()
        .filter(|(_, line)| line.iter().any(|byte| *byte != 0));
    lines.map(line).collect()
}

#[test]
fn without_room_for_more_segments_it_stays_as_it_was() {
    let (disk, mut log) = with_entries(3);
    let before = disk.list("log").expect("a folder");
    // For one of the two that are wanted.
    let space = disk.space().expect("a disk");
    disk.full(space.total - space.free + SMALL.segment_bytes + 4096);
    let error = log.grow(6 * SMALL.segment_bytes).expect_err("there is no room");
    assert!(matches!(error, LogError::Io { .. }), "{error}");
    assert_eq!(log.geometry(), SMALL);
    log.append(None, &[entry(4, 1, 1000)]).expect("goes on as before");
    assert_eq!(
        disk.list("log").expect("a folder").len(),
        before.len(),
        "nothing is left of it"
    );
    disk.full(u64::MAX);
    // In several steps.
    log.grow(14 * SMALL.segment_bytes + 1).expect("there is room");
    drop(log);
    let (log, found) = Log::open(disk, ID, LogIndex::ZERO).expect("opens");
    assert_eq!((log.geometry().segments, found.last), (14, LogIndex(4)));
}
