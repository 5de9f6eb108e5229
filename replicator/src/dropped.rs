//! The end of a node's log that no majority has: a former active node's last entries, which are replaced when it follows another
//! one. Nobody was told that they are safe; an operator should know what they were.

use crate::clock::unix_ms;
use crate::last_changed::{Changed, changed_between};
use holdfast_storage::disk::Disk;
use holdfast_storage::log::LogReader;
use holdfast_storage::types::LogIndex;
use std::sync::{Mutex, PoisonError};

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
        let Changed { entries, files } = changed_between(log, from, to);
        tracing::warn!(%from, %to, changes = entries, files = files.len(), "the end of this node's log, which no majority has, is replaced by the active node's");
        // A leader's first entry changes nothing.
        if entries == 0 {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.take().map(|dropped| dropped.changed).unwrap_or_default();
        let mut all = files;
        all.extend(
            before
                .files
                .into_iter()
                .filter(|ino| !all.contains(ino))
                .collect::<Vec<_>>(),
        );
        *known = Some(Dropped {
            from,
            to,
            changed: Changed {
                entries: before.entries + entries,
                files: all,
            },
            at_unix_ms: unix_ms(),
        });
    }
}
