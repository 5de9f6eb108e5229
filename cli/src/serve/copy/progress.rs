//! How far a copy has come, for status and for the log.

use holdfast_proto::control::{CopyProgress, Notice};
use holdfast_replicator::clock::{boottime_ms, unix_ms};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::words;

/// Nothing came for so long: status says so.
const STALLED_MS: u64 = 5_000;
/// So many passes: what is changed is too much for the log.
const MANY_PASSES: u32 = 4;

#[derive(Clone, Default)]
pub(super) struct Progress {
    pub(super) source: String,
    pub(super) keys: u64,
    pub(super) keys_total: u64,
    pub(super) bytes: u64,
    /// Passes so far, this one included: each later one compares what was changed during the one before.
    pub(super) passes: u32,
    /// When this pass began (CLOCK_BOOTTIME).
    pub(super) pass_began_ms: u64,
    /// Checksums are being made anew first.
    pub(super) preparing: bool,
    /// Why it doesn't go on; tried again.
    pub(super) trouble: Option<String>,
    /// This node's mount point couldn't be taken.
    pub(super) unmounted: bool,
    moved_ms: u64,
    began_unix_ms: u64,
}

/// One writer, several readers.
pub(super) struct Shown(Mutex<Progress>);

impl Shown {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Progress {
            preparing: true,
            moved_ms: boottime_ms(),
            began_unix_ms: unix_ms(),
            ..Progress::default()
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Progress {
        self.inner().clone()
    }

    /// Something has come.
    pub(super) fn update(&self, change: impl FnOnce(&mut Progress)) {
        let mut inner = self.inner();
        change(&mut inner);
        inner.trouble = None;
        inner.moved_ms = boottime_ms();
    }

    /// A pass begins: the source has agreed, which doesn't say yet that anything comes.
    pub(super) fn begins(&self, source: &str, keys: u64) {
        let mut inner = self.inner();
        let now_ms = boottime_ms();
        source.clone_into(&mut inner.source);
        (inner.keys, inner.keys_total) = (0, keys);
        inner.pass_began_ms = now_ms;
        inner.preparing = false;
        if inner.trouble.is_none() {
            inner.passes += 1;
            inner.moved_ms = now_ms;
        }
    }

    pub(super) fn unmounted(&self) {
        self.inner().unmounted = true;
    }

    /// It doesn't go on, for this reason.
    pub(super) fn trouble(&self, why: String) {
        self.inner().trouble = Some(why);
    }
}

impl Progress {
    /// Of the keys; their number is the source's guess.
    fn share(&self) -> f64 {
        self.keys as f64 / self.keys_total.max(self.keys).max(1) as f64
    }

    /// About how long this pass goes on; 0: not known yet.
    fn left_ms(&self, now_ms: u64) -> u64 {
        let (took, share) = (now_ms.saturating_sub(self.pass_began_ms), self.share());
        if self.pass_began_ms == 0 || share < 0.01 {
            return 0;
        }
        (took as f64 * (1.0 - share) / share) as u64
    }

    pub(super) fn message(&self) -> CopyProgress {
        CopyProgress {
            source: self.source.clone(),
            keys: self.keys,
            keys_total: self.keys_total,
            bytes: self.bytes,
            left_ms: self.left_ms(boottime_ms()),
        }
    }

    pub(super) fn notice(&self) -> Notice {
        let now_ms = boottime_ms();
        let still_ms = now_ms.saturating_sub(self.moved_ms);
        let advice = "It goes on by itself, also after an interruption; then this node catches up and can take over again. The two others go on.";
        let (what, serious) = match &self.trouble {
            Some(why) => (
                format!(
                    "the store is to be copied from the active node, and for {} that doesn't go on: {why}",
                    words::seconds(still_ms)
                ),
                true,
            ),
            None if self.preparing => (
                "before the store is copied from the active node, its files are read to see what they hold".into(),
                false,
            ),
            None => {
                let stalled = if still_ms >= STALLED_MS {
                    format!("; nothing has come for {}", words::seconds(still_ms))
                } else {
                    String::new()
                };
                let left = match self.left_ms(now_ms) {
                    0 => String::new(),
                    ms => format!(", about {} left", words::seconds(ms)),
                };
                let pass = match self.passes {
                    0 | 1 => String::new(),
                    pass => format!(" (pass {pass}: the one before took longer than the log reaches back)"),
                };
                let what = format!(
                    "the store is being copied from {}{pass}: {:.0} % compared, {} have come{left}{stalled}",
                    self.source,
                    self.share() * 100.0,
                    words::bytes(self.bytes),
                );
                (what, still_ms >= STALLED_MS)
            }
        };
        let advice = if self.passes >= MANY_PASSES {
            format!(
                "{advice} So much is changed meanwhile that it doesn't come to an end: it will when less is, or with a larger `store.log_mib` on all three nodes (their daemons started anew, a standby's first)."
            )
        } else {
            advice.to_owned()
        };
        Notice {
            what,
            advice,
            since_unix_ms: self.began_unix_ms,
            serious,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_it_is_and_how_long_it_takes() {
        let progress = Progress {
            source: "n1".into(),
            keys: 250,
            keys_total: 1000,
            pass_began_ms: 1000,
            ..Progress::default()
        };
        assert_eq!(progress.left_ms(2000), 3000);
        let guessed_too_low = Progress {
            keys: 2000,
            ..progress.clone()
        };
        assert_eq!(guessed_too_low.left_ms(2000), 0);
        assert!(
            progress.notice().what.contains("25 % compared"),
            "{}",
            progress.notice().what
        );
    }

    #[test]
    fn a_source_that_agrees_and_sends_nothing_ends_no_trouble() {
        let shown = Shown::new();
        shown.begins("n1", 100);
        shown.trouble("the connection was cut".into());
        shown.begins("n1", 100);
        assert!(shown.get().notice().what.contains("the connection was cut"));
        shown.update(|progress| progress.keys = 50);
        let notice = shown.get().notice();
        assert!(
            !notice.serious && notice.what.contains("50 % compared"),
            "{}",
            notice.what
        );
    }

    #[test]
    fn passes_that_do_not_end_are_said() {
        let shown = Shown::new();
        for _ in 0..MANY_PASSES {
            shown.begins("n1", 100);
            shown.update(|progress| progress.keys = 100);
        }
        let notice = shown.get().notice();
        assert!(
            notice.what.contains("pass 4") && notice.advice.contains("log_mib"),
            "{notice:?}"
        );
    }

    #[test]
    fn a_reason_why_it_stands_still_is_said() {
        let shown = Shown::new();
        shown.trouble("no node is active".into());
        let notice = shown.get().notice();
        assert!(notice.serious && notice.what.contains("no node is active"));
    }
}
