//! What three peers say to one question.

use super::compare::{Answers, blocks, digests, is_mended, keys};
use bytes::Bytes;
use holdfast_storage::check::Found;
use holdfast_storage::data::sums::{DAMAGED, HOLE, Sum};

/// Answers as the replicator has understood them: of each node a byte a block and a byte a key, each behind their number.
pub(in super::super) fn compare(data: &[u8]) {
    let mut answers = Answers::new();
    let mut bytes = data.iter().copied();
    for node in ["n1", "n2", "n3"] {
        let Some(blocks) = bytes.next() else { break };
        if blocks == u8::MAX {
            answers.insert(node.to_owned(), Err("it doesn't answer".into()));
            continue;
        }
        let sums: Vec<Sum> = bytes.by_ref().take(blocks.into()).map(sum).collect();
        let count = bytes.next().unwrap_or(0);
        let keys = bytes.by_ref().take(count.into());
        let keys = keys.map(|byte| (Bytes::from(vec![byte / 4]), [byte; 16])).collect();
        let next = bytes.next().filter(|byte| *byte != 0);
        let found = Found {
            hash: sums.as_flattened().to_vec(),
            next: next.map_or_else(Bytes::new, |byte| vec![byte].into()),
            keys,
            sums,
            ..Found::default()
        };
        answers.insert(node.to_owned(), Ok(found));
    }
    for difference in blocks(&answers) {
        assert!(difference.views.len() >= difference.damaged().len());
        assert_eq!(difference.groups().concat().len(), difference.views.len());
        if let Some(odd) = difference.odd_one_out() {
            assert!(difference.right().is_some_and(|(_, right)| !right.contains(&odd)));
        }
        assert!(!is_mended(&difference, &answers, &blocks(&answers)));
    }
    let (different, end) = keys(&answers);
    for difference in different {
        assert!(end.as_ref().is_none_or(|end| difference.place < *end));
    }
    drop(digests(&answers));
}

fn sum(byte: u8) -> Sum {
    match byte {
        0 => HOLE,
        1 => DAMAGED,
        other => [other; 16],
    }
}

pub(in super::super) fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![3, 5, 0, 7, 1, 8, 0, 3, 5, 1, 7, 1, 8, 0, 3, 5, 0, 9, 2, 8, 12, 16],
        vec![1, 5, 0, 0, 1, 6, 0, 0, 255],
    ]
}
