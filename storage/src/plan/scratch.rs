//! The changes of one operation while it is planned, layered over the view, so that two changes of one record compose.

use crate::class::Class;
use crate::effects::Effect;
use crate::key::{self, Key};
use crate::op::Refusal;
use crate::record::{BadRecord, Dirent, Inode, Xattrs};
use crate::types::{Ino, Time};
use crate::view::{Seen, View};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Why planning ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refusal),
    Need(Vec<Key>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<BadRecord> for Stop {
    fn from(_: BadRecord) -> Self {
        Self::Refused(Refusal::Damaged)
    }
}

/// First number that a new inode gets; 1 is the root.
const FIRST_INO: u64 = 2;

pub(super) struct Scratch<'a> {
    view: &'a dyn View,
    now: Time,
    /// `None` is a key that goes.
    meta: BTreeMap<Key, Option<Bytes>>,
    data: Vec<Effect>,
    class: Option<Class>,
}

impl<'a> Scratch<'a> {
    pub(super) fn new(view: &'a dyn View, now: Time) -> Self {
        Self {
            view,
            now,
            meta: BTreeMap::new(),
            data: Vec::new(),
            class: None,
        }
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Stops with all of `keys` that aren't in memory, so that one wait brings them together.
    pub(super) fn require<const N: usize>(&self, keys: [Key; N]) -> Result<(), Stop> {
        let mut missing = Vec::new();
        for key in keys {
            let known = self.meta.contains_key(&key) || self.view.get(&key) != Seen::NotInMemory;
            if !known && !missing.contains(&key) {
                missing.push(key);
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Stop::Need(missing))
        }
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Bytes>, Stop> {
        if let Some(changed) = self.meta.get(key) {
            return Ok(changed.clone());
        }
        match self.view.get(key) {
            Seen::Value(value) => Ok(Some(value)),
            Seen::Absent => Ok(None),
            Seen::NotInMemory => Err(Stop::Need(vec![key.clone()])),
        }
    }

    pub(super) fn put(&mut self, key: Key, value: Bytes) {
        self.meta.insert(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Key) {
        self.meta.insert(key, None);
    }

    /// An effect on a file's bytes.
    pub(super) fn data(&mut self, effect: Effect) {
        self.data.push(effect);
    }

    /// An inode that the application names: it may be gone.
    pub(super) fn inode(&self, ino: Ino) -> Result<Inode, Stop> {
        let value = self.get(&key::inode(ino))?.ok_or(Refusal::NotFound)?;
        Ok(Inode::decode(&value)?)
    }

    /// An inode that another record leads to: if it isn't there, or is of another kind, the store is damaged.
    pub(super) fn target(&self, entry: &Dirent) -> Result<Inode, Stop> {
        let value = self.get(&key::inode(entry.ino))?.ok_or(Refusal::Damaged)?;
        let inode = Inode::decode(&value)?;
        if inode.mode & libc::S_IFMT != entry.kind {
            return Err(Refusal::Damaged.into());
        }
        Ok(inode)
    }

    pub(super) fn directory(&self, ino: Ino) -> Result<Inode, Stop> {
        let inode = self.inode(ino)?;
        if inode.is_dir() {
            Ok(inode)
        } else {
            Err(Refusal::NotDirectory.into())
        }
    }

    /// A directory that may get a new name: one that was removed, but is still open, may not.
    pub(super) fn live_directory(&self, ino: Ino) -> Result<Inode, Stop> {
        let inode = self.directory(ino)?;
        if inode.nlink == 0 {
            Err(Refusal::NotFound.into())
        } else {
            Ok(inode)
        }
    }

    pub(super) fn put_inode(&mut self, ino: Ino, inode: &Inode) {
        self.class = Some(self.class.map_or(inode.class, |class| class.stricter(inode.class)));
        self.put(key::inode(ino), inode.encode());
    }

    /// The strictest of the inodes that were put.
    pub(super) fn class(&self) -> Option<Class> {
        self.class
    }

    pub(super) fn entry(&self, parent: Ino, name: &[u8]) -> Result<Option<Dirent>, Stop> {
        let value = self.get(&key::dirent(parent, name))?;
        Ok(value.map(|value| Dirent::decode(&value)).transpose()?)
    }

    pub(super) fn xattrs(&self, ino: Ino) -> Result<Xattrs, Stop> {
        let value = self.get(&key::xattrs(ino))?;
        Ok(value
            .map(|value| Xattrs::decode(&value))
            .transpose()?
            .unwrap_or_default())
    }

    pub(super) fn put_xattrs(&mut self, ino: Ino, all: &Xattrs) {
        if all.is_empty() {
            self.delete(key::xattrs(ino));
        } else {
            self.put(key::xattrs(ino), all.encode());
        }
    }

    /// A number that no inode ever had.
    pub(super) fn new_ino(&mut self) -> Result<Ino, Stop> {
        let key = key::own(key::NEXT_INO);
        let number = match self.get(&key)? {
            None => FIRST_INO,
            Some(value) => u64::from_le_bytes(value.as_ref().try_into().map_err(|_| Refusal::Damaged)?),
        };
        let next = number.checked_add(1).ok_or(Refusal::Damaged)?;
        self.put(key, Bytes::copy_from_slice(&next.to_le_bytes()));
        Ok(Ino(number))
    }

    pub(super) fn into_effects(self) -> Vec<Effect> {
        let meta = self.meta.into_iter().map(|(key, value)| match value {
            Some(value) => Effect::Put { key, value },
            None => Effect::Delete { key },
        });
        meta.chain(self.data).collect()
    }
}
