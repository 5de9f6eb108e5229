//! Log entries: what is written is read back, garbage is refused, and the bytes of today stay readable.

use bytes::Bytes;
use holdfast_storage::effects::{CheckPart, Effect, Entry};
use holdfast_storage::types::{Ino, LogIndex, MAX_OFFSET, Term};
use proptest::collection::vec;
use proptest::prelude::*;

const INDEX: LogIndex = LogIndex(7);

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..50).prop_map(Bytes::from)
}

fn ino() -> impl Strategy<Value = Ino> {
    any::<u64>().prop_map(Ino)
}

/// With what `bytes` adds, within the largest file.
fn place() -> impl Strategy<Value = u64> {
    0..=MAX_OFFSET - 50
}

fn effect() -> impl Strategy<Value = Effect> {
    let part = prop_oneof![
        (bytes(), any::<u32>()).prop_map(|(from, limit)| CheckPart::Meta { from, limit }),
        (ino(), any::<u64>(), any::<u64>()).prop_map(|(ino, offset, len)| CheckPart::Data { ino, offset, len }),
    ];
    prop_oneof![
        (bytes(), bytes()).prop_map(|(key, value)| Effect::Put { key, value }),
        bytes().prop_map(|key| Effect::Delete { key }),
        (ino(), place(), bytes()).prop_map(|(ino, offset, data)| Effect::Write { ino, offset, data }),
        (ino(), place()).prop_map(|(ino, size)| Effect::Truncate { ino, size }),
        (ino(), place(), any::<u64>()).prop_map(|(ino, offset, len)| Effect::Zero {
            ino,
            offset,
            len: len % (MAX_OFFSET - offset + 1),
        }),
        ino().prop_map(|ino| Effect::Purge { ino }),
        (any::<u64>(), part).prop_map(|(id, part)| Effect::Check { id, part }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), vec(effect(), 0..8)).prop_map(|(term, effects)| Entry {
        term: Term(term),
        effects,
    })
}

proptest! {
    #[test]
    fn an_entry_is_read_back_as_it_was(entry in entry()) {
        prop_assert_eq!(Entry::decode(INDEX, &entry.encode()), Ok(entry));
    }

    #[test]
    fn a_cut_entry_is_refused_or_ends_between_two_effects(entry in entry(), at in any::<prop::sample::Index>()) {
        let whole = entry.encode();
        let cut = whole.slice(..at.index(whole.len()));
        match Entry::decode(INDEX, &cut) {
            Ok(shorter) => {
                prop_assert!(entry.effects.starts_with(&shorter.effects));
                prop_assert_eq!(shorter.encode(), cut);
            }
            Err(error) => prop_assert_eq!(error.index, INDEX),
        }
    }

    #[test]
    fn garbage_never_panics(garbage in vec(any::<u8>(), 0..200), version in prop::bool::weighted(0.9)) {
        let garbage = if version { [&[1], garbage.as_slice()].concat() } else { garbage };
        let garbage = Bytes::from(garbage);
        if let Ok(entry) = Entry::decode(INDEX, &garbage) {
            prop_assert_eq!(entry.encode(), garbage);
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(entry in entry(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut whole = entry.encode().to_vec();
        let at = at.index(whole.len());
        whole[at] ^= flip;
        let _ = Entry::decode(INDEX, &Bytes::from(whole));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// These bytes lie in logs: a change of them is a new version of the format.
#[test]
fn each_effect_has_the_bytes_that_it_had_on_the_first_day() {
    let (ino, offset) = (Ino(0x0102), 0x0304);
    let key = || Bytes::from_static(b"key");
    let golden = [
        (
            Effect::Put {
                key: key(),
                value: Bytes::from_static(b"v"),
            },
            "01030000006b65790100000076",
        ),
        (Effect::Delete { key: key() }, "02030000006b6579"),
        (
            Effect::Write {
                ino,
                offset,
                data: Bytes::from_static(b"data"),
            },
            "030201000000000000040300000000000004000000\
             64617461",
        ),
        (Effect::Truncate { ino, size: 5 }, "0402010000000000000500000000000000"),
        (
            Effect::Zero { ino, offset, len: 6 },
            "05020100000000000004030000000000000600000000000000",
        ),
        (Effect::Purge { ino }, "060201000000000000"),
        (
            Effect::Check {
                id: 8,
                part: CheckPart::Meta { from: key(), limit: 9 },
            },
            "07080000000000000001030000006b657909000000",
        ),
        (
            Effect::Check {
                id: 8,
                part: CheckPart::Data { ino, offset, len: 6 },
            },
            "07080000000000000002020100000000000004030000000000000600000000000000",
        ),
    ];
    for (effect, bytes) in golden {
        let entry = Entry {
            term: Term(0x0a0b),
            effects: vec![effect],
        };
        assert_eq!(hex(&entry.encode()), format!("010b0a000000000000{bytes}"), "{entry:?}");
    }
}

#[test]
fn an_unknown_version_or_effect_says_so() {
    let error = Entry::decode(INDEX, &Bytes::from_static(&[9; 9])).expect_err("version 9");
    assert_eq!(error.to_string(), "log entry 7: has version 9, this software reads 1");
    let error = Entry::decode(INDEX, &Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 99])).expect_err("effect 99");
    assert!(error.to_string().contains("unknown kind 99"), "{error}");
}

/// Apply rounds to blocks without looking for an overflow.
#[test]
fn what_reaches_beyond_the_largest_file_is_refused() {
    let data = Bytes::from_static(b"12");
    let (ino, offset) = (Ino(2), MAX_OFFSET - 1);
    for effect in [
        Effect::Write { ino, offset, data },
        Effect::Truncate {
            ino,
            size: MAX_OFFSET + 1,
        },
        Effect::Zero { ino, offset, len: 2 },
        Effect::Zero {
            ino,
            offset: 1,
            len: u64::MAX,
        },
    ] {
        let entry = Entry {
            term: Term(1),
            effects: vec![effect],
        };
        let why = Entry::decode(INDEX, &entry.encode()).unwrap_err().to_string();
        assert!(why.contains("where no file reaches"), "{why}");
    }
}
