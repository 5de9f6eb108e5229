//! Checksums of 4 KiB blocks: the first 16 bytes of each block's blake3, 128 of them to a key.

use crate::digest::Digest;
use crate::error::StoreError;
use crate::key;
use crate::meta::{Change, Meta};
use crate::types::{BLOCK, Ino, MAX_OFFSET};
use bytes::Bytes;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Blocks whose checksums share a key.
pub const GROUP: u64 = 128;
/// Of the last group that a file can have.
pub(crate) const GROUP_MAX: u64 = MAX_OFFSET / BLOCK / GROUP;
const LEN: usize = 16;

pub type Sum = [u8; LEN];

/// A block without a checksum is a hole: it reads as zeros, and the disk isn't asked.
pub const HOLE: Sum = [0; LEN];

/// A block found rotten while part of it was overwritten: it must not get a checksum that makes it look
/// sound, so it gets one that nothing has. Reads fail until a peer's bytes mend it.
pub const DAMAGED: Sum = [0xff; LEN];

/// Of a whole block, zeros after the file's end included.
pub fn of(block: &[u8]) -> Sum {
    debug_assert_eq!(block.len() as u64, BLOCK);
    blake3::hash(block).as_bytes()[..LEN]
        .try_into()
        .expect("a hash is longer")
}

/// The checksums of one group.
#[derive(Clone)]
pub(crate) struct Group(pub(crate) Box<[Sum; GROUP as usize]>);

impl Group {
    pub(crate) fn empty() -> Self {
        Self(Box::new([HOLE; GROUP as usize]))
    }

    pub(crate) fn decode(value: &[u8]) -> Self {
        let mut decoded = Self::empty();
        for (sum, stored) in decoded.0.iter_mut().zip(value.chunks_exact(LEN)) {
            sum.copy_from_slice(stored);
        }
        decoded
    }

    pub(crate) fn load(meta: &impl Meta, ino: Ino, group: u64) -> Result<Self, StoreError> {
        let value = meta.get(&key::sums(ino, group))?;
        Ok(value.map_or_else(Self::empty, |value| Self::decode(&value)))
    }

    /// This group, as it is to be stored.
    pub(crate) fn change(&self, ino: Ino, group: u64) -> Change {
        let key = key::sums(ino, group);
        match self.encode() {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        }
    }

    /// Only up to the last block that has one.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        let used = self.0.iter().rposition(|sum| *sum != HOLE)? + 1;
        Some(Bytes::copy_from_slice(self.0[..used].as_flattened()))
    }
}

/// Checksum of each block of a range, as stored.
pub fn read(meta: &impl Meta, ino: Ino, blocks: Range<u64>) -> Result<Vec<Sum>, StoreError> {
    let mut sums = Vec::with_capacity((blocks.end - blocks.start) as usize);
    let mut block = blocks.start;
    while block < blocks.end {
        let value = meta.get(&key::sums(ino, block / GROUP))?.unwrap_or_default();
        let group_end = (block / GROUP + 1) * GROUP;
        while block < blocks.end.min(group_end) {
            let at = (block % GROUP) as usize * LEN;
            sums.push(
                value
                    .get(at..at + LEN)
                    .map_or(HOLE, |sum| sum.try_into().expect("16 bytes")),
            );
            block += 1;
        }
    }
    Ok(sums)
}

/// The next block from `block` on that isn't a hole, as stored.
pub fn next(meta: &impl Meta, ino: Ino, block: u64) -> Result<Option<u64>, StoreError> {
    let mut found = None;
    let prefix = &key::sums(ino, 0)[..9];
    meta.scan(prefix, &key::sums(ino, block / GROUP), &mut |key, value| {
        let first = key::tail_number(key).unwrap_or(0) * GROUP;
        let used = value
            .chunks_exact(LEN)
            .zip(first..)
            .find(|(sum, number)| *sum != HOLE && *number >= block);
        found = used.map(|(_, number)| number);
        found.is_none()
    })?;
    Ok(found)
}

struct Kept {
    group: Group,
    /// As the metadata store has it, or will when what this batch deletes is gone.
    stored: Option<Bytes>,
}

/// The apply thread's working copy; only it changes checksums.
#[derive(Default)]
pub struct Working {
    groups: BTreeMap<(Ino, u64), Kept>,
    dirty: BTreeSet<(Ino, u64)>,
    /// Groups that this batch deletes: the metadata store still shows them until the batch is written.
    deleted: Vec<(Ino, Range<u64>)>,
}

/// Groups kept between batches: 2 KiB each.
const KEPT: usize = 4096;

