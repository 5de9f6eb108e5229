//! The side that lacks the data. Its checksums always say what its files hold, never what they are to become: so a copy
//! that is broken off and begun again, at whatever moment of the source, still sees each difference.

use super::mark::{self, Voted};
use super::source::{Blocks, has_bytes};
use super::{BLOCKS_MAX, PIECE_KEYS, Piece, hash_pair, history, rebuild, walk};
use crate::checkpoint;
use crate::data::DataFiles;
use crate::data::sums::{self, GROUP, GROUP_MAX, Group};
use crate::digest;
use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, Space};
use crate::error::StoreError;
use crate::identity::Identity;
use crate::key;
use crate::log::Log;
use crate::meta::{Change, Meta};
use crate::types::{BLOCK, Ino};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

/// More changed files than this are synced before it goes on: what waits for `finish` stays bounded.
const DIRTY_FILES: usize = 4096;

/// Blocks that differ; to be asked for, then `Target::put`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub ino: Ino,
    pub blocks: Range<u64>,
}

/// What came of it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys compared, and of those the ones that were changed or removed here.
    pub keys: u64,
    pub changed: u64,
    /// Bytes of blocks that came.
    pub bytes: u64,
    /// Blocks that the source itself can't read.
    pub damaged: u64,
}

pub struct Target<D: Disk, M: Meta> {
    pub(super) disk: D,
    pub(super) data: DataFiles<D>,
    pub(super) meta: M,
    pub(super) voted: Voted,
    /// Groups of which blocks are wanted, as they are here.
    groups: BTreeMap<(Ino, u64), Group>,
    scratch: AlignedBuf,
    pub counts: Counts,
}

impl<D: Disk, M: Meta> Target<D, M> {
    /// Takes a formatted store, which nobody else uses, and marks it. `sound`: its checksums surely fit its files, for all
    /// that it had applied was checkpointed. Otherwise, and after a copy that wasn't finished, they are made anew, which
    /// reads all files.
    pub fn begin(disk: D, meta: M, identity: &Identity, sound: bool) -> Result<Self, StoreError> {
        let again = mark::is_copying(&disk)?;
        let voted = if again {
            mark::read(&disk)?
        } else {
            let published = checkpoint::published(&disk)?;
            let (_, recovered) = Log::open(disk.clone(), identity.store, published)?;
            let voted = Voted {
                term: recovered.hard_state.term,
                vote: recovered.hard_state.vote,
                history: Some(history(&meta)?),
            };
            mark::write(&disk, voted)?;
            voted
        };
        let data = DataFiles::new(disk.clone());
        meta.write(vec![digest::forget()])?;
        if again || !sound {
            rebuild::checksums(&disk, &data, &meta)?;
        }
        Ok(Self {
            disk,
            data,
            meta,
            voted,
            groups: BTreeMap::new(),
            scratch: AlignedBuf::default(),
            counts: Counts::default(),
        })
    }

    /// As `copy::history`, of what was here before the copy.
    pub fn history(&self) -> Result<u64, StoreError> {
        self.voted.history.map_or_else(|| history(&self.meta), Ok)
    }

    pub fn space(&self) -> Result<Space, StoreError> {
        let failed = StoreError::disk("asking for the space of", "the store's file system");
        self.disk.space().map_err(failed)
    }

    /// Whether this side has the same in a piece.
    pub fn has(&mut self, piece: &Piece) -> Result<bool, StoreError> {
        let mut hash = blake3::Hasher::new();
        walk(&self.meta, &piece.from, &piece.to, |key, value| {
            hash_pair(&mut hash, key, value);
            ControlFlow::Continue(())
        })?;
        self.counts.keys = self.counts.keys.saturating_add(piece.keys);
        Ok(*hash.finalize().as_bytes() == piece.hash)
    }

    /// Makes the keys from `from` on and before `to` (empty: to the end) what the source has. Which blocks that needs.
    pub fn take(&mut self, from: &[u8], to: &[u8], pairs: Vec<(Bytes, Bytes)>) -> Result<Vec<Wanted>, StoreError> {
        // Before anything is changed, as in `put`.
        if let Some(ino) = pairs.iter().find_map(|(key, _)| beyond_all_files(key)) {
            return Err(StoreError::Garbled { ino, offset: u64::MAX });
        }
        let mut theirs = pairs.into_iter().peekable();
        let mut step = Step::default();
        let mut at = Some(Bytes::copy_from_slice(from));
        while let Some(from) = at {
            // A few at a time: what the source has removed may be far more than what it has.
            let mut own = Vec::new();
            at = walk(&self.meta, &from, to, |key, value| {
                if own.len() == PIECE_KEYS {
                    return ControlFlow::Break(());
                }
                own.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                ControlFlow::Continue(())
            })?;
            for (key, value) in own {
                while let Some((new, theirs)) = theirs.next_if(|(new, _)| *new < key) {
                    self.put_key(new, theirs, None, &mut step)?;
                }
                match theirs.next_if(|(same, _)| *same == key) {
                    Some((_, theirs)) => self.put_key(key, theirs, Some(&value), &mut step)?,
                    None => self.remove_key(key, &mut step)?,
                }
            }
            self.meta.write(std::mem::take(&mut step.changes))?;
        }
        for (new, value) in theirs {
            self.put_key(new, value, None, &mut step)?;
        }
        self.meta.write(step.changes)?;
        if self.data.dirty_files() > DIRTY_FILES {
            self.data.sync()?;
        }
        Ok(step.wanted)
    }

