//! A line that says how far a pass is: replaced in a terminal, a new one now and then elsewhere.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::amount;
use crate::bar;
use crate::clock::Stopwatch;
use crate::output;

const EVERY: Duration = Duration::from_millis(100);
/// Into a file or a journal.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    bytes_total: u64,
    inodes_total: u64,
    bytes: AtomicU64,
    inodes: AtomicU64,
    began: Stopwatch,
    shown: Mutex<Duration>,
}

impl Progress {
    pub(super) fn new(bytes_total: u64, inodes_total: u64) -> Self {
        Self {
            bytes_total,
            inodes_total,
            bytes: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            began: Stopwatch::start(),
            shown: Mutex::new(Duration::ZERO),
        }
    }

    pub(super) fn bytes(&self, number: u64, path: &Path) {
        self.bytes.fetch_add(number, Ordering::Relaxed);
        self.show(path);
    }

    pub(super) fn inode(&self, path: &Path) {
        self.inodes.fetch_add(1, Ordering::Relaxed);
        self.show(path);
    }

    fn show(&self, path: &Path) {
        let terminal = output::is_progress_shown();
        let elapsed = self.began.elapsed();
        // Who finds it taken needn't show anything.
        let Ok(mut shown) = self.shown.try_lock() else { return };
        if elapsed < *shown + if terminal { EVERY } else { LINE_EVERY } {
            return;
        }
        *shown = elapsed;
        drop(shown);
        let line = self.line(elapsed, path);
        if terminal {
            output::progress(&line);
        } else {
            output::complain(&line);
        }
    }

    fn line(&self, elapsed: Duration, path: &Path) -> String {
        let (bytes, inodes) = (self.bytes.load(Ordering::Relaxed), self.inodes.load(Ordering::Relaxed));
        // Small files cost as much as some KiB each.
        let weight = |bytes: u64, inodes: u64| bytes as f64 + 16384.0 * inodes as f64;
        let part = (weight(bytes, inodes) / weight(self.bytes_total, self.inodes_total).max(1.0)).min(1.0);
        format!(
            "{}  {} of {}, {inodes} of {} inodes, {}/s{}  {}",
            bar::bar(part),
            amount(bytes),
            amount(self.bytes_total),
            self.inodes_total,
            amount((bytes as f64 / elapsed.as_secs_f64().max(0.1)) as u64),
            bar::left(part, elapsed),
            path.display(),
        )
    }
}
