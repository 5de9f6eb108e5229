//! The end of a node's log that no majority has: a former active node's last entries, which are replaced when it follows another
//! one. Nobody was told that they are safe; an operator should know what they were.

use crate::clock::unix_ms;
use crate::last_changed::{Changed, changed_between};
use holdfast_storage::disk::Disk;
use holdfast_storage::log::LogReader;
use holdfast_storage::types::LogIndex;
use std::sync::{Mutex, PoisonError};

/// Of the log that are looked at: an active node that can't replicate has little room for more.
const BYTES: usize = 8 << 20;

/// Entries that were dropped since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Of the last time.
    pub from: LogIndex,
    pub to: LogIndex,
    /// Of all times.
    pub changed: Changed,
    pub at_unix_ms: u64,
}

#[derive(Default)]
pub(crate) struct Drops(Mutex<Option<Dropped>>);

impl Drops {
    pub(crate) fn all(&self) -> Option<Dropped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Entries from this index on are about to be replaced. Reads the log: not for the loop.
    pub(crate) fn note<D: Disk>(&self, log: &LogReader<D>, from: LogIndex) {
        let to = log.last_index();
        if from > to {
            return;
        }
        let changed = changed_between(log, from, to, BYTES);
        let changes = changed.entries;
        tracing::warn!(%from, %to, changes, files = changed.files.len(), "the end of this node's log gives way to the active node's");
        // A leader's first entry changes nothing.
        if changes == 0 {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = known.take().map(|dropped| dropped.changed).unwrap_or_default();
        all.entries += changes;
        all.files.extend(changed.files);
        all.named.extend(changed.named);
        *known = Some(Dropped {
            from,
            to,
            changed: all,
            at_unix_ms: unix_ms(),
        });
    }
}
