//! What takes part in mending: a peer gives bytes only if they are exactly those that were asked for, and the node that
//! lacks them puts them in place (`Applier::mend_blocks`, `mend_keys`) only where they surely belong.

use crate::data::sums::{self, Sum};
use crate::disk::Disk;
use crate::disk::aligned::AlignedBuf;
use crate::effects::{Effect, Entry};
use crate::error::StoreError;
use crate::log::LogReader;
use crate::meta::Meta;
use crate::store::Store;
use crate::types::{BLOCK, Ino, LogIndex};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// How a block stands on the disk, as the apply thread sees it: nothing is under way then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no bytes, or they fit their checksum.
    Sound,
    /// Its bytes don't fit this checksum, or can't be read.
    Rotten(Sum),
    /// It was found rotten while a part of it was overwritten: what it should be only the others know.
    Damaged,
    /// What was done before a stop or a copy is still being done again.
    Redoing,
}

/// A block that others hold and this replica doesn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub ino: Ino,
    pub number: u64,
    /// What it should be: what this replica itself has as its checksum, or what the others had.
    pub is: Sum,
    /// Empty for a hole.
    pub data: Bytes,
    /// Only one other has it so: enough for what isn't known here any more, and for nothing else.
    pub by_one: bool,
}

/// A key of the metadata that others have otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub key: Bytes,
    /// None: it is to have none.
    pub value: Option<Bytes>,
}

/// What entries of the log have changed since the replicas were compared: what the others had then isn't right there any more.
#[derive(Debug, Default)]
pub struct Since {
    /// Nobody knows what: anything may have been.
    anything: bool,
    keys: BTreeSet<Bytes>,
    /// Ranges of bytes.
    data: BTreeMap<Ino, Vec<Range<u64>>>,
}

/// Entries that are looked through for changes, and their bytes, at most: an answer that is older than that is asked for again.
const LATER_ENTRIES: u64 = 1 << 15;
const LATER_BYTES: usize = 64 << 20;
const STEP_BYTES: usize = 4 << 20;

impl Since {
    /// Of bytes that were asked for by the checksum that stood here then: they belong here only as long as it still does.
    pub fn anything() -> Self {
        Self {
            anything: true,
            ..Self::default()
        }
    }

    /// What this replica has applied after `as_of`. None: that is too much, or its log doesn't reach back to there.
    pub fn read<D: Disk>(log: &LogReader<D>, as_of: LogIndex, applied: LogIndex) -> Result<Option<Self>, StoreError> {
        let mut since = Self::default();
        let (mut at, mut bytes) = (as_of, 0);
        // A number of a peer's: what isn't applied here yet can't have been compared here.
        if as_of > applied {
            return Ok(None);
        }
        if applied.0 - as_of.0 > LATER_ENTRIES || (as_of < applied && log.first_index() > as_of.next()) {
            return Ok(None);
        }
        while at < applied {
            let entries = log.read(at.next(), applied.next(), STEP_BYTES)?;
            let Some(last) = entries.last().map(|entry| entry.index) else {
                return Ok(None);
            };
            at = last;
            for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
                bytes += entry.data.len();
                Entry::decode(entry.index, &entry.data)?
                    .effects
                    .iter()
                    .for_each(|effect| since.note(effect));
            }
            if bytes > LATER_BYTES {
                return Ok(None);
            }
        }
        Ok(Some(since))
    }

    fn note(&mut self, effect: &Effect) {
        let (ino, range) = match effect {
            Effect::Put { key, .. } | Effect::Delete { key } => {
                self.keys.insert(key.clone());
                return;
            }
            Effect::Write { ino, offset, data } => (ino, *offset..offset.saturating_add(data.len() as u64)),
            Effect::Zero { ino, offset, len } => (ino, *offset..offset.saturating_add(*len)),
            Effect::Truncate { ino, size } => (ino, *size..u64::MAX),
            Effect::Purge { ino } => (ino, 0..u64::MAX),
            Effect::Check { .. } => return,
        };
        self.data.entry(*ino).or_default().push(range);
    }

    pub(crate) fn has_key(&self, key: &[u8]) -> bool {
        self.anything || self.keys.contains(key)
    }

    pub(crate) fn has_block(&self, ino: Ino, number: u64) -> bool {
        let (from, to) = (number * BLOCK, (number + 1) * BLOCK);
        let ranges = self.data.get(&ino).map(Vec::as_slice).unwrap_or_default();
        self.anything || ranges.iter().any(|range| range.start < to && range.end > from)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    Done,
    /// Nothing was wrong any more.
    Sound,
    /// It was changed since, or isn't in order yet: to be looked at again.
    Changed,
    /// The disk didn't take it, or gave back something else.
    DoesNotHold,
}

/// Of a key's value.
pub fn hash_of(value: &[u8]) -> Sum {
    blake3::hash(value).as_bytes()[..16]
        .try_into()
        .expect("a hash is longer")
}

/// Those very bytes, if they are here.
pub fn block<D: Disk, M: Meta>(
    store: &Store<D, M>,
    ino: Ino,
    number: u64,
    sum: Sum,
) -> Result<Option<Bytes>, StoreError> {
    let mut buffer = AlignedBuf::zeroed(BLOCK as usize);
    store.data.read_from_disk(ino, &mut buffer, number * BLOCK)?;
    Ok((sums::of(&buffer) == sum).then(|| Bytes::copy_from_slice(&buffer)))
}

/// That very value, if it is here.
pub fn value<D: Disk, M: Meta>(store: &Store<D, M>, key: &[u8], hash: Sum) -> Result<Option<Bytes>, StoreError> {
    Ok(store.meta.get(key)?.filter(|value| hash_of(value) == hash))
}
