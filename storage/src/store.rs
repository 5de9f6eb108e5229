//! One replica's state as its readers see it: metadata and data on disk, with what is sequenced and not yet
//! applied laid over them. Nothing here changes state; see `apply`.

use crate::data::{DataFiles, blocks, sums};
use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, Space};
use crate::error::StoreError;
use crate::key::{self, Key};
use crate::meta::Meta;
use crate::op::Refusal;
use crate::overlay::{Known, Overlay, Piece};
use crate::record::{Child, ClassRoot, Dirent, Inode, Xattrs};
use crate::types::{BLOCK, Ino, LogIndex};
use crate::view::{Seen, View};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<crate::record::BadRecord> for ReadError {
    fn from(bad: crate::record::BadRecord) -> Self {
        Self::Store(bad.into())
    }
}

pub struct Store<D: Disk, M: Meta> {
    pub meta: M,
    pub data: DataFiles<D>,
    pub overlay: Overlay,
    applied: AtomicU64,
    checkpointed: AtomicU64,
    /// Blocks that somebody met as rotten and nobody has taken up yet.
    rotten: Mutex<BTreeSet<(Ino, u64)>>,
    /// Wakes readers that met a block which was just being applied.
    turn: Mutex<()>,
    batch_written: Condvar,
    /// How long a reader waits for a batch before it looks again; a simulation in one thread waits for nothing.
    pub look_every: Duration,
}

/// Looks at a block that doesn't fit its checksum before it counts as rotten; waits for a batch between them
/// add up to eight seconds at most, less than a request's deadline: a slow disk makes batches slow.
const LOOKS: u32 = 80;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Of which it is remembered that somebody met them.
const ROTTEN_MAX: usize = 4096;

/// So often a read begins anew because a file was cut meanwhile; then what was read counts.
const READS_BESIDE_CUTS: u32 = 16;

/// How many bytes of a block are pending.
fn pending_in(pieces: &[Piece], block: u64) -> u64 {
    let (from, to) = (block * BLOCK, (block + 1) * BLOCK);
    pieces
        .iter()
        .map(|piece| piece.to.min(to).saturating_sub(piece.from.max(from)))
        .sum()
}

