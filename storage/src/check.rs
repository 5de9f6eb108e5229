//! One part of the state, hashed where the log says so: replicas that agree have the same hash, whatever
//! traffic there is, because each computes it at the same entry.

use crate::apply::is_own;
use crate::copy::hash_pair;
use crate::data::{blocks, sums};
use crate::disk::{Disk, aligned::AlignedBuf};
use crate::effects::CheckPart;
use crate::key;
use crate::meta::Meta;
use crate::record::Inode;
use crate::store::Store;
use crate::types::{BLOCK, Ino, LogIndex};
use bytes::Bytes;

/// What this replica found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of the check effect.
    pub id: u64,
    pub index: LogIndex,
    pub found: Result<Found, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub hash: Vec<u8>,
    /// Keys, or bytes of data.
    pub count: u64,
    /// Metadata: where the next part begins; empty after the last key.
    pub next: Bytes,
    /// Data: where behind this part there is a block again, `NO_MORE` if nowhere. Holes needn't be walked through.
    pub next_data: u64,
    /// Metadata: inodes with data that have their `i` key in this part, and their sizes.
    pub files: Vec<(Ino, u64)>,
}

pub const NO_MORE: u64 = u64::MAX;

pub(crate) fn part<D: Disk, M: Meta>(store: &Store<D, M>, part: &CheckPart) -> Result<Found, String> {
    match part {
        CheckPart::Meta { from, limit } => metadata(store, from, *limit),
        CheckPart::Data { ino, offset, len } => data(store, *ino, *offset, *len),
    }
}

fn metadata<D: Disk, M: Meta>(store: &Store<D, M>, from: &[u8], limit: u32) -> Result<Found, String> {
    let mut hash = blake3::Hasher::new();
    let mut found = Found::default();
    // Checksums stay out: they are compared by what they stand for, the data. They sort first, so begin behind them.
    let from = from.max(b"c".as_slice());
    let scanned = store.meta.scan(b"", from, &mut |key, value| {
        if is_own(key) {
            return true;
        }
        if found.count == u64::from(limit) {
            found.next = Bytes::copy_from_slice(key);
            return false;
        }
        found.count += 1;
        hash_pair(&mut hash, key, value);
        if key.first() == Some(&b'i')
            && let (Some(ino), Ok(inode)) = (key::owner(key), Inode::decode(&Bytes::copy_from_slice(value)))
            && inode.is_file()
            && inode.size > 0
        {
            found.files.push((ino, inode.size));
        }
        true
    });
    scanned.map_err(|error| crate::error::chain(&error))?;
    found.hash = hash.finalize().as_bytes().to_vec();
    Ok(found)
}

/// Hashes the bytes as a reader would see them, holes as zeros, read from the disk itself; each block must
/// also fit the checksum that is stored for it.
fn data<D: Disk, M: Meta>(store: &Store<D, M>, ino: Ino, offset: u64, len: u64) -> Result<Found, String> {
    let size = match store
        .meta
        .get(&key::inode(ino))
        .map_err(|error| crate::error::chain(&error))?
    {
        Some(value) => Inode::decode(&value).map_err(|error| error.to_string())?.size,
        None => 0,
    };
    let end = offset.saturating_add(len).min(size);
    let range = blocks(offset, end.saturating_sub(offset));
    let expected = sums::read(&store.meta, ino, range.clone()).map_err(|error| crate::error::chain(&error))?;
    let mut hash = blake3::Hasher::new();
    let next = sums::next(&store.meta, ino, offset.saturating_add(len).div_ceil(BLOCK))
        .map_err(|error| crate::error::chain(&error))?;
    let mut found = Found {
        count: end.saturating_sub(offset),
        next_data: next.map_or(NO_MORE, |block| block * BLOCK),
        ..Found::default()
    };
    if expected.iter().any(|sum| *sum != sums::HOLE) {
        let mut buffer = AlignedBuf::zeroed(((range.end - range.start) * BLOCK) as usize);
        store
            .data
            .read_from_disk(ino, &mut buffer, range.start * BLOCK)
            .map_err(|error| crate::error::chain(&error))?;
        for ((block, sum), number) in buffer.chunks_exact(BLOCK as usize).zip(&expected).zip(range) {
            if *sum == sums::HOLE {
                hash.update(&[0; BLOCK as usize]);
            } else if sums::of(block) == *sum {
                hash.update(block);
            } else {
                return Err(format!(
                    "inode {ino}, block at {}: the bytes on disk don't fit their checksum",
                    number * BLOCK
                ));
            }
        }
    } else {
        for _ in range {
            hash.update(&[0; BLOCK as usize]);
        }
    }
    found.hash = hash.finalize().as_bytes().to_vec();
    Ok(found)
}
