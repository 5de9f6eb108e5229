//! What a key costs to read that nobody has in memory, when there are many.

use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::meta::{Change, Meta as _};

/// As many as 700,000 files have.
const KEYS: u64 = 2_000_000;
const READS: u64 = 2000;

fn key(number: u64) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What this thread has read through system calls, from caches of the kernel or not.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_key_among_many_is_found_by_reading_some_blocks_and_no_whole_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = Rocks::create(folder.path()).unwrap();
    for from in (0..KEYS).step_by(1000) {
        let put = |number| Change::Put(key(number), bytes::Bytes::from(vec![number as u8; 40]));
        store.write((from..from + 1000).map(put).collect()).unwrap();
    }
    store.flush().unwrap();
    drop(store);
    let store = Rocks::open(folder.path()).unwrap();
    let before = bytes_read();
    for read in 0..READS {
        // Keys are hashes: any stride is as good as chance.
        let number = read * 7919 % KEYS;
        assert_eq!(store.get(&key(number)).unwrap().unwrap()[..], [number as u8; 40]);
    }
    let each = (bytes_read() - before) / READS;
    assert!(each < 32 << 10, "{each} bytes read for a key");
}
