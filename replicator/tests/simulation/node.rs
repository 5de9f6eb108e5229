//! One simulated machine: its clock, its disk, and while it is up, the core with what was handed to it.

use crate::cluster::Timers;
use crate::disk::{SimDisk, append};
use crate::random::Random;
use holdfast_replicator::core::{Core, CoreConfig, CoreStart, Sizes};
use holdfast_storage::log::{HardState, LogEntry};
use holdfast_storage::types::{LogIndex, Term};

/// Reads its own time, at its own rate.
pub(crate) struct Clock {
    offset_ms: u64,
    /// Parts in a million faster (or slower) than true time.
    drift_ppm: i64,
}

impl Clock {
    /// Two of them differ in rate by at most `drift_permille`.
    pub(crate) fn drawn(drift_permille: u64, random: &mut Random) -> Self {
        let most = drift_permille * 1000 / 2;
        Self {
            offset_ms: random.between(1, 1 << 40),
            drift_ppm: random.between(0, 2 * most + 1) as i64 - most as i64,
        }
    }

    pub(crate) fn at_ms(&self, true_us: u64) -> u64 {
        self.offset_ms + (true_us * (1_000_000 + self.drift_ppm) as u64 / 1_000_000) / 1000
    }

    /// True time that passes while this clock counts `ms`.
    pub(crate) fn true_us(&self, ms: u64) -> u64 {
        // Rounded up: a timer never fires early.
        (ms * 1000 * 1_000_000).div_ceil((1_000_000 + self.drift_ppm) as u64)
    }
}

/// An entry that a client waits for.
pub(crate) struct Waiting {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) received: bool,
}

/// What a copy takes from the node that leads.
pub(crate) struct Copied {
    pub(crate) id: u64,
    pub(crate) term: u64,
    pub(crate) committed: u64,
    pub(crate) log: Vec<LogEntry>,
}

/// What lives only as long as the daemon does.
pub(crate) struct Running {
    pub(crate) core: Core<crate::disk::Reader>,
    /// Raft's log in memory, as the outputs so far tell it.
    pub(crate) log: Vec<LogEntry>,
    /// Last entry handed to the state machine.
    pub(crate) handed: u64,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) syncing: bool,
    /// Reads of old entries under way.
    pub(crate) fetching: u32,
    pub(crate) ticks: u64,
    /// Its store had never seen a term when it started.
    pub(crate) fresh: bool,
    pub(crate) committed: u64,
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) clock: Clock,
    pub(crate) disk: SimDisk,
    pub(crate) running: Option<Running>,
    /// Counts starts; events of an earlier one are void.
    pub(crate) start: u64,
    /// Its process gets no processor until then.
    pub(crate) frozen_until_us: u64,
    /// Its disk completes no sync until then.
    pub(crate) syncs_held_until_us: u64,
    pub(crate) clean: bool,
    /// Entries in the store, which a crash doesn't lose here, and the checkpoint at or before it.
    pub(crate) applied: u64,
    pub(crate) gone_for_good: bool,
    pub(crate) applying_until_us: u64,
}

impl Node {
    pub(crate) fn new(id: u64, clock: Clock) -> Self {
        Self {
            id,
            clock,
            disk: SimDisk::default(),
            running: None,
            start: 0,
            frozen_until_us: 0,
            syncs_held_until_us: 0,
            clean: true,
            applied: 0,
            gone_for_good: false,
            applying_until_us: 0,
        }
    }

    pub(crate) fn boot(&mut self, timers: &Timers, now_us: u64, random: &mut Random) {
        assert!(self.running.is_none());
        self.start += 1;
        let hard_state = self.disk.hard_state();
        let checkpoint = random.between(0, self.applied + 1);
        let start = CoreStart {
            hard_state,
            last: LogIndex(self.disk.last()),
            checkpoint: LogIndex(checkpoint),
            committed: LogIndex(self.applied),
            clean: self.clean,
        };
        let config = CoreConfig {
            id: self.id,
            peers: (1..=3).filter(|id| *id != self.id).collect(),
            election_ticks: timers.election_ticks,
            heartbeat_ticks: timers.heartbeat_ticks,
            lease_ms: timers.lease_ms(),
            forgetful_wait_ms: timers.forgetful_wait_ms,
            seed: random.next(),
            sizes: Sizes::of_log(1 << 30),
        };
        let core =
            Core::new(config, start, self.disk.reader(), self.clock.at_ms(now_us)).expect("a stored state is valid");
        self.clean = false;
        self.running = Some(Running {
            core,
            log: self.disk.entries(),
            handed: checkpoint,
            waiting: Vec::new(),
            syncing: false,
            fetching: 0,
            ticks: 0,
            fresh: hard_state.term.0 == 0,
            committed: 0,
        });
    }

    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.running = None;
        self.disk.crash(random);
        self.frozen_until_us = 0;
    }

    /// What its store applied of the entries that are gone, it applies again when they come back.
    pub(crate) fn lose_behind(&mut self, last: u64) {
        self.disk.lose_behind(last);
        self.applied = self.applied.min(last);
    }

    /// The disk is gone, and another one is empty. Not to be started before `copy_from`.
    pub(crate) fn lose_disk(&mut self) {
        assert!(self.running.is_none());
        self.disk = SimDisk::default();
        (self.applied, self.clean) = (0, false);
    }

    /// What a copy leaves: the leader's log up to `checkpoint`, its term, and the vote for it.
    pub(crate) fn copy_from(&mut self, leader: &Copied, checkpoint: u64) {
        let state = HardState {
            term: Term(leader.term),
            vote: leader.id,
            commit: LogIndex(checkpoint),
        };
        self.disk = SimDisk::copied(state, &leader.log[..checkpoint as usize]);
        (self.applied, self.clean) = (checkpoint, false);
    }

    /// Syncs all, then leaves the mark, if it may.
    pub(crate) fn stop(&mut self) {
        let running = self.running.take();
        if let Some(number) = self.disk.newest() {
            self.disk.sync(number);
        }
        self.clean = running.is_some_and(|running| running.core.clean_end().is_some());
        self.frozen_until_us = 0;
    }

    /// Its log as it stands: in memory while it is up, on disk while it is down.
    pub(crate) fn holds(&self, index: u64, term: u64) -> bool {
        let has = |log: &[LogEntry]| log.get(index as usize - 1).is_some_and(|entry| entry.term.0 == term);
        match &self.running {
            Some(running) => has(&running.log),
            None => has(&self.disk.entries()),
        }
    }

    /// As it is now, if it leads and its lease runs.
    pub(crate) fn leads(&self, now_us: u64) -> Option<Copied> {
        let running = self.running.as_ref().filter(|_| self.has_lease(now_us))?;
        Some(Copied {
            id: self.id,
            term: running.core.term(),
            committed: running.core.committed(),
            log: running.log.clone(),
        })
    }

    pub(crate) fn has_lease(&self, now_us: u64) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| self.clock.at_ms(now_us) < running.core.lease_until_ms())
    }
}

impl Running {
    pub(crate) fn take(&mut self, entries: &[LogEntry]) {
        append(&mut self.log, entries);
    }
}
