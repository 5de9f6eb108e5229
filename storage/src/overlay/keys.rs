//! One shard of keys: those pending, and a bounded memory of those known to be as in the store.

use crate::key::Key;
use crate::types::LogIndex;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// Keys remembered a generation and shard; two generations are kept.
const GENERATION: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Value(Bytes),
    Absent,
    /// Only the store can tell.
    No,
}

impl From<Option<Bytes>> for Known {
    fn from(value: Option<Bytes>) -> Self {
        value.map_or(Self::Absent, Self::Value)
    }
}

#[derive(Default)]
pub(super) struct Keys {
    pending: BTreeMap<Key, (LogIndex, Option<Bytes>)>,
    /// As in the store. What isn't asked for during a whole generation is forgotten.
    young: HashMap<Key, Option<Bytes>>,
    old: HashMap<Key, Option<Bytes>>,
    /// Fetches under way; a change of the key takes its ticket away, so that a stale value isn't kept.
    filling: HashMap<Key, u64>,
    next_ticket: u64,
}

impl Keys {
    pub(super) fn pend(&mut self, key: &Key, index: LogIndex, value: Option<Bytes>) {
        self.pending.insert(key.clone(), (index, value));
    }

    pub(super) fn settle(&mut self, key: &Key, index: LogIndex, value: Option<&Bytes>) {
        self.filling.remove(key);
        let was_pending = match self.pending.get(key) {
            Some((pending, _)) if *pending <= index => self.pending.remove(key).is_some(),
            Some(_) => true,
            None => false,
        };
        let remembered = self.old.remove(key).is_some() | self.young.contains_key(key);
        // Child records are only ever scanned, and a key that nobody asked for needs no room.
        if (was_pending && key.first() != Some(&b'c')) || remembered {
            self.remember(key, value.cloned());
        }
    }

    fn remember(&mut self, key: &Key, value: Option<Bytes>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.clone(), value);
    }

    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn get(&self, key: &[u8]) -> Known {
        if let Some((_, value)) = self.pending.get(key) {
            return value.clone().into();
        }
        match self.young.get(key).or_else(|| self.old.get(key)) {
            Some(value) => value.clone().into(),
            None => Known::No,
        }
    }

    pub(super) fn begin_fill(&mut self, key: &Key) -> Option<u64> {
        if self.pending.contains_key(key) || self.young.contains_key(key) {
            return None;
        }
        if let Some(value) = self.old.remove(key) {
            self.remember(key, value);
            return None;
        }
        self.next_ticket += 1;
        self.filling.insert(key.clone(), self.next_ticket);
        Some(self.next_ticket)
    }

    pub(super) fn filled(&mut self, key: &Key, ticket: u64, value: Option<Bytes>) {
        if self.filling.get(key) == Some(&ticket) {
            self.filling.remove(key);
            self.remember(key, value);
        }
    }

    pub(super) fn pending_range(&self, prefix: &[u8], from: &[u8]) -> Vec<(Key, Option<Bytes>)> {
        self.pending
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (_, value))| (key.clone(), value.clone()))
            .collect()
    }
}