impl<D: Disk, M: Meta> Store<D, M> {
    pub(crate) fn new(disk: D, meta: M, checkpointed: LogIndex) -> Self {
        Self {
            meta,
            data: DataFiles::new(disk),
            overlay: Overlay::default(),
            applied: AtomicU64::new(checkpointed.0),
            checkpointed: AtomicU64::new(checkpointed.0),
            rotten: Mutex::default(),
            turn: Mutex::new(()),
            batch_written: Condvar::new(),
            look_every: LOOK_EVERY,
        }
    }

    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Acquire))
    }
    pub(crate) fn set_applied(&self, index: LogIndex) {
        self.applied.store(index.0, Ordering::Release);
        drop(self.turn.lock());
        self.batch_written.notify_all();
    }
    pub fn checkpointed(&self) -> LogIndex {
        LogIndex(self.checkpointed.load(Ordering::Acquire))
    }
    pub(crate) fn set_checkpointed(&self, index: LogIndex) {
        self.checkpointed.store(index.0, Ordering::Release);
    }
    /// Blocks that reads, applying and copying met as rotten since the last call.
    pub fn take_rotten(&self) -> Vec<(Ino, u64)> {
        let mut rotten = self.rotten.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rotten).into_iter().collect()
    }
    pub(crate) fn met_rotten(&self, ino: Ino, block: u64) {
        let mut rotten = self.rotten.lock().unwrap_or_else(PoisonError::into_inner);
        // The others are met again.
        if rotten.len() < ROTTEN_MAX {
            rotten.insert((ino, block));
        }
    }

    /// The value of a key after all that is sequenced; fetched from the store, and remembered, if need be.
    pub fn value(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        loop {
            match self.overlay.get(key) {
                Known::Value(value) => return Ok(Some(value)),
                Known::Absent => return Ok(None),
                Known::No => {}
            }
            if let Some(ticket) = self.overlay.begin_fill(key) {
                let value = self.meta.get(key)?;
                self.overlay.filled(key, ticket, value.clone());
                // What was just fetched may be stale if the key changed meanwhile; then the next round knows better.
                if matches!(self.overlay.get(key), Known::No) {
                    return Ok(value);
                }
            }
        }
    }

    pub fn inode(&self, ino: Ino) -> Result<Inode, ReadError> {
        let value = self.value(&key::inode(ino))?.ok_or(Refusal::NotFound)?;
        Ok(Inode::decode(&value)?)
    }

    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<(Ino, Inode), ReadError> {
        if name.len() > crate::types::MAX_NAME {
            return Err(Refusal::NameTooLong.into());
        }
        let value = self.value(&key::dirent(parent, name))?.ok_or(Refusal::NotFound)?;
        let ino = Dirent::decode(&value)?.ino;
        Ok((ino, self.inode(ino)?))
    }

    pub fn xattrs(&self, ino: Ino) -> Result<Xattrs, ReadError> {
        match self.value(&key::xattrs(ino))? {
            Some(value) => Ok(Xattrs::decode(&value)?),
            None => Ok(Xattrs::default()),
        }
    }

    /// Entries with a cookie greater than `after`, in order, at most `limit`; without `.` and `..`.
    pub fn readdir(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<(u64, Child)>, ReadError> {
        let prefix = key::children(dir);
        let from = key::child(dir, after.saturating_add(1));
        // Pending first: an entry applied between the two looks is then seen at least once, and the merge keeps it once.
        let pending = self.overlay.pending_range(&prefix, &from);
        let mut merged: std::collections::BTreeMap<Key, Option<Bytes>> = std::collections::BTreeMap::new();
        let room = limit + pending.len();
        self.meta.scan(&prefix, &from, &mut |key, value| {
            merged.insert(Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
            merged.len() < room
        })?;
        // Past the last key scanned the store may hold more, so pending entries behind it wait for the next call.
        let last = if merged.len() == room {
            merged.keys().next_back().cloned()
        } else {
            None
        };
        for (key, value) in pending {
            if last.as_ref().is_none_or(|last| key <= *last) {
                merged.insert(key, value);
            }
        }
        merged
            .into_iter()
            .filter_map(|(key, value)| Some((key::tail_number(&key)?, value?)))
            .take(limit)
            .map(|(cookie, value)| Ok((cookie, Child::decode(&value)?)))
            .collect()
    }

    /// Directories that were given a class.
    pub fn class_roots(&self) -> Result<Vec<(Ino, ClassRoot)>, ReadError> {
        let prefix = key::class_roots();
        // Pending first, as for the entries of a directory.
        let pending = self.overlay.pending_range(&prefix, &prefix);
        let mut merged: std::collections::BTreeMap<Key, Option<Bytes>> = std::collections::BTreeMap::new();
        self.meta.scan(&prefix, &prefix, &mut |key, value| {
            merged.insert(Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
            true
        })?;
        merged.extend(pending);
        merged
            .into_iter()
            .filter_map(|(key, value)| Some((Ino(key::tail_number(&key)?), value?)))
            .map(|(ino, value)| Ok((ino, ClassRoot::decode(&value)?)))
            .collect()
    }

    /// Inodes that have lost their last name and are still there.
    pub fn orphans(&self) -> Result<Vec<Ino>, StoreError> {
        let mut found = Vec::new();
        self.meta.scan(key::ORPHANS, key::ORPHANS, &mut |key, _| {
            found.extend(key::owner(key));
            true
        })?;
        Ok(found)
    }

    /// Bytes of a file, at most up to its end.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        for _ in 0..READS_BESIDE_CUTS {
            let cuts = self.overlay.cuts(ino);
            let read = self.read_once(ino, offset, len)?;
            if self.overlay.no_cut_since(ino, cuts) {
                return Ok(read);
            }
        }
        self.read_once(ino, offset, len)
    }

    fn read_once(&self, ino: Ino, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        let inode = self.inode(ino)?;
        if inode.is_dir() {
            return Err(Refusal::IsDirectory.into());
        }
        let end = offset.saturating_add(len as u64).min(inode.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let pieces = self.overlay.pieces(ino, offset, end);
        if let [piece] = pieces.as_slice()
            && let Some(data) = &piece.data
            && piece.from == offset
            && piece.to == end
        {
            return Ok(data.clone());
        }
        let range = blocks(offset, end - offset);
        let start = range.start * BLOCK;
        let mut buffer = BytesMut::zeroed(((range.end - range.start) * BLOCK) as usize);
        let pieces = self.read_verified(ino, range, &mut buffer, pieces)?;
        for piece in pieces {
            let at = (piece.from - start) as usize..(piece.to - start) as usize;
            match piece.data {
                Some(data) => buffer[at].copy_from_slice(&data),
                None => buffer[at].fill(0),
            }
        }
        Ok(buffer.freeze().slice((offset - start) as usize..(end - start) as usize))
    }

    /// Fills the buffer with whole blocks from the disk, each with the checksum that is stored for it, and
    /// returns what is pending over them. A block that is just being applied may differ from its checksum for
    /// a moment: it is looked at again, after the batch that is under way if something is pending over it.
    fn read_verified(
        &self,
        ino: Ino,
        range: std::ops::Range<u64>,
        buffer: &mut [u8],
        mut pieces: Vec<Piece>,
    ) -> Result<Vec<Piece>, ReadError> {
        let (from, to) = (range.start * BLOCK, range.end * BLOCK);
        let mut wrong = None;
        for look in 0..LOOKS {
            let applied = self.applied();
            let sums = sums::read(&self.meta, ino, range.clone())?;
            if sums.iter().all(|sum| *sum == sums::HOLE) && pieces.is_empty() {
                buffer.fill(0);
                return Ok(pieces);
            }
            if let Some(number) = self.read_blocks(ino, buffer, from, look % 2 == 1)? {
                wrong = Some((number, sums::DAMAGED));
                break;
            }
            wrong = sums
                .iter()
                .zip(buffer.chunks_exact_mut(BLOCK as usize))
                .zip(range.clone())
                .find_map(|((sum, block), number)| {
                    if *sum == sums::HOLE {
                        // Only what is pending may stand here.
                        block.fill(0);
                        return None;
                    }
                    let sound =
                        *sum == sums::of(block) || (*sum != sums::DAMAGED && pending_in(&pieces, number) == BLOCK);
                    (!sound).then_some((number, *sum))
                });
            let Some((number, sum)) = wrong else { return Ok(pieces) };
            if sum == sums::DAMAGED {
                break;
            }
            if pending_in(&pieces, number) > 0 {
                self.wait_for_batch_after(applied);
            }
            pieces = self.overlay.pieces(ino, from, to);
        }
        let number = wrong.map_or(range.start, |(number, _)| number);
        self.met_rotten(ino, number);
        let offset = number * BLOCK;
        Err(StoreError::Rot { ino, offset }.into())
    }

    /// Every second look is at the disk itself: only the kernel's copy may be wrong. Gives the first block that can't be read.
    fn read_blocks(&self, ino: Ino, buffer: &mut [u8], from: u64, from_disk: bool) -> Result<Option<u64>, ReadError> {
        let read = if from_disk {
            let mut aligned = AlignedBuf::zeroed(buffer.len());
            let read = self.data.read_from_disk(ino, &mut aligned, from);
            buffer.copy_from_slice(&aligned[..buffer.len()]);
            read
        } else {
            self.data.read(ino, buffer, from)
        };
        match read {
            Err(error) if error.is_unreadable() => {
                let blocks = buffer.chunks_exact_mut(BLOCK as usize).zip(from / BLOCK..);
                // None: it could be read this time.
                Ok(blocks
                    .filter_map(|(block, number)| self.data.read(ino, block, number * BLOCK).err().map(|_| number))
                    .next())
            }
            read => Ok(read.map(|()| None)?),
        }
    }

    /// Until a batch is written after which more than this is applied, or for a while.
    pub(crate) fn wait_for_batch_after(&self, applied: LogIndex) {
        let turn = self.turn.lock().expect("no panic under the lock");
        let _ = self
            .batch_written
            .wait_timeout_while(turn, self.look_every, |()| self.applied() == applied)
            .expect("no panic under the lock");
    }

    /// Where the next bytes that aren't a hole begin; `None` past the last of them.
    pub fn seek_data(&self, ino: Ino, offset: u64) -> Result<Option<u64>, ReadError> {
        let size = self.inode(ino)?.size;
        let pieces = self.overlay.pieces(ino, offset, size);
        let pending = pieces
            .iter()
            .find(|piece| piece.data.is_some())
            .map(|piece| piece.from / BLOCK);
        // Holes may be far longer than anything that could be looked through block by block.
        let stored = sums::next(&self.meta, ino, offset / BLOCK)?;
        let block = pending.into_iter().chain(stored).min();
        Ok(block.map(|block| (block * BLOCK).max(offset)).filter(|at| *at < size))
    }

    /// Where the next hole begins; at the latest at the end of the file.
    pub fn seek_hole(&self, ino: Ino, offset: u64) -> Result<u64, ReadError> {
        let size = self.inode(ino)?.size;
        let pieces = self.overlay.pieces(ino, offset, size);
        let is_pending = |block: u64| {
            pieces
                .iter()
                .any(|piece| piece.data.is_some() && piece.from < (block + 1) * BLOCK && piece.to > block * BLOCK)
        };
        let (mut block, end) = (offset / BLOCK, size.div_ceil(BLOCK));
        while block < end {
            for sum in sums::read(&self.meta, ino, block..end.min(block + sums::GROUP))? {
                if sum == sums::HOLE && !is_pending(block) {
                    return Ok((block * BLOCK).max(offset).min(size));
                }
                block += 1;
            }
        }
        Ok(size)
    }

    pub fn space(&self) -> Result<Space, StoreError> {
        self.data
            .disk()
            .space()
            .map_err(StoreError::disk("asking for the space of", "the store's file system"))
    }
}

impl<D: Disk, M: Meta> View for Store<D, M> {
    fn get(&self, key: &Key) -> Seen {
        match self.overlay.get(key) {
            Known::Value(value) => Seen::Value(value),
            Known::Absent => Seen::Absent,
            Known::No => Seen::NotInMemory,
        }
    }
}
