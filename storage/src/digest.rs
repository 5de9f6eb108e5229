//! One number for all metadata and all checksums of a replica: the sum of a hash of each key with its value. It is kept
//! up with each batch, whatever entries that joins, so replicas that have applied the same have the same number.
//!
//! It says what was applied. Whether that is what the store still holds only reading it all can tell (`verify`).

use crate::apply::stored_index;
use crate::copy::is_copied;
use crate::error::StoreError;
use crate::meta::{Change, Meta};
use crate::types::LogIndex;
use bytes::Bytes;

/// This replica's own key for it; it changes in one batch with what it stands for.
const KEY: &[u8] = b"z digest";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u128);

fn term(key: &[u8], value: &[u8]) -> u128 {
    let mut hash = blake3::Hasher::new();
    crate::copy::hash_pair(&mut hash, key, value);
    u128::from_le_bytes(hash.finalize().as_bytes()[..16].try_into().expect("a hash is longer"))
}

impl Digest {
    /// As stored; reckoned from all keys where there is none: after a copy, or if software that keeps none was here since.
    pub(crate) fn load(meta: &impl Meta) -> Result<Self, StoreError> {
        let value = meta.get(KEY)?;
        match value.and_then(|value| decode(&value)) {
            Some((digest, applied)) if applied == stored_index(meta)? => Ok(digest),
            _ => Ok(read_all(meta)?.0),
        }
    }

    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(term(key, value));
    }

    pub(crate) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(term(key, value));
    }

    /// The same difference as from one to the other.
    pub(crate) fn correct(&mut self, wrong: Self, right: Self) {
        self.0 = self.0.wrapping_sub(wrong.0).wrapping_add(right.0);
    }

    /// One key as the store has it becomes another value, or none.
    pub(crate) fn replace(&mut self, meta: &impl Meta, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        if let Some(old) = meta.get(key)? {
            self.remove(key, &old);
        }
        if let Some(value) = value {
            self.add(key, value);
        }
        Ok(())
    }

    /// In one batch with all up to this entry.
    pub(crate) fn change(self, applied: LogIndex) -> Change {
        let mut value = self.bytes().to_vec();
        value.extend(applied.0.to_le_bytes());
        Change::Put(Bytes::from_static(KEY), value.into())
    }

    pub fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// It doesn't hold any more: keys are about to change without it.
pub(crate) fn forget() -> Change {
    Change::Delete(Bytes::from_static(KEY))
}

pub(crate) fn decode(value: &[u8]) -> Option<(Digest, LogIndex)> {
    let (digest, applied) = value.split_at_checked(16)?;
    let digest = Digest(u128::from_le_bytes(digest.try_into().ok()?));
    Some((digest, LogIndex(u64::from_le_bytes(applied.try_into().ok()?))))
}

pub(crate) fn stored(meta: &impl Meta) -> Result<Option<Digest>, StoreError> {
    Ok(meta
        .get(KEY)?
        .and_then(|value| decode(&value))
        .map(|(digest, _)| digest))
}

/// What all keys come to, and what is stored for that: of one moment, for one scan is.
fn read_all(meta: &impl Meta) -> Result<(Digest, Option<Digest>), StoreError> {
    let (mut all, mut kept) = (Digest::default(), None);
    meta.scan(b"", b"", &mut |key, value| {
        if is_copied(key) {
            all.add(key, value);
        } else if key == KEY {
            kept = decode(value).map(|(digest, _)| digest);
        }
        true
    })?;
    Ok((all, kept))
}

/// What a store holds, where that isn't what was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub(crate) kept: Digest,
    pub(crate) holds: Digest,
}

/// Reads all metadata.
pub fn verify(meta: &impl Meta) -> Result<Option<Mismatch>, StoreError> {
    let (holds, kept) = read_all(meta)?;
    // None: nothing was applied since it was begun to be kept.
    Ok(kept.filter(|kept| *kept != holds).map(|kept| Mismatch { kept, holds }))
}
