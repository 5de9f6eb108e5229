//! What a peer's entries make of a store: nothing in them ends the process, and the digest says what the store holds.

use super::records::{effects, inode};
use super::{Input, SMALL, of_a_store};
use crate::apply::{Applier, Committed, is_own};
use crate::digest;
use crate::disk::sim::SimDisk;
use crate::effects::{Effect, Entry};
use crate::key;
use crate::meta::sim::SimMeta;
use crate::open::{self, Opened};
use crate::types::{Ino, LogIndex, Term};
use bytes::Bytes;

const TERM: Term = Term(1);

/// Entries, each as long as the two bytes before it say.
pub fn apply(data: &[u8]) {
    let Opened { store, .. } = store();
    let mut applier = Applier::new(store.clone(), LogIndex::ZERO).expect("an empty store");
    let first = Entry {
        term: TERM,
        effects: first(),
    };
    let mut index = LogIndex(1);
    let commit = |index, data| Committed {
        index,
        term: TERM,
        data,
    };
    applier
        .apply(&[commit(index, first.encode())])
        .expect("what this software plans");
    let mut input = Input(data);
    let mut plain = true;
    while !input.is_empty() {
        let len = usize::from(input.u8()) | usize::from(input.u8()) << 8;
        let data = Bytes::copy_from_slice(input.bytes(len));
        index = index.next();
        if let Ok(entry) = Entry::decode(index, &data) {
            // Whoever plans checksums or what one replica alone keeps gets what it asked for; nobody does.
            plain &= !entry.effects.iter().any(writes_own_keys);
        }
        if applier.apply(&[commit(index, data)]).is_err() {
            return;
        }
    }
    if plain {
        assert_eq!(digest::verify(&store.meta).expect("the simulated store reads"), None);
    }
}

fn writes_own_keys(effect: &Effect) -> bool {
    match effect {
        Effect::Put { key, .. } | Effect::Delete { key } => is_own(key),
        _ => false,
    }
}

/// A file with bytes, a hole and bytes.
fn first() -> Vec<Effect> {
    let write = |offset, byte| Effect::Write {
        ino: Ino(2),
        offset,
        data: Bytes::from(vec![byte; 5000]),
    };
    let put = Effect::Put {
        key: key::inode(Ino(2)),
        value: inode().encode(),
    };
    vec![put, write(0, 1), write(20_000, 2)]
}

fn store() -> Opened<SimDisk, SimMeta> {
    let disk = SimDisk::new();
    open::format_as(&disk, &of_a_store(), SMALL).expect("formats");
    open::open(disk, SimMeta::new(), of_a_store()).expect("opens")
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let entry = |effects| {
        let data = Entry { term: TERM, effects }.encode();
        [&(data.len() as u16).to_le_bytes(), &data[..]].concat()
    };
    let each = effects().into_iter().map(|effect| entry(vec![effect]));
    vec![
        ("apply", entry(effects())),
        ("apply", each.collect::<Vec<_>>().concat()),
    ]
}