impl Working {
    fn group(&mut self, meta: &impl Meta, ino: Ino, group: u64) -> Result<&mut Group, StoreError> {
        match self.groups.entry((ino, group)) {
            Entry::Occupied(known) => Ok(&mut known.into_mut().group),
            Entry::Vacant(empty) => {
                let deleted = self
                    .deleted
                    .iter()
                    .any(|(of, groups)| *of == ino && groups.contains(&group));
                let stored = if deleted {
                    None
                } else {
                    meta.get(&key::sums(ino, group))?
                };
                let known = stored.as_ref().map_or_else(Group::empty, |value| Group::decode(value));
                let kept = Kept { group: known, stored };
                Ok(&mut empty.insert(kept).group)
            }
        }
    }

    pub fn get(&mut self, meta: &impl Meta, ino: Ino, block: u64) -> Result<Sum, StoreError> {
        Ok(self.group(meta, ino, block / GROUP)?.0[(block % GROUP) as usize])
    }

    pub fn set(&mut self, meta: &impl Meta, ino: Ino, block: u64, sum: Sum) -> Result<(), StoreError> {
        self.group(meta, ino, block / GROUP)?.0[(block % GROUP) as usize] = sum;
        self.dirty.insert((ino, block / GROUP));
        Ok(())
    }

    /// The blocks of a range become holes; `changes` gets the groups that go as a whole.
    pub fn clear(
        &mut self,
        meta: &impl Meta,
        ino: Ino,
        blocks: Range<u64>,
        changes: &mut Vec<Change>,
        digest: &mut Digest,
    ) -> Result<(), StoreError> {
        let whole = blocks.start.div_ceil(GROUP)..blocks.end / GROUP;
        if whole.start >= whole.end {
            return blocks
                .into_iter()
                .try_for_each(|block| self.set(meta, ino, block, HOLE));
        }
        self.delete(meta, ino, whole.clone(), changes, digest)?;
        let before = blocks.start..whole.start * GROUP;
        let after = whole.end * GROUP..blocks.end;
        before
            .chain(after)
            .try_for_each(|block| self.set(meta, ino, block, HOLE))
    }

    /// All blocks from `block` on become holes.
    pub fn cut(
        &mut self,
        meta: &impl Meta,
        ino: Ino,
        block: u64,
        changes: &mut Vec<Change>,
        digest: &mut Digest,
    ) -> Result<(), StoreError> {
        let end = (block / GROUP + 1) * GROUP;
        if !block.is_multiple_of(GROUP) {
            (block..end).try_for_each(|block| self.set(meta, ino, block, HOLE))?;
        }
        self.delete(meta, ino, block.div_ceil(GROUP)..u64::MAX, changes, digest)
    }

    /// The inode is gone.
    pub fn purge(
        &mut self,
        meta: &impl Meta,
        ino: Ino,
        changes: &mut Vec<Change>,
        digest: &mut Digest,
    ) -> Result<(), StoreError> {
        self.delete(meta, ino, 0..u64::MAX, changes, digest)
    }

    fn delete(
        &mut self,
        meta: &impl Meta,
        ino: Ino,
        groups: Range<u64>,
        changes: &mut Vec<Change>,
        digest: &mut Digest,
    ) -> Result<(), StoreError> {
        let before = |group: u64| {
            let mut deleted = self.deleted.iter();
            deleted.any(|(of, groups)| *of == ino && groups.contains(&group))
        };
        let (first, end) = (key::sums(ino, groups.start), key::sums(ino, groups.end));
        meta.scan(&first[..9], &first, &mut |key, value| {
            if key >= &end[..] {
                return false;
            }
            if !key::tail_number(key).is_some_and(before) {
                digest.remove(key, value);
            }
            true
        })?;
        let range = (ino, groups.start)..(ino, groups.end);
        let known: Vec<_> = self.groups.range(range).map(|(at, _)| *at).collect();
        for at in known {
            self.groups.remove(&at);
            self.dirty.remove(&at);
        }
        changes.push(Change::DeleteRange(first, end));
        self.deleted.push((ino, groups));
        Ok(())
    }

    /// Adds what changed since the last call, to be written in the same batch as the entries that caused it.
    pub fn flush(&mut self, changes: &mut Vec<Change>, digest: &mut Digest) {
        for at in std::mem::take(&mut self.dirty) {
            let Some(kept) = self.groups.get_mut(&at) else {
                continue;
            };
            let key = key::sums(at.0, at.1);
            if let Some(old) = &kept.stored {
                digest.remove(&key, old);
            }
            kept.stored = kept.group.encode();
            changes.push(match &kept.stored {
                Some(value) => {
                    digest.add(&key, value);
                    Change::Put(key, value.clone())
                }
                None => Change::Delete(key),
            });
        }
        self.deleted.clear();
        if self.groups.len() > KEPT {
            self.groups.clear();
        }
    }
}
