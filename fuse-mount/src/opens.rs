//! How many open files may write to an inode, for the last one to be closed is the end of a recording; and of which inodes
//! something was lost that the kernel took for written.

use holdfast_storage::types::Ino;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub(crate) struct Writers {
    known: Mutex<HashMap<Ino, Known>>,
}

#[derive(Default)]
struct Known {
    writers: u64,
    lost: Option<Lost>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Unreported,
    /// Some fsync has said so.
    Reported,
}

impl Known {
    /// The loss is forgotten when all who may rely on what was lost have closed the file, and one of them was told.
    fn is_over(&self) -> bool {
        self.writers == 0 && self.lost != Some(Lost::Unreported)
    }
}

impl Writers {
    fn known(&self) -> MutexGuard<'_, HashMap<Ino, Known>> {
        self.known.lock().expect("no panic under the lock")
    }

    pub(crate) fn opened(&self, ino: Ino) {
        self.known().entry(ino).or_default().writers += 1;
    }

    pub(crate) fn of(&self, ino: Ino) -> u64 {
        self.known().get(&ino).map_or(0, |known| known.writers)
    }

    /// How many are left.
    pub(crate) fn closed(&self, ino: Ino) -> u64 {
        match self.known().entry(ino) {
            Entry::Occupied(mut held) => {
                let known = held.get_mut();
                known.writers = known.writers.saturating_sub(1);
                let left = known.writers;
                if known.is_over() {
                    held.remove();
                }
                left
            }
            Entry::Vacant(_) => 0,
        }
    }

    /// Pages of a mapping could not be written back. The kernel tells each open file once and then calls them clean.
    pub(crate) fn lost(&self, ino: Ino) {
        self.known().entry(ino).or_default().lost = Some(Lost::Unreported);
    }

    /// Whether an fsync must fail for it, which is taken as having been told.
    pub(crate) fn has_lost(&self, ino: Ino) -> bool {
        let mut known = self.known();
        let Entry::Occupied(mut held) = known.entry(ino) else {
            return false;
        };
        let known = held.get_mut();
        let lost = known.lost.is_some();
        known.lost = known.lost.map(|_| Lost::Reported);
        if known.is_over() {
            held.remove();
        }
        lost
    }
}
