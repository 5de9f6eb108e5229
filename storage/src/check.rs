//! One part of the state, hashed where the log says so: replicas that agree have the same hash, whatever
//! traffic there is, because each computes it at the same entry.

use crate::apply::is_own;
use crate::copy::hash_pair;
use crate::data::blocks;
use crate::data::sums::{self, Sum};
use crate::digest;
use crate::disk::{Disk, aligned::AlignedBuf};
use crate::effects::CheckPart;
use crate::error::StoreError;
use crate::key;
use crate::mend;
use crate::meta::Meta;
use crate::record::Inode;
use crate::scrub;
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
    /// Metadata of at most `LISTED` keys: each with the hash of its value.
    pub keys: Vec<(Bytes, Sum)>,
    /// Data: of each block what its bytes are, or that it is a hole; `DAMAGED` if they can't be read, or aren't what was stored.
    pub sums: Vec<Sum>,
    /// Data: where behind this part there is a block again, `NO_MORE` if nowhere. Holes needn't be walked through.
    pub next_data: u64,
    /// Metadata: together the sizes of the files that have their `i` key in this part.
    pub sizes: u64,
}

impl Found {
    pub fn is_damaged(&self) -> bool {
        self.sums.contains(&sums::DAMAGED)
    }
}

/// Parts of so few keys are answered key by key.
pub const LISTED: u32 = 64;
pub const NO_MORE: u64 = u64::MAX;

/// Whatever is asked for, no more than this is read in one piece.
const DATA_MAX: u64 = 16 << 20;

/// Answers questions one after the other; of two that follow each other the second one's data are read while the first one's
/// are hashed.
#[derive(Default)]
pub(crate) struct Parts {
    spare: Vec<AlignedBuf>,
}

/// The data of a part as they stand on the disk, still to be hashed.
pub(crate) struct Read {
    ino: Ino,
    sums: Vec<Sum>,
    /// Number of the first block.
    first: u64,
    span: Option<scrub::Span>,
    count: u64,
    next_data: u64,
    buffer: AlignedBuf,
}

impl Parts {
    /// `ahead`: what this gave for this part before. `next` is asked for with nothing in between; what was read of it comes back.
    pub(crate) fn part<D: Disk, M: Meta>(
        &mut self,
        store: &Store<D, M>,
        part: &CheckPart,
        ahead: Option<Result<Read, String>>,
        next: Option<&CheckPart>,
    ) -> (Result<Found, String>, Option<Result<Read, String>>) {
        let (ino, offset, len) = match part {
            CheckPart::Meta { from, limit } => return (metadata(store, from, *limit), None),
            CheckPart::Data { ino, offset, len } => (*ino, *offset, *len),
        };
        let read = ahead.unwrap_or_else(|| read(store, ino, offset, len, self.spare.pop().unwrap_or_default()));
        let read = match read {
            Ok(read) => read,
            Err(why) => return (Err(why), None),
        };
        let (found, next) = match next {
            Some(CheckPart::Data { ino, offset, len }) if D::MANY_AT_ONCE => {
                let buffer = self.spare.pop().unwrap_or_default();
                std::thread::scope(|scope| {
                    let reading = std::thread::Builder::new().name("hf-read".into());
                    let reading = reading.spawn_scoped(scope, || self::read(store, *ino, *offset, *len, buffer));
                    let found = judge(store, &read);
                    // Without a thread it is read when its turn has come.
                    let next = reading
                        .ok()
                        .map(|reading| reading.join().expect("reading doesn't panic"));
                    (found, next)
                })
            }
            _ => (judge(store, &read), None),
        };
        self.spare.push(read.buffer);
        (Ok(found), next)
    }
}

fn metadata<D: Disk, M: Meta>(store: &Store<D, M>, from: &[u8], limit: u32) -> Result<Found, String> {
    let mut found = Found::default();
    if limit == 0 {
        let digest = digest::stored(&store.meta).map_err(|error| crate::error::chain(&error))?;
        found.hash = digest.unwrap_or_default().bytes().to_vec();
        return Ok(found);
    }
    let mut hash = blake3::Hasher::new();
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
        if limit <= LISTED {
            found.keys.push((Bytes::copy_from_slice(key), mend::hash_of(value)));
        }
        if let Some((_, size)) = file(key, value) {
            found.sizes = found.sizes.saturating_add(size);
        }
        true
    });
    scanned.map_err(|error| crate::error::chain(&error))?;
    found.hash = hash.finalize().as_bytes().to_vec();
    Ok(found)
}

/// The inode's number and size, if it is a file with data.
fn file(key: &[u8], value: &[u8]) -> Option<(Ino, u64)> {
    let ino = key::owner(key).filter(|_| key.first() == Some(&b'i'))?;
    let inode = Inode::decode(&Bytes::copy_from_slice(value)).ok()?;
    (inode.is_file() && inode.size > 0).then_some((ino, inode.size))
}

/// Files with data and their sizes.
#[derive(Debug, Default)]
pub struct Listed {
    pub files: Vec<(Ino, u64)>,
    /// The key at which the next begin, if there are more.
    pub next: Option<Bytes>,
}

/// So many at most from a key on, as they are now.
pub fn files<D: Disk, M: Meta>(store: &Store<D, M>, from: &[u8], most: usize) -> Result<Listed, StoreError> {
    let (mut files, mut next) = (Vec::new(), None);
    let from = from.max(b"i".as_slice());
    store.meta.scan(b"i", from, &mut |key, value| {
        if files.len() == most {
            next = Some(Bytes::copy_from_slice(key));
            return false;
        }
        files.extend(file(key, value));
        true
    })?;
    Ok(Listed { files, next })
}

/// What a reader would see, read from the disk itself.
fn read<D: Disk, M: Meta>(
    store: &Store<D, M>,
    ino: Ino,
    offset: u64,
    len: u64,
    mut buffer: AlignedBuf,
) -> Result<Read, String> {
    let failed = |error: StoreError| crate::error::chain(&error);
    let size = match store.meta.get(&key::inode(ino)).map_err(failed)? {
        Some(value) => Inode::decode(&value).map_err(|error| error.to_string())?.size,
        None => 0,
    };
    let end = offset.saturating_add(len.min(DATA_MAX)).min(size);
    let range = blocks(offset, end.saturating_sub(offset));
    let sums = sums::read(&store.meta, ino, range.clone()).map_err(failed)?;
    let next = sums::next(&store.meta, ino, offset.saturating_add(len).div_ceil(BLOCK)).map_err(failed)?;
    let span = scrub::read(store, ino, range.start, &sums, &mut buffer);
    Ok(Read {
        ino,
        sums,
        first: range.start,
        span,
        count: end.saturating_sub(offset),
        next_data: next.map_or(NO_MORE, |block| block * BLOCK),
        buffer,
    })
}

/// Each block must also fit the checksum that is stored for it.
fn judge<D: Disk, M: Meta>(store: &Store<D, M>, read: &Read) -> Found {
    let mut sums = read.sums.clone();
    let wrong = |span| scrub::judge(store, read.ino, read.first, &read.sums, span, &read.buffer);
    for block in read.span.as_ref().map_or_else(Vec::new, wrong) {
        sums[(block - read.first) as usize] = sums::DAMAGED;
    }
    Found {
        hash: blake3::hash(sums.as_flattened()).as_bytes().to_vec(),
        count: read.count,
        sums,
        next_data: read.next_data,
        ..Found::default()
    }
}
