//! Inodes without names that the kernel still holds: open, mapped, or somebody's working directory. Once it holds
//! one no more it may go for good.
//!
//! Only they are kept here. How often the kernel was told of each inode isn't counted, for it holds tens of millions;
//! it is asked instead. That is enough because an inode without names has no way back into the kernel's memory: it
//! gets no new name (the planner refuses, as the kernel does), names are looked up under their directory's lock, under
//! which they are removed, too, and nothing is looked up by number (FUSE_EXPORT_SUPPORT isn't asked for).

use crate::backend::Backend;
use crate::kernel::Kernel;
use crate::request::Desk;
use holdfast_storage::types::Ino;
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, Weak};
use std::time::Duration;
use tracing::{debug, warn};

/// After a removal whose outcome isn't known, or a reaping that failed: looks at all orphans that the store has, for an hour. What isn't
/// committed yet may be when a majority is back.
const LOOKS: u32 = 360;

#[derive(Default)]
pub(crate) struct Orphans {
    known: Mutex<HashSet<Ino>>,
    looks_left: AtomicU32,
}

impl Orphans {
    fn known(&self) -> MutexGuard<'_, HashSet<Ino>> {
        self.known.lock().expect("no panic under the lock")
    }

    /// It has lost its last name: before the kernel hears so, for it may forget the inode at once.
    pub(crate) fn add(&self, ino: Ino) {
        self.known().insert(ino);
    }

    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.known().contains(&ino)
    }

    /// Whether it was one: true only once.
    fn remove(&self, ino: Ino) -> bool {
        self.known().remove(&ino)
    }

    /// There may be some that aren't known here.
    pub(crate) fn doubt(&self) {
        self.looks_left.store(LOOKS, Ordering::Relaxed);
    }

    fn takes_a_look(&self) -> bool {
        let left = self.looks_left.load(Ordering::Relaxed);
        // A doubt that comes meanwhile stays.
        left > 0
            && self
                .looks_left
                .compare_exchange(left, left - 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// Reaps orphans that the kernel says it has forgotten, until the mount ends.
pub(crate) fn serve<B: Backend>(
    forgotten: &Receiver<Ino>,
    kernel: &Kernel,
    desk: &Weak<Desk<B>>,
    look_every: Duration,
) {
    let mut looked_ms = 0;
    loop {
        let next = forgotten.recv_timeout(look_every);
        let Some(desk) = desk.upgrade() else { return };
        let mut done = match next {
            Ok(ino) => reap_unless_held(ino, kernel, &desk),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now_ms = desk.backend.now_ms();
        if u128::from(now_ms.saturating_sub(looked_ms)) >= look_every.as_millis() && desk.orphans.takes_a_look() {
            looked_ms = now_ms;
            done = done.and(look(kernel, &desk));
        }
        if let Err(error) = done {
            debug!(%error, "the kernel wasn't asked what it holds");
            desk.orphans.doubt();
        }
    }
}

/// Its forgetting alone isn't enough: it may have been told of the inode again before that arrived.
fn reap_unless_held<B: Backend>(ino: Ino, kernel: &Kernel, desk: &Desk<B>) -> io::Result<()> {
    if !kernel.holds(ino)? && desk.orphans.remove(ino) {
        desk.reap(ino);
    }
    Ok(())
}

fn look<B: Backend>(kernel: &Kernel, desk: &Desk<B>) -> io::Result<()> {
    match desk.backend.orphans() {
        Ok(orphans) => orphans.into_iter().try_for_each(|ino| {
            desk.orphans.add(ino);
            reap_unless_held(ino, kernel, desk)
        }),
        Err(failure) => {
            warn!(%failure, "inodes without names can't be listed; they stay until the next mount");
            Ok(())
        }
    }
}
