//! Inodes without names that the kernel still holds: open, mapped, or somebody's working directory.
//!
//! Only they are kept here. How often the kernel was told of each inode isn't counted: it holds tens of millions.

use holdfast_storage::types::Ino;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub(crate) struct Orphans(Mutex<HashSet<Ino>>);

impl Orphans {
    fn set(&self) -> MutexGuard<'_, HashSet<Ino>> {
        self.0.lock().expect("no panic under the lock")
    }

    /// It has lost its last name: before the kernel hears so, for it may forget the inode at once.
    pub(crate) fn add(&self, ino: Ino) {
        self.set().insert(ino);
    }

    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.set().contains(&ino)
    }

    /// Whether it was one: true only once.
    pub(crate) fn remove(&self, ino: Ino) -> bool {
        self.set().remove(&ino)
    }
}
