//! Publishes checkpoints: when half of the log is in use, after a while of quiet work, or when asked.

use super::log::LogWork;
use super::{ThreadEvent, ToLoop};
use crate::clock::boottime_ms;
use crate::copy::Kept;
use crate::disk_health::DiskHealth;
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
/// What a checkpoint may need: the metadata that is still in memory, and some for the files' own.
const ROOM: u64 = 16 << 20;

pub(crate) struct CheckpointThread {
    pub(crate) store: Arc<RealStore>,
    pub(crate) asked: Receiver<()>,
    pub(crate) log: Sender<LogWork>,
    pub(crate) to_loop: ToLoop,
    pub(crate) health: Arc<DiskHealth>,
    /// Receivers of copies will need entries that this node doesn't.
    pub(crate) kept: Arc<Kept>,
    pub(crate) log_used: Arc<AtomicU64>,
    pub(crate) log_total: u64,
}

impl CheckpointThread {
    /// Until the asking side hangs up, or a checkpoint fails.
    pub(crate) fn run(self) {
        let mut looks = 0;
        let mut used_then = 0;
        let mut before = self.store.checkpointed();
        let mut pending = false;
        loop {
            let asked = match self.asked.recv_timeout(LOOK_EVERY) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            looks += 1;
            let used = self.log_used.load(Ordering::Relaxed);
            // It was read before the log's thread had made room.
            used_then = used_then.min(used);
            // Since the last one, a quarter of the log was written: redo stays short, and room is made in time.
            let busy = used.saturating_sub(used_then) > self.log_total / 4
                || used > self.log_total / 10 * 9
                || self.store.data.dirty_files() > DIRTY_FILES;
            pending |= asked;
            // A metadata store that runs out of room in the middle has to be opened anew.
            let room = self.store.space().map_or(true, |space| space.free >= ROOM);
            if !(pending || busy || looks >= QUIET_LOOKS) || !room {
                continue;
            }
            let starved = std::mem::take(&mut pending);
            looks = 0;
            match checkpoint::run(&self.store) {
                Ok(index) => {
                    if index == before {
                        // Applying waits for room, perhaps: asking again at once would only keep two threads busy.
                        self.health.pause(LOOK_EVERY);
                    }
                    before = index;
                    if starved || used > self.log_total / 4 * 3 {
                        self.kept.give_up();
                    }
                    let _ = self.log.send(LogWork::Trim(self.kept.trim_to(index, boottime_ms())));
                    used_then = self.log_used.load(Ordering::Relaxed);
                }
                // The kernel may have dropped what it couldn't write, and won't say so again: only redo from the last
                // checkpoint, at the next start, makes the files right.
                Err(error) => {
                    self.health.fail();
                    let why = format!("a checkpoint failed: {}", chain(&error));
                    let _ = self.to_loop.send(ThreadEvent::Failed(why));
                    return;
                }
            }
        }
    }
}
