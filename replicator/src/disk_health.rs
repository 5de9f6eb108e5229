//! How this node's disk does, as those see it who wait for it: the log thread, the apply thread, whoever reads.
//!
//! A disk that stops answering, answers only slowly or can't be read doesn't keep a cluster of three from
//! working: two others have all that is durable. But the active node's programs read from its disk and fill its memory,
//! so it gives the role away.

use crate::clock::boottime_ms;
use holdfast_storage::error::{StoreError, chain};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Duration;

/// A write that takes longer is slow.
const SLOW: Duration = Duration::from_millis(250);
/// The disk is slow if slow writes filled so much of the last window.
const WINDOW_MS: u64 = 10_000;
const SLOW_PERCENT: u64 = 75;
/// A tick and what it may be late.
const STALE_MS: u64 = 300;
/// Applying has more to do in one piece: files are deleted, checks read.
const APPLY_TIMES: u64 = 3;
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One write and sync of the log.
    Log,
    /// One batch of entries carried out.
    Apply,
}

#[derive(Debug, Default)]
pub struct DiskHealth {
    /// This process's own running time in ms, a tick at a time: a process that was stopped must not blame its disk.
    running_ms: AtomicU64,
    /// Moments at which the work under way began; 0: none is.
    log_began: AtomicU64,
    apply_began: AtomicU64,
    /// Time that slow writes took, ever; the same when the window began; and the share of the window before, in percent.
    slow_ms: AtomicU64,
    slow_ms_then: AtomicU64,
    window_began: AtomicU64,
    slow_percent: AtomicU64,
    /// Since when applying waits for room.
    full_since: AtomicU64,
    /// A write, sync or checkpoint was refused: nothing on this disk may be called clean.
    failed: AtomicBool,
    /// Nothing waits any more: the process is ending.
    ending: Mutex<bool>,
    ended: Condvar,
    /// The first read that failed, and when.
    unreadable: OnceLock<(String, u64)>,
}

/// What is wrong with the disk, and for how long it has been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskTrouble {
    pub for_ms: u64,
    pub fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What was begun then isn't done yet.
    Stalled,
    /// Slow writes filled so many percent of the last ten seconds.
    Slow(u64),
    /// What is committed can't be carried out for want of room. It goes on when there is some.
    Full,
    /// A read failed. Holds until the daemon is started anew.
    Unreadable(String),
    /// All is well again, for a short while.
    Mending,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled => write!(out, "its disk doesn't answer"),
            Self::Slow(percent) => write!(
                out,
                "its disk is slow: single writes that took more than {SLOW:?} fill {percent} % of the time"
            ),
            Self::Unreadable(why) => write!(out, "its disk can't be read: {why}"),
            Self::Full => write!(out, "its disk is full, and applying waits for room"),
            Self::Mending => write!(out, "its disk was in trouble until a moment ago"),
        }
    }
}

/// This process's want of something isn't.
pub(crate) fn is_the_disks_fault(error: &std::io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
    )
}

impl DiskHealth {
    fn began(&self, work: Work) -> &AtomicU64 {
        match work {
            Work::Log => &self.log_began,
            Work::Apply => &self.apply_began,
        }
    }

    /// The loop's clock, at every tick.
    pub(crate) fn tick(&self, running_ms: u64) {
        self.running_ms.store(running_ms, Ordering::Relaxed);
        let window = running_ms - self.window_began.load(Ordering::Relaxed).min(running_ms);
        if window >= WINDOW_MS {
            let slow = self.slow_ms.load(Ordering::Relaxed);
            let before = self.slow_ms_then.swap(slow, Ordering::Relaxed);
            self.slow_percent
                .store(((slow - before) * 100 / window).min(100), Ordering::Relaxed);
            self.window_began.store(running_ms, Ordering::Relaxed);
        }
    }

    /// Does the work, and watches how long it takes.
    pub(crate) fn watch<T>(&self, work: Work, done: impl FnOnce() -> T) -> T {
        let (began, running) = (boottime_ms(), self.running());
        self.begin(work);
        let result = done();
        let took = boottime_ms().saturating_sub(began);
        // While the process was stopped its own time stood still, up to the tick that was due.
        let ran = self.running().saturating_sub(running) + STALE_MS;
        self.end(work, Duration::from_millis(took.min(ran)));
        result
    }

    fn running(&self) -> u64 {
        self.running_ms.load(Ordering::Relaxed).max(1)
    }

    fn begin(&self, work: Work) {
        self.began(work).store(self.running(), Ordering::Relaxed);
    }

