//! How many open files may write to an inode: the last one to be closed is the end of a recording.

use holdfast_storage::types::Ino;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub(crate) struct Writers {
    open: Mutex<HashMap<Ino, u64>>,
}

impl Writers {
    fn open(&self) -> MutexGuard<'_, HashMap<Ino, u64>> {
        self.open.lock().expect("no panic under the lock")
    }

    pub(crate) fn opened(&self, ino: Ino) {
        *self.open().entry(ino).or_default() += 1;
    }

    pub(crate) fn of(&self, ino: Ino) -> u64 {
        self.open().get(&ino).copied().unwrap_or(0)
    }

    /// How many are left.
    pub(crate) fn closed(&self, ino: Ino) -> u64 {
        match self.open().entry(ino) {
            Entry::Occupied(mut held) => {
                *held.get_mut() -= 1;
                let left = *held.get();
                if left == 0 {
                    held.remove();
                }
                left
            }
            Entry::Vacant(_) => 0,
        }
    }
}
