//! Publishes checkpoints: when half of the log is in use, after a while of quiet work, or when asked.

use super::log::LogWork;
use super::{ThreadEvent, ToLoop};
use holdfast_storage::error::chain;
use holdfast_storage::{RealStore, checkpoint};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks between two checkpoints of a node that isn't busy.
const QUIET_LOOKS: u32 = 120;
const DIRTY_FILES: usize = 4096;

pub(crate) struct CheckpointThread {
    pub(crate) store: Arc<RealStore>,
    pub(crate) asked: Receiver<()>,
    pub(crate) log: Sender<LogWork>,
    pub(crate) to_loop: ToLoop,
    pub(crate) log_used: Arc<AtomicU64>,
    pub(crate) log_total: u64,
}

impl CheckpointThread {
    /// Until the asking side hangs up, or a checkpoint fails.
    pub(crate) fn run(self) {
        let mut looks = 0;
        let mut used_then = 0;
        loop {
            let asked = match self.asked.recv_timeout(LOOK_EVERY) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            looks += 1;
            let used = self.log_used.load(Ordering::Relaxed);
            // Since the last one, a quarter of the log was written: redo stays short, and room is made in time.
            let busy = used.saturating_sub(used_then) > self.log_total / 4
                || used > self.log_total / 10 * 9
                || self.store.data.dirty_files() > DIRTY_FILES;
            if !(asked || busy || looks >= QUIET_LOOKS) {
                continue;
            }
            looks = 0;
            match checkpoint::run(&self.store) {
                Ok(index) => {
                    let _ = self.log.send(LogWork::Trim(index));
                    used_then = self.log_used.load(Ordering::Relaxed);
                }
                // The kernel may have dropped what it couldn't write, and won't say so again: only redo from the last
                // checkpoint, at the next start, makes the files right.
                Err(error) => {
                    let why = format!("a checkpoint failed: {}", chain(&error));
                    let _ = self.to_loop.send(ThreadEvent::Failed(why));
                    return;
                }
            }
        }
    }
}