    fn end(&self, work: Work, took: Duration) {
        self.began(work).store(0, Ordering::Relaxed);
        // Applying takes the processor's time as well: how long it takes says little of the disk.
        if work == Work::Log && took >= SLOW {
            self.slow_ms.fetch_add(took.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Waits until `has_room`; false if the process ends before.
    pub(crate) fn wait_for_room(&self, mut has_room: impl FnMut() -> bool) -> bool {
        while !has_room() {
            let _since = self
                .full_since
                .compare_exchange(0, self.running(), Ordering::Relaxed, Ordering::Relaxed);
            let ending = self.ending.lock().expect("no panic under the lock");
            let looked = self
                .ended
                .wait_timeout_while(ending, LOOK_FOR_ROOM_EVERY, |ending| !*ending);
            if *looked.expect("no panic under the lock").0 {
                return false;
            }
        }
        self.full_since.store(0, Ordering::Relaxed);
        true
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits so long, or until the process ends.
    pub(crate) fn pause(&self, length: Duration) {
        let ending = self.ending.lock().expect("no panic under the lock");
        drop(self.ended.wait_timeout_while(ending, length, |ending| !*ending));
    }

    pub(crate) fn end_waiting(&self) {
        *self.ending.lock().expect("no panic under the lock") = true;
        self.ended.notify_all();
    }

    /// Rot of single blocks isn't the disk's refusal: it is counted where it is found.
    pub(crate) fn read_failed(&self, error: &StoreError) {
        let refused = match error {
            StoreError::Meta { .. } => true,
            StoreError::Disk { source, .. } => is_the_disks_fault(source),
            _ => false,
        };
        if refused {
            self.unreadable(chain(error));
        }
    }

    pub(crate) fn unreadable(&self, why: String) {
        let _the_first_says_enough = self.unreadable.set((why, self.running()));
    }

    pub(crate) fn trouble(&self, stall_ms: u64) -> Option<DiskTrouble> {
        let now = self.running();
        let since = |moment: u64, fault| DiskTrouble {
            for_ms: now.saturating_sub(moment),
            fault,
        };
        let unreadable = || {
            self.unreadable
                .get()
                .map(|(why, at)| since(*at, Fault::Unreadable(why.clone())))
        };
        let stalled = || {
            let mut both = [(&self.log_began, stall_ms), (&self.apply_began, stall_ms * APPLY_TIMES)].into_iter();
            both.find_map(|(began, limit_ms)| {
                let began = began.load(Ordering::Relaxed);
                (began > 0 && now >= began + limit_ms).then(|| since(began, Fault::Stalled))
            })
        };
        let slow = || {
            let percent = self.slow_percent.load(Ordering::Relaxed);
            let window_before = self.window_began.load(Ordering::Relaxed).saturating_sub(WINDOW_MS);
            (percent >= SLOW_PERCENT).then(|| since(window_before, Fault::Slow(percent)))
        };
        let full = || {
            let began = self.full_since.load(Ordering::Relaxed);
            (began > 0).then(|| since(began, Fault::Full))
        };
        unreadable().or_else(full).or_else(stalled).or_else(slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_MS: u64 = 3000;

    fn fault(health: &DiskHealth, now_ms: u64) -> Option<Fault> {
        health.tick(now_ms);
        health.trouble(STALL_MS).map(|trouble| trouble.fault)
    }

    #[test]
    fn what_isnt_done_in_time_stalls_and_what_is_done_ends_that() {
        for (work, limit_ms) in [(Work::Log, STALL_MS), (Work::Apply, STALL_MS * APPLY_TIMES)] {
            let health = DiskHealth::default();
            health.tick(1000);
            health.begin(work);
            assert_eq!(fault(&health, 999 + limit_ms), None);
            assert_eq!(fault(&health, 1000 + limit_ms), Some(Fault::Stalled));
            health.end(work, Duration::from_secs(3));
            assert_eq!(fault(&health, 1001 + limit_ms), None);
        }
    }

    /// Writes of these durations, one after the other, for a minute; the first moment at which the disk was called slow.
    fn slow_at(durations: &[u64], rest: u64) -> Option<u64> {
        let health = DiskHealth::default();
        let mut now = 100;
        for took in durations.iter().cycle() {
            health.tick(now);
            health.begin(Work::Log);
            health.end(Work::Log, Duration::from_millis(*took));
            now += took + rest;
            if let Some(Fault::Slow(_)) = fault(&health, now) {
                return Some(now);
            }
            if now > 60_000 {
                return None;
            }
        }
        None
    }

    #[test]
    fn a_disk_is_slow_if_it_spends_its_time_in_slow_writes() {
        assert!(slow_at(&[900], 1).is_some_and(|at| at < 12_000));
        // In the moment between two hangs there are many fast ones.
        assert!(slow_at(&[350, 1, 1, 1, 1, 1, 1], 1).is_some_and(|at| at < 12_000));
        assert_eq!(slow_at(&[200], 0), None, "a busy old disk");
        assert_eq!(slow_at(&[400], 600), None, "slow, but hardly used");
        assert_eq!(slow_at(&[2000, 5, 5, 5], 400), None, "a hiccup");
    }

    #[test]
    fn a_failed_read_is_told_first_and_for_good() {
        let health = DiskHealth::default();
        health.tick(5);
        health.begin(Work::Apply);
        health.unreadable("reading data/7: EIO".into());
        health.unreadable("another".into());
        health.tick(1_000_000);
        let trouble = health.trouble(STALL_MS).unwrap();
        assert_eq!(trouble.for_ms, 999_995);
        assert_eq!(trouble.fault, Fault::Unreadable("reading data/7: EIO".into()));
    }
}
