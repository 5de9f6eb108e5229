//! The published checkpoint: everything up to its index is on stable storage outside the log, so redo starts
//! behind it and the log before it may go.
//!
//! Two slots are written in turn; a torn one is recognised by its checksum and the other one counts.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::StoreError;
use crate::meta::Meta;
use crate::store::Store;
use crate::types::{LogIndex, NUMBER_MAX};
use std::io::ErrorKind;

const SLOTS: [&str; 2] = ["checkpoint.a", "checkpoint.b"];
const MAGIC: &[u8; 8] = b"hf-chkpt";
const LEN: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    index: LogIndex,
}

impl Slot {
    fn encode(self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.index.0.to_le_bytes());
        let sum = blake3::hash(&out[..32]);
        out[32..].copy_from_slice(sum.as_bytes());
        out
    }

    fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        if &bytes[..8] != MAGIC || blake3::hash(&bytes[..32]).as_bytes() != &bytes[32..] {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (sequence, index) = (number(8), LogIndex(number(16)));
        (sequence.max(index.0) < NUMBER_MAX).then_some(Self { sequence, index })
    }
}

fn read_slot<D: Disk>(disk: &D, path: &str) -> Result<Option<Slot>, StoreError> {
    let file = match disk.open(path, OpenHow::default()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(StoreError::disk("opening", path))?,
    };
    let mut bytes = [0; LEN];
    let got = file.read_at(&mut bytes, 0).map_err(StoreError::disk("reading", path))?;
    Ok(if got == LEN { Slot::decode(&bytes) } else { None })
}

fn newest<D: Disk>(disk: &D) -> Result<Option<(usize, Slot)>, StoreError> {
    let mut found: Option<(usize, Slot)> = None;
    for (number, path) in SLOTS.iter().enumerate() {
        if let Some(slot) = read_slot(disk, path)?
            && found.is_none_or(|(_, best)| slot.sequence > best.sequence)
        {
            found = Some((number, slot));
        }
    }
    Ok(found)
}

/// The index published last; a store that was formatted has one.
pub(crate) fn published<D: Disk>(disk: &D) -> Result<LogIndex, StoreError> {
    match newest(disk)? {
        Some((_, slot)) => Ok(slot.index),
        None => Err(StoreError::Identity {
            path: "checkpoint.a, checkpoint.b".into(),
            why: "neither can be read, so it isn't known where redo begins: leave this node off, keep its store, and see `A new replica` in the runbook".into(),
        }),
    }
}

pub(crate) fn publish<D: Disk>(disk: &D, index: LogIndex) -> Result<(), StoreError> {
    let newest = newest(disk)?;
    let (number, sequence) = newest.map_or((0, 1), |(number, slot)| (1 - number, slot.sequence + 1));
    let path = SLOTS[number];
    let file = disk
        .open(
            path,
            OpenHow {
                create: true,
                direct: false,
            },
        )
        .map_err(StoreError::disk("opening", path))?;
    file.write_at(&Slot { sequence, index }.encode(), 0)
        .map_err(StoreError::disk("writing", path))?;
    file.sync_data().map_err(StoreError::disk("syncing", path))?;
    disk.sync_dir("")
        .map_err(StoreError::disk("syncing", "the store's folder"))
}

/// A slot's bytes with a checksum that holds, for fuzzing.
#[cfg(any(test, fuzzing))]
pub(crate) fn sealed(bytes: &[u8]) -> [u8; LEN] {
    let mut slot = [0; LEN];
    let len = bytes.len().min(24);
    slot[..len].copy_from_slice(&bytes[..len]);
    slot[..8].copy_from_slice(MAGIC);
    let sum = blake3::hash(&slot[..32]);
    slot[32..].copy_from_slice(sum.as_bytes());
    slot
}

/// The next number would be one that nobody gives out.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_at_an_end<D: Disk>(disk: &D) -> bool {
    let newest = newest(disk).expect("the disk reads");
    newest.is_some_and(|(_, slot)| slot.sequence.max(slot.index.0) + 1 >= NUMBER_MAX)
}

#[cfg(any(test, fuzzing))]
pub(crate) fn encoded(sequence: u64, index: LogIndex) -> [u8; LEN] {
    Slot { sequence, index }.encode()
}

/// Makes everything applied so far stable and publishes its index. Runs beside the apply thread; what is
/// applied meanwhile may or may not be included, which redo makes good.
///
/// After an error the process must end: the page cache can't be trusted after a failed sync.
pub fn run<D: Disk, M: Meta>(store: &Store<D, M>) -> Result<LogIndex, StoreError> {
    let index = store.applied();
    if index == store.checkpointed() {
        return Ok(index);
    }
    store.data.sync()?;
    store.meta.flush()?;
    // Crash here: redo starts at the older checkpoint and does again what is already stable.
    publish(store.data.disk(), index)?;
    store.set_checkpointed(index);
    Ok(index)
}
