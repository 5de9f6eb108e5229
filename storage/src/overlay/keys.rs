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

/// Of a log entry only this part is kept: a slice would hold all of it in memory, with a MiB of data.
fn own(part: &Bytes) -> Bytes {
    Bytes::copy_from_slice(part)
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
            match self.young.get_mut(key) {
                Some(known) => *known = value.map(own),
                None => self.remember(&own(key), value.map(own)),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_does_not_hold_the_entry_that_it_came_in() {
        let mut keys = Keys::default();
        for round in 1..4 {
            let entry = Bytes::from(vec![round; 1 << 20]);
            let (key, value) = (Bytes::from_static(b"i 12345678"), entry.slice(16..200));
            keys.pend(&key, LogIndex(round.into()), Some(value.clone()));
            keys.settle(&key, LogIndex(round.into()), Some(&value));
            drop(value);
            assert!(entry.is_unique());
            assert_eq!(keys.get(&key), Known::Value(entry.slice(16..200)));
        }
        let entry = Bytes::from(vec![b'i'; 1 << 20]);
        keys.pend(&entry.slice(..9), LogIndex(9), None);
        keys.settle(&entry.slice(..9), LogIndex(9), None);
        assert_eq!((keys.get(b"iiiiiiiii"), entry.is_unique()), (Known::Absent, true));
    }
}
