//! What is taken in: no more than memory and the log have room for, so that nothing that this node says waits for room.

use super::Core;
use crate::memory_log::OldEntries;
use raft::eraftpb::Entry;

/// Most bytes that are sequenced and not committed.
const UNCOMMITTED_MAX: u64 = 64 << 20;
/// Bytes that a follower holds for a disk that doesn't take them.
const UNSAVED_MAX: u64 = 48 << 20;
const MESSAGE_MAX: u64 = 1 << 20;
/// What an entry takes in the log besides its data, at most.
const ENTRY_BYTES: u64 = 64;

/// Bytes of entries.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Not committed yet, in all.
    pub uncommitted_max: u64,
    /// In one message, if it has more than one.
    pub message_max: u64,
}

impl Sizes {
    /// For a log of this length: what isn't committed takes a quarter of it at most, so that another leader's entries find room;
    /// and a log that holds nothing has room for any message.
    pub fn of_log(log_bytes: u64) -> Self {
        Self {
            uncommitted_max: UNCOMMITTED_MAX.min(log_bytes / 4),
            message_max: MESSAGE_MAX.min(log_bytes / 16),
        }
    }
}

impl<O: OldEntries> Core<O> {
    /// Whether entries of a leader find room behind what is on its way to the log; counts them if they do. Twice their length is
    /// asked for, since a segment may end half used.
    pub(super) fn take_in(&mut self, entries: &[Entry]) -> bool {
        if entries.is_empty() {
            return true;
        }
        let bytes: u64 = entries.iter().map(|entry| entry.data.len() as u64 + ENTRY_BYTES).sum();
        let unsaved = self.node.store().bytes_after(self.durable()) + self.stepped_bytes;
        let fits_log = (unsaved + bytes).saturating_mul(2) <= self.log_room;
        self.is_log_full |= !fits_log;
        let fits = fits_log && unsaved <= UNSAVED_MAX;
        self.stepped_bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Entries were refused for want of room in the log since this was asked last: a checkpoint makes some.
    pub fn take_log_full(&mut self) -> bool {
        std::mem::take(&mut self.is_log_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_log_of_any_size_takes_any_message() {
        for mib in [64_u64, 1024, 65_536] {
            let log = mib << 20;
            let Sizes {
                uncommitted_max,
                message_max,
            } = Sizes::of_log(log);
            // A segment is kept free, and what is checkpointed may share one.
            assert!(2 * message_max <= log - 2 * (log / 16), "{mib} MiB");
            assert!(message_max <= uncommitted_max && uncommitted_max <= log / 4);
        }
    }
}
