//! What is sequenced and not yet applied, and what was read or applied lately: the memory that the planner
//! sees and that reads lay over the disk.
//!
//! The loop alone adds what it sequences; the apply thread alone takes it away again; readers copy out.
//! Shards keep the three out of each other's way: a lock is held for one key or one file's extents, never
//! across I/O. Dropping the pending part (`forget_pending`) undoes everything that wasn't committed,
//! because none of it has touched a disk.

mod cuts;
mod extents;
mod keys;

use crate::effects::Effect;
use crate::key::{self, Key};
use crate::types::{Ino, LogIndex};
use bytes::Bytes;
use cuts::Cuts;
use extents::Extents;
pub use extents::Piece;
use keys::Keys;
pub use keys::Known;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const SHARDS: usize = 64;

/// Bytes that one pending key costs beside its value; for the bound of memory, so rather high.
const KEY_COST: u64 = 160;

pub struct Overlay {
    keys: Vec<RwLock<Keys>>,
    files: Vec<RwLock<HashMap<Ino, Extents>>>,
    cuts: Cuts,
    pending_bytes: AtomicU64,
    /// First index that was shown in this reign; entries before it were never pending here.
    since: AtomicU64,
}

impl Default for Overlay {
    fn default() -> Self {
        Self {
            keys: (0..SHARDS).map(|_| RwLock::default()).collect(),
            files: (0..SHARDS).map(|_| RwLock::default()).collect(),
            cuts: Cuts::default(),
            pending_bytes: AtomicU64::new(0),
            since: AtomicU64::new(u64::MAX),
        }
    }
}

fn shard(ino: Ino) -> usize {
    // Neighbouring numbers go to different shards.
    (ino.0 % SHARDS as u64) as usize
}

fn cost(effect: &Effect) -> u64 {
    match effect {
        Effect::Put { key, value } => KEY_COST + (key.len() + value.len()) as u64,
        Effect::Write { data, .. } => KEY_COST + data.len() as u64,
        _ => KEY_COST,
    }
}

/// What a batch of entries has changed in the store.
#[derive(Default)]
pub struct Settled {
    /// Each key with what it is now.
    pub keys: BTreeMap<Key, Option<Bytes>>,
    pub files: BTreeSet<Ino>,
    /// What each entry had cost while it was pending.
    costs: Vec<(LogIndex, u64)>,
}

impl Settled {
    pub fn count(&mut self, index: LogIndex, effect: &Effect) {
        match self.costs.last_mut() {
            Some((last, sum)) if *last == index => *sum += cost(effect),
            _ => self.costs.push((index, cost(effect))),
        }
    }
}

