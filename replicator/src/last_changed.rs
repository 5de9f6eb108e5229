//! Which files a node's log says were changed last before it stopped: after a crash of several nodes, what was received of
//! them and never synced may be missing.

use holdfast_storage::disk::Disk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::key;
use holdfast_storage::log::LogReader;
use holdfast_storage::types::{Ino, LogIndex};
use std::collections::HashSet;

/// More than a busy PBX changes in a second: a recording is written five times in it.
const ENTRIES: u64 = 8192;
const BYTES: usize = 64 << 20;
/// So many entries, a MiB each at most, are read whole.
const STEP: u64 = 60;

/// Newest first, each once. What can't be read is left out: it is said elsewhere.
pub fn last_changed<D: Disk>(log: &LogReader<D>, last: LogIndex) -> Vec<Ino> {
    let (mut found, mut seen, mut bytes) = (Vec::new(), HashSet::new(), 0);
    let first = log.first_index().0.max(last.0.saturating_sub(ENTRIES));
    let mut high = last.0 + 1;
    while high > first && bytes < BYTES {
        let low = first.max(high.saturating_sub(STEP));
        let Ok(entries) = log.read(LogIndex(low), LogIndex(high), BYTES) else {
            break;
        };
        for entry in entries.iter().rev() {
            bytes += entry.data.len();
            let Ok(entry) = Entry::decode(entry.index, &entry.data) else {
                continue;
            };
            for effect in &entry.effects {
                let ino = match effect {
                    Effect::Put { key, .. } if key.first() == Some(&b'i') => key::owner(key),
                    Effect::Write { ino, .. } => Some(*ino),
                    _ => None,
                };
                found.extend(ino.filter(|ino| seen.insert(*ino)));
            }
        }
        high = low;
    }
    found
}
