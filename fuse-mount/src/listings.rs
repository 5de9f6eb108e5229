//! Where each reader of a directory stops: at the entries that came after it had begun. Without, who removes and makes
//! names while reading (as a program does that replaces each file) would meet his own new entries for ever, since
//! these always come last.

use fuser::FileHandle;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub(crate) struct Listings {
    opened: AtomicU64,
    /// The cookie that the next new entry would have got.
    ends: Mutex<HashMap<u64, u64>>,
}

impl Listings {
    fn ends(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.ends.lock().expect("no panic under the lock")
    }

    pub(crate) fn open(&self) -> FileHandle {
        FileHandle(self.opened.fetch_add(1, Ordering::Relaxed))
    }

    /// Reading begins, for the first time or anew (rewinddir).
    pub(crate) fn begin(&self, handle: FileHandle, end: u64) {
        self.ends().insert(handle.0, end);
    }

    /// Reading goes on, also from a place of an earlier reading.
    pub(crate) fn end(&self, handle: FileHandle) -> u64 {
        self.ends().get(&handle.0).copied().unwrap_or(u64::MAX)
    }

    pub(crate) fn close(&self, handle: FileHandle) {
        self.ends().remove(&handle.0);
    }
}