impl Overlay {
    fn keys(&self, key: &[u8]) -> RwLockReadGuard<'_, Keys> {
        self.keys[key::owner(key).map_or(0, shard)]
            .read()
            .expect("no panic under the lock")
    }
    fn keys_mut(&self, key: &[u8]) -> RwLockWriteGuard<'_, Keys> {
        self.keys[key::owner(key).map_or(0, shard)]
            .write()
            .expect("no panic under the lock")
    }
    fn file_mut(&self, ino: Ino) -> RwLockWriteGuard<'_, HashMap<Ino, Extents>> {
        self.files[shard(ino)].write().expect("no panic under the lock")
    }

    /// Memory held by what is sequenced and not applied.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// Shows an entry's effects from now on. Bytes come before the size that reaches over them, and go after the size that
    /// did: whoever sees a size sees its bytes. Who has seen the size before a cut, and the bytes after it, looks again
    /// (`Cuts`).
    pub fn sequence(&self, index: LogIndex, effects: &[Effect]) {
        self.since.fetch_min(index.0, Ordering::AcqRel);
        let cost: u64 = effects.iter().map(cost).sum();
        self.pending_bytes.fetch_add(cost, Ordering::Relaxed);
        let cut = effects.iter().find_map(|effect| match effect {
            Effect::Truncate { ino, .. } => Some(*ino),
            _ => None,
        });
        if let Some(ino) = cut {
            self.sequence_keys(index, effects);
            self.cuts.count(ino);
            self.sequence_data(index, effects);
        } else {
            self.sequence_data(index, effects);
            self.sequence_keys(index, effects);
        }
    }

    fn sequence_keys(&self, index: LogIndex, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Put { key, value } => self.keys_mut(key).pend(key, index, Some(value.clone())),
                Effect::Delete { key } => self.keys_mut(key).pend(key, index, None),
                _ => {}
            }
        }
    }

    fn sequence_data(&self, index: LogIndex, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Write { ino, offset, data } => {
                    self.extents(*ino, |file| {
                        file.put(index, *offset, *offset + data.len() as u64, Some(data.clone()));
                    });
                }
                Effect::Truncate { ino, size } => self.extents(*ino, |file| file.put(index, *size, u64::MAX, None)),
                Effect::Zero { ino, offset, len } => {
                    self.extents(*ino, |file| file.put(index, *offset, offset.saturating_add(*len), None));
                }
                Effect::Put { .. } | Effect::Delete { .. } | Effect::Purge { .. } | Effect::Check { .. } => {}
            }
        }
    }

    fn extents(&self, ino: Ino, change: impl FnOnce(&mut Extents)) {
        change(self.file_mut(ino).entry(ino).or_default());
    }

    /// All up to `last` is in the store now: what showed it is dropped, unless a later entry shows something newer.
    pub fn applied(&self, last: LogIndex, settled: &Settled) {
        let since = self.since.load(Ordering::Acquire);
        let pended = settled.costs.iter().filter(|(index, _)| index.0 >= since);
        self.release(pended.map(|(_, cost)| cost).sum());
        for (key, value) in &settled.keys {
            self.keys_mut(key).settle(key, last, value.as_ref());
        }
        for ino in &settled.files {
            let mut shard = self.file_mut(*ino);
            if let Some(file) = shard.get_mut(ino) {
                file.settle(last);
                if file.is_empty() {
                    shard.remove(ino);
                }
            }
        }
    }

    fn release(&self, bytes: u64) {
        // Saturating: `forget_pending` may come between on another thread.
        let _ = self
            .pending_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_sub(bytes))
            });
    }

    /// Drops all that is sequenced and not applied: this node was deposed, and others decide now what becomes of it.
    pub fn forget_pending(&self) {
        for keys in &self.keys {
            keys.write().expect("no panic under the lock").forget_pending();
        }
        for files in &self.files {
            files.write().expect("no panic under the lock").clear();
        }
        self.since.store(u64::MAX, Ordering::Release);
        self.pending_bytes.store(0, Ordering::Relaxed);
    }

    pub fn get(&self, key: &[u8]) -> Known {
        self.keys(key).get(key)
    }

    /// A reader is about to fetch this key from the store; `filled` with the same ticket keeps what it found,
    /// unless the key was changed meanwhile. `None`: nothing to fetch, it is known.
    pub fn begin_fill(&self, key: &Key) -> Option<u64> {
        self.keys_mut(key).begin_fill(key)
    }

    pub fn filled(&self, key: &Key, ticket: u64, value: Option<Bytes>) {
        self.keys_mut(key).filled(key, ticket, value);
    }

    /// Pending changes to keys of one directory or inode with this prefix, from `from` on, in order; `None` is deleted.
    pub fn pending_range(&self, prefix: &[u8], from: &[u8]) -> Vec<(Key, Option<Bytes>)> {
        self.keys(prefix).pending_range(prefix, from)
    }

    /// To be handed to `no_cut_since` by whoever has read a file's size and then its bytes.
    pub fn cuts(&self, ino: Ino) -> u64 {
        self.cuts.so_far(ino)
    }

    pub fn no_cut_since(&self, ino: Ino, then: u64) -> bool {
        self.cuts.none_since(ino, then)
    }

    /// What is pending of a file between two offsets, in order of offset, without overlaps.
    pub fn pieces(&self, ino: Ino, from: u64, to: u64) -> Vec<Piece> {
        let files = self.files[shard(ino)].read().expect("no panic under the lock");
        files.get(&ino).map(|file| file.pieces(from, to)).unwrap_or_default()
    }
}
