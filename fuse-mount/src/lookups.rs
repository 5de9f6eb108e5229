//! Which inodes the kernel holds: it counts what it was told of, and says when it forgets.
//!
//! An inode without names may go for good once the kernel holds it no more: it holds those that are open, too.

use holdfast_storage::types::Ino;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

const SHARDS: usize = 64;

/// How often the kernel was told of it, and whether it is an orphan: in eight bytes, for the kernel holds millions.
#[derive(Clone, Copy, Default)]
struct Held(u64);

const ORPHANED: u64 = 1 << 63;

impl Held {
    fn count(self) -> u64 {
        self.0 & !ORPHANED
    }
    fn is_orphaned(self) -> bool {
        self.0 & ORPHANED != 0
    }
}

pub(crate) struct Lookups {
    shards: Vec<Mutex<HashMap<Ino, Held>>>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Lookups {
    fn shard(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, Held>> {
        self.shards[(ino.0 % SHARDS as u64) as usize]
            .lock()
            .expect("no panic under the lock")
    }

    /// The kernel is about to be told of this inode: counted before the reply, since its forgetting may overtake us.
    pub(crate) fn found(&self, ino: Ino) {
        self.shard(ino).entry(ino).or_default().0 += 1;
    }

    /// The inode has no name left. Whether to reap it now; if the kernel holds it, `forget` will say so later.
    pub(crate) fn orphaned(&self, ino: Ino) -> bool {
        match self.shard(ino).get_mut(&ino) {
            Some(held) => {
                held.0 |= ORPHANED;
                false
            }
            None => true,
        }
    }

    /// Whether to reap it now.
    pub(crate) fn forget(&self, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino);
        let Some(held) = shard.get_mut(&ino) else { return false };
        held.0 -= count.min(held.count());
        if held.count() > 0 {
            return false;
        }
        shard.remove(&ino).is_some_and(Held::is_orphaned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_is_reaped_when_the_kernel_has_forgotten_it() {
        let lookups = Lookups::default();
        lookups.found(Ino(7));
        lookups.found(Ino(7));
        assert!(!lookups.orphaned(Ino(7)));
        assert!(!lookups.forget(Ino(7), 1));
        assert!(lookups.forget(Ino(7), 1));
    }

    #[test]
    fn an_orphan_that_the_kernel_does_not_hold_is_reaped_at_once() {
        let lookups = Lookups::default();
        lookups.found(Ino(7));
        assert!(!lookups.forget(Ino(7), 1));
        assert!(lookups.orphaned(Ino(7)));
    }
}
