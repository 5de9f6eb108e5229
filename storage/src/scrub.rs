//! Reads everything that a replica has stored, beside all that it does, and finds what doesn't fit its checksum. It only
//! suspects: what is just being applied looks the same, and only the apply thread can tell (`Applier::look`).

use crate::data::sums::{self, GROUP, GROUP_MAX, Sum};
use crate::disk::Disk;
use crate::disk::aligned::AlignedBuf;
use crate::error::StoreError;
use crate::key;
use crate::meta::Meta;
use crate::record::Inode;
use crate::store::Store;
use crate::types::{BLOCK, Ino};
use bytes::Bytes;
use std::ops::Range;

/// Keys looked at in one step, and groups of blocks.
const KEYS: u64 = 4096;
const GROUPS: usize = 8;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Where the next step begins; none: this was the last.
    pub next: Option<Bytes>,
    pub keys: u64,
    /// Read from data files.
    pub bytes: u64,
    pub suspects: Vec<(Ino, u64)>,
    /// Marked as damaged before: there is nothing to compare with.
    pub damaged: Vec<(Ino, u64)>,
    /// Whose attributes can't be read.
    pub unreadable: Vec<Ino>,
}

/// Some of the keys from `from` on, and the blocks whose checksums are among them. The metadata store verifies its own
/// checksums as it reads; its error is this one's.
pub fn step<D: Disk, M: Meta>(store: &Store<D, M>, from: &[u8], buffer: &mut AlignedBuf) -> Result<Step, StoreError> {
    let mut step = Step::default();
    let mut groups = Vec::new();
    store.meta.scan(b"", from, &mut |key, value| {
        if step.keys == KEYS || groups.len() == GROUPS {
            step.next = Some(Bytes::copy_from_slice(key));
            return false;
        }
        step.keys += 1;
        match (key.first(), key::owner(key), key::tail_number(key)) {
            (Some(b'b'), Some(ino), Some(group)) if group <= GROUP_MAX => {
                groups.push((ino, group, Bytes::copy_from_slice(value)));
            }
            (Some(b'i'), Some(ino), _) if Inode::decode(&Bytes::copy_from_slice(value)).is_err() => {
                step.unreadable.push(ino);
            }
            _ => {}
        }
        true
    })?;
    for (ino, group, value) in groups {
        let stored = sums::Group::decode(&value).0;
        let first = group * GROUP;
        let has_bytes = |sum: &&Sum| **sum != sums::HOLE && **sum != sums::DAMAGED;
        step.bytes += stored.iter().filter(has_bytes).count() as u64 * BLOCK;
        for number in wrong(store, ino, first, &stored[..], buffer) {
            let sum = stored[(number - first) as usize];
            let found = if sum == sums::DAMAGED {
                &mut step.damaged
            } else {
                &mut step.suspects
            };
            found.push((ino, number));
        }
    }
    Ok(step)
}

/// Of consecutive blocks with these checksums, those whose bytes on the disk don't fit. What can't be read doesn't either.
pub(crate) fn wrong<D: Disk, M: Meta>(
    store: &Store<D, M>,
    ino: Ino,
    first: u64,
    sums: &[Sum],
    buffer: &mut AlignedBuf,
) -> Vec<u64> {
    match read(store, ino, first, sums, buffer) {
        Some(span) => judge(store, ino, first, sums, &span, buffer),
        None => Vec::new(),
    }
}

/// Those of some blocks that have bytes, holes in their midst among them, and whether these could be read.
#[derive(Debug)]
pub(crate) struct Span {
    blocks: Range<usize>,
    is_read: bool,
}

/// Into the beginning of the buffer.
pub(crate) fn read<D: Disk, M: Meta>(
    store: &Store<D, M>,
    ino: Ino,
    first: u64,
    sums: &[Sum],
    buffer: &mut AlignedBuf,
) -> Option<Span> {
    let last = sums.iter().rposition(|sum| *sum != sums::HOLE)?;
    let begin = sums.iter().position(|sum| *sum != sums::HOLE)?;
    let len = (last + 1 - begin) * BLOCK as usize;
    buffer.grow(len);
    let read = store
        .data
        .read_from_disk(ino, &mut buffer[..len], (first + begin as u64) * BLOCK);
    Some(Span {
        blocks: begin..last + 1,
        is_read: read.is_ok(),
    })
}

/// As `wrong`, of what was read.
pub(crate) fn judge<D: Disk, M: Meta>(
    store: &Store<D, M>,
    ino: Ino,
    first: u64,
    sums: &[Sum],
    span: &Span,
    buffer: &AlignedBuf,
) -> Vec<u64> {
    let (sums, first) = (&sums[span.blocks.clone()], first + span.blocks.start as u64);
    if !span.is_read {
        return one_by_one(store, ino, first, sums);
    }
    let blocks = buffer[..sums.len() * BLOCK as usize].chunks_exact(BLOCK as usize);
    sums.iter()
        .zip(blocks)
        .zip(first..)
        .filter(|((sum, block), _)| **sum != sums::HOLE && sums::of(block) != **sum)
        .map(|(_, number)| number)
        .collect()
}

/// A sector that can't be read must not hide its neighbours.
fn one_by_one<D: Disk, M: Meta>(store: &Store<D, M>, ino: Ino, first: u64, sums: &[Sum]) -> Vec<u64> {
    let mut block = AlignedBuf::zeroed(BLOCK as usize);
    let mut fits = |(sum, number): &(&Sum, u64)| {
        let read = store.data.read_from_disk(ino, &mut block, number * BLOCK);
        read.is_ok() && sums::of(&block) == **sum
    };
    let blocks = sums.iter().zip(first..).filter(|(sum, _)| **sum != sums::HOLE);
    blocks.filter(|block| !fits(block)).map(|(_, number)| number).collect()
}
