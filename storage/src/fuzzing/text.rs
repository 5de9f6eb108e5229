//! Small files in the store's folder: identity, checkpoint, marks.

use super::put;
use crate::checkpoint;
use crate::copy::mark;
use crate::disk::sim::SimDisk;
use crate::identity::Identity;
use crate::log::HardState;
use crate::open;
use crate::recover::{self, Rest};
use crate::types::{LogIndex, Term};

/// As it is, and once more with a checksum that holds: what lies behind it must bear anything, too.
fn identity_text(text: &str) {
    if let Ok(read) = Identity::decode(text) {
        assert_eq!(Identity::decode(&read.encode()), Ok(read));
    }
}

fn identity_file(data: &[u8]) {
    let disk = SimDisk::new();
    put(&disk, "identity", data);
    if let Ok(read) = Identity::read(&disk) {
        assert!(read.is_some_and(|read| read.must_be(&read.cluster, &read.node).is_ok()));
    }
}

pub fn identity(data: &[u8]) {
    identity_file(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    identity_text(text);
    let body = text.rsplit_once("blake3 ").map_or(text, |(body, _)| body);
    identity_text(&format!("{body}blake3 {}\n", blake3::hash(body.as_bytes()).to_hex()));
}

/// Two slots. Whatever stands there, publishing once more leads to what was published.
pub fn checkpoint(data: &[u8]) {
    let (a, b) = data.split_at(data.len() / 2);
    for sealed in [false, true] {
        let disk = SimDisk::new();
        for (path, bytes) in [("checkpoint.a", a), ("checkpoint.b", b)] {
            put(&disk, path, bytes);
            if sealed {
                put(&disk, path, &checkpoint::sealed(bytes));
            }
        }
        if checkpoint::is_at_an_end(&disk) {
            continue;
        }
        let before = checkpoint::published(&disk);
        let next = before.map_or(LogIndex(1), LogIndex::next);
        checkpoint::publish(&disk, next).expect("the disk takes it");
        assert_eq!(checkpoint::published(&disk).expect("just published"), next);
    }
}

/// What is left of an interrupted recovery, the mark of a copy, the mark of a clean stop.
pub fn marks(data: &[u8]) {
    let disk = SimDisk::new();
    for path in ["copying", "recovering.rest", "clean-stop"] {
        put(&disk, path, data);
    }
    if let Ok(voted) = mark::read(&disk) {
        mark::write(&disk, voted).expect("the disk takes it");
        assert_eq!(mark::read(&disk).expect("just written"), voted);
    }
    let is_under_way = recover::is_under_way(&disk);
    // As much as is read of it.
    let text = std::str::from_utf8(&data[..data.len().min(256)]).ok();
    if let Some(rest) = text.and_then(Rest::decode) {
        assert_eq!(Rest::decode(&rest.encode()), Some(rest));
    } else {
        assert!(is_under_way.is_err());
    }
    if let Ok(Some(last)) = open::read_clean(&disk) {
        open::mark_clean(&disk, last).expect("the disk takes it");
        assert_eq!(open::read_clean(&disk).expect("just written"), Some(last));
    }
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let copied = Identity {
        joined: LogIndex(4711),
        ..super::of_a_store()
    };
    let rest = Rest {
        last: LogIndex(90),
        last_term: Term(3),
        state: HardState {
            term: Term(4),
            vote: 2,
            commit: LogIndex(90),
        },
        store: [9; 16],
        epoch: 7,
    };
    let slots = [
        checkpoint::encoded(8, LogIndex(40)),
        checkpoint::encoded(9, LogIndex(42)),
    ];
    vec![
        ("identity", super::of_a_store().encode().into_bytes()),
        ("identity", copied.encode().into_bytes()),
        ("checkpoint", slots.concat()),
        ("marks", rest.encode().into_bytes()),
        ("marks", b"7 3\n".to_vec()),
        ("marks", b"4711\n".to_vec()),
    ]
}
