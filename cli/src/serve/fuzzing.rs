//! Doors of the daemon for `crate::fuzzing`: answers of peers to checks, copies and mending, and the scrub's own file.

use super::check::fuzzing::compare;
use super::copy::fuzzing::blocks;
use super::repair::fuzzing::{record, requests};
use holdfast_proto::{copy, repair};
use prost::Message as _;

/// Each is refused or made sense of, whichever question it is the answer to.
pub fn answers(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind {
        0 => compare(data),
        1 => blocks(data),
        _ => requests(data),
    }
}

pub fn scrub_record(data: &[u8]) {
    record(data);
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |kind: u8, bytes: &[u8]| ("answers", [&[kind], bytes].concat());
    let blocks = copy::BlocksAnswer {
        ino: 2,
        first: 0,
        sums: vec![0; 32].into(),
        data: bytes::Bytes::new(),
    };
    let mend = repair::MendRequest {
        as_of: 9,
        blocks: vec![repair::BlockChange {
            ino: 2,
            number: 1,
            damaged: true,
            is: vec![1; 16].into(),
            from: vec!["n2".into()],
        }],
        term: 5,
        ..repair::MendRequest::default()
    };
    let record = br#"{"began_unix_ms":5,"ended_unix_ms":3,"next":"6200","keys":7,"bytes":4096,"found":1,"mended":1}"#;
    let mut all = vec![
        of(1, &blocks.encode_to_vec()),
        of(2, &mend.encode_to_vec()),
        ("scrub_record", record.to_vec()),
    ];
    all.extend(super::check::fuzzing::seeds().iter().map(|seed| of(0, seed)));
    all
}
