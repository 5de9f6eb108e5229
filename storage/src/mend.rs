//! What takes part in mending: a peer gives bytes only if they are exactly those that were asked for, and the node that
//! lacks them puts them in place (`Applier::mend`) only where they surely belong.

use crate::data::sums::{self, Sum};
use crate::disk::Disk;
use crate::disk::aligned::AlignedBuf;
use crate::error::StoreError;
use crate::meta::Meta;
use crate::store::Store;
use crate::types::{BLOCK, Ino, LogIndex};
use bytes::Bytes;

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
    /// What this replica said of it at `as_of`, and what it should have said; equal if it just doesn't fit its checksum.
    pub was: Sum,
    pub is: Sum,
    pub as_of: LogIndex,
    /// Empty for zeros.
    pub data: Bytes,
}

/// A key of the metadata that others have otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub key: Bytes,
    /// Hash of this replica's value; none: it had no such key.
    pub was: Option<Sum>,
    /// None: it is to have none.
    pub value: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    Done,
    /// Nothing was wrong any more.
    Sound,
    /// It was changed since, or isn't in order yet: to be looked at again.
    Changed,
    /// Written, and read back as something else.
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