    fn put_key(&mut self, key: Bytes, value: Bytes, old: Option<&Bytes>, step: &mut Step) -> Result<(), StoreError> {
        if old == Some(&value) {
            return Ok(());
        }
        self.counts.changed += 1;
        match (key.first(), key::owner(&key), key::tail_number(&key)) {
            (Some(b'b'), Some(ino), Some(group)) => self.compare_group(ino, group, &value, old, step),
            _ => {
                step.changes.push(Change::Put(key, value));
                Ok(())
            }
        }
    }

    fn remove_key(&mut self, key: Bytes, step: &mut Step) -> Result<(), StoreError> {
        self.counts.changed += 1;
        match (key.first(), key::owner(&key), key::tail_number(&key)) {
            (Some(b'b'), Some(ino), Some(group)) => self.data.punch(ino, group * GROUP * BLOCK, GROUP * BLOCK)?,
            (Some(b'i'), Some(ino), _) => self.data.remove(ino)?,
            _ => {}
        }
        step.changes.push(Change::Delete(key));
        Ok(())
    }

    /// Holes are made at once; what else differs is wanted.
    fn compare_group(
        &mut self,
        ino: Ino,
        group: u64,
        theirs: &[u8],
        old: Option<&Bytes>,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        let theirs = Group::decode(theirs);
        let mut own = old.map_or_else(Group::empty, |value| Group::decode(value));
        for (at, block) in (0..).zip(group * GROUP..(group + 1) * GROUP) {
            if theirs.0[at] == own.0[at] {
                continue;
            }
            if theirs.0[at] == sums::HOLE {
                self.data.punch(ino, block * BLOCK, BLOCK)?;
                own.0[at] = sums::HOLE;
            } else {
                step.want(ino, block);
            }
        }
        step.changes.push(own.change(ino, group));
        self.groups.insert((ino, group), own);
        Ok(())
    }

    /// Blocks as the source has them now; they needn't be what its keys said a moment ago.
    pub fn put(&mut self, blocks: &Blocks) -> Result<(), StoreError> {
        // Before anything is written: afterwards the checksums here would say what isn't there.
        verify(blocks)?;
        let mut data = blocks.data.chunks_exact(BLOCK as usize);
        let mut changes = Vec::new();
        let mut run: Option<(u64, Vec<u8>)> = None;
        for (sum, block) in blocks.sums.iter().zip(blocks.first..) {
            if has_bytes(*sum) {
                let bytes = data.next().expect("verified");
                run.get_or_insert_with(|| (block, Vec::new()))
                    .1
                    .extend_from_slice(bytes);
                self.counts.bytes += BLOCK;
            } else {
                self.write(blocks.ino, run.take())?;
                if *sum == sums::HOLE {
                    self.data.punch(blocks.ino, block * BLOCK, BLOCK)?;
                } else {
                    // What lies here is left for whoever mends it by hand: it isn't read any more.
                    self.counts.damaged += 1;
                }
            }
        }
        self.write(blocks.ino, run)?;
        for (sum, block) in blocks.sums.iter().zip(blocks.first..) {
            let at = (blocks.ino, block / GROUP);
            if !self.groups.contains_key(&at) {
                self.groups.insert(at, Group::load(&self.meta, at.0, at.1)?);
            }
            let group = self.groups.get_mut(&at).expect("just there");
            group.0[(block % GROUP) as usize] = *sum;
            if (block + 1).is_multiple_of(GROUP) || block + 1 == blocks.first + blocks.sums.len() as u64 {
                changes.push(group.change(at.0, at.1));
            }
        }
        self.meta.write(changes)
    }

    fn write(&mut self, ino: Ino, run: Option<(u64, Vec<u8>)>) -> Result<(), StoreError> {
        run.map_or(Ok(()), |(block, bytes)| {
            self.data.write(ino, &bytes, block * BLOCK, &mut self.scratch)
        })
    }

    /// All blocks that a `take` wanted have been put.
    pub fn settled(&mut self) {
        self.groups.clear();
    }
}

/// The inode of a group of checksums that no file is large enough for.
fn beyond_all_files(key: &[u8]) -> Option<Ino> {
    let group = key::tail_number(key).filter(|_| key.first() == Some(&b'b'))?;
    key::owner(key).filter(|_| group > GROUP_MAX)
}

fn verify(blocks: &Blocks) -> Result<(), StoreError> {
    let mut data = blocks.data.chunks_exact(BLOCK as usize);
    for (sum, block) in blocks.sums.iter().zip(blocks.first..) {
        if has_bytes(*sum) && data.next().is_none_or(|bytes| sums::of(bytes) != *sum) {
            return Err(StoreError::Garbled {
                ino: blocks.ino,
                offset: block.saturating_mul(BLOCK),
            });
        }
    }
    Ok(())
}

/// What comes of one piece.
#[derive(Default)]
struct Step {
    changes: Vec<Change>,
    wanted: Vec<Wanted>,
}

impl Step {
    fn want(&mut self, ino: Ino, block: u64) {
        match self.wanted.last_mut() {
            Some(last)
                if last.ino == ino && last.blocks.end == block && last.blocks.end - last.blocks.start < BLOCKS_MAX =>
            {
                last.blocks.end += 1;
            }
            _ => self.wanted.push(Wanted {
                ino,
                blocks: block..block + 1,
            }),
        }
    }
}
