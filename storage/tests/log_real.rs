//! The log on the machine's own disk.

use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::log::{HardState, Log, LogEntry, LogError};
use holdfast_storage::types::{LogIndex, Term};

const ID: [u8; 16] = [0x1d; 16];

fn entry(index: u64, size: usize) -> LogEntry {
    let data = index.to_le_bytes().into_iter().cycle().take(size).collect();
    LogEntry {
        index: LogIndex(index),
        term: Term(index / 10),
        kind: 0,
        data,
    }
}

#[test]
fn entries_of_all_sizes_go_round_the_ring_and_are_read_back() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let disk = RealDisk::open(folder.path()).expect("opens");
    Log::format(disk.clone(), 16 << 20, ID).expect("formats");
    let (mut log, _) = Log::open(disk.clone(), ID, LogIndex::ZERO).expect("opens");
    let sizes = [0, 1, 4000, 4096, 100_000, 1_200_000];
    let size = |index: u64| sizes[index as usize % sizes.len()];
    let mut next = 1;
    while next < 130 {
        let entries: Vec<_> = (next..next + 7).map(|index| entry(index, size(index))).collect();
        let state = HardState {
            term: Term(next / 10),
            vote: 1,
            commit: LogIndex(next - 1),
        };
        let synced = match log.append(Some(state), &entries) {
            Err(LogError::Full) => {
                log.trim(LogIndex(next - 1));
                log.append(Some(state), &entries)
            }
            done => done,
        };
        assert_eq!(synced.expect("appends").index(), LogIndex(next + 6));
        next += 7;
    }
    drop(log);
    let (log, found) = Log::open(disk, ID, LogIndex(next - 8)).expect("opens");
    assert_eq!((found.last, found.torn), (LogIndex(next - 1), None));
    assert!(found.first > LogIndex(1), "the ring went round");
    let reader = log.reader();
    let mut at = found.first;
    while at <= found.last {
        let entries = reader.clone().read(at, found.last.next(), 1 << 20).expect("reads");
        for read in entries {
            assert_eq!(read, entry(at.0, size(at.0)));
            at = at.next();
        }
    }
}

#[test]
fn readers_on_other_threads_see_right_entries_or_trimmed() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let disk = RealDisk::open(folder.path()).expect("opens");
    Log::format(disk.clone(), 16 << 20, ID).expect("formats");
    let (mut log, _) = Log::open(disk, ID, LogIndex::ZERO).expect("opens");
    let reader = log.reader();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (low, high) = (reader.first_index(), reader.last_index().next());
                match reader.clone().read(low, high, 1 << 20) {
                    Ok(entries) => {
                        let right = entries.iter().all(|read| *read == entry(read.index.0, 100_000));
                        assert!(right, "a wrong entry at or after {low}");
                    }
                    Err(LogError::Trimmed { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        for index in 1..600 {
            log.append(None, &[entry(index, 100_000)]).expect("appends");
            log.trim(LogIndex(index));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
