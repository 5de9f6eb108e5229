//! Which files a part of a node's log changes: the last before it stopped, for after a crash of several nodes what was received of
//! them and never synced may be missing; and those of a tail that is dropped.

use bytes::Bytes;
use holdfast_storage::disk::Disk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::key;
use holdfast_storage::log::LogReader;
use holdfast_storage::record::Dirent;
use holdfast_storage::types::{Ino, LogIndex};
use std::collections::{BTreeMap, HashSet};

/// More than a busy PBX changes in a second: a recording is written five times in it.
const ENTRIES: u64 = 8192;
const BYTES: usize = 64 << 20;
/// So many entries, a MiB each at most, are read whole.
const STEP: u64 = 60;

/// What entries of a log change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Entries that change anything.
    pub entries: u64,
    /// Newest first, each once.
    pub files: Vec<Ino>,
    /// Names that were given: if the entries are dropped, the inode's number may become another file's.
    pub named: BTreeMap<Ino, Bytes>,
}

pub fn last_changed<D: Disk>(log: &LogReader<D>, last: LogIndex) -> Vec<Ino> {
    changed_between(log, LogIndex::ZERO, last, BYTES).files
}

/// Of the last few thousand from `from` on. What can't be read is left out: it is said elsewhere.
pub(crate) fn changed_between<D: Disk>(log: &LogReader<D>, from: LogIndex, last: LogIndex, most: usize) -> Changed {
    let (mut found, mut seen, mut bytes) = (Changed::default(), HashSet::new(), 0);
    let first = log.first_index().max(from).0.max(last.0.saturating_sub(ENTRIES));
    let mut high = last.0 + 1;
    while high > first && bytes < most {
        let low = first.max(high.saturating_sub(STEP));
        let Ok(entries) = log.read(LogIndex(low), LogIndex(high), most) else {
            break;
        };
        for entry in entries.iter().rev() {
            bytes += entry.data.len();
            let Ok(entry) = Entry::decode(entry.index, &entry.data) else {
                continue;
            };
            found.entries += u64::from(!entry.effects.is_empty());
            for effect in &entry.effects {
                if let Effect::Put { key, value } = effect
                    && key.first() == Some(&b'd')
                    && let Ok(entry) = Dirent::decode(value)
                {
                    found
                        .named
                        .entry(entry.ino)
                        .or_insert_with(|| key.slice(9.min(key.len())..));
                }
                let ino = match effect {
                    Effect::Put { key, .. } if key.first() == Some(&b'i') => key::owner(key),
                    Effect::Write { ino, .. } => Some(*ino),
                    _ => None,
                };
                found.files.extend(ino.filter(|ino| seen.insert(*ino)));
            }
        }
        high = low;
    }
    found
}
