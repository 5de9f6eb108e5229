//! One part of the PBX: its state, and the one job and the one probe that may be under way for it.

use std::time::Duration;

use holdfast_config::Unit;

use super::Duty;
use crate::clock::{BootMs, Now, UnixMs};

#[derive(Debug, Clone)]
pub struct UnitPolicy {
    pub name: String,
    pub health_every: Duration,
    pub health_failures: u32,
    pub start_timeout: Duration,
    pub stop_timeout: Duration,
}

impl From<&Unit> for UnitPolicy {
    fn from(unit: &Unit) -> Self {
        Self {
            name: unit.name.clone(),
            health_every: unit.health_every,
            health_failures: unit.health_failures.max(1),
            start_timeout: unit.start_timeout,
            stop_timeout: unit.stop_timeout,
        }
    }
}

/// What the verbs of a unit do; each answers with an `Outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Start,
    Stop,
    /// At once: SIGKILL. Any job under way for the unit is abandoned.
    Kill,
    /// Does it run?
    Look,
    /// Does it run, and is it well?
    Check,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The start command has ended well. One that stays in the foreground has no outcome until it ends.
    Started,
    StartFailed(String),
    Stopped(Result<(), String>),
    Killed(Result<(), String>),
    Seen(Seen),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    NotRunning,
    Running,
    Healthy,
    Unhealthy(String),
    /// The question itself failed.
    Unclear(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not looked at yet.
    Unknown,
    Stopped,
    Starting,
    Healthy,
    Stopping,
    Killing,
    /// Unwell after its one restart; looked at, not touched.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitReport {
    pub name: String,
    pub state: &'static str,
    pub detail: String,
    pub since: UnixMs,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) id: u64,
    began: BootMs,
}

/// A probe that hasn't answered for so long is asked again; verbs have shorter limits of their own.
const PROBE_LOST: Duration = Duration::from_secs(35);

pub(super) struct Track {
    pub(super) policy: UnitPolicy,
    pub(super) state: State,
    pub(super) since: Now,
    pub(super) detail: String,
    /// The start command ended badly.
    pub(super) start_error: Option<String>,
    /// Start, stop or kill under way. A start command in the foreground stays here while it runs.
    pub(super) job: Option<Job>,
    pub(super) probe: Option<Job>,
    pub(super) probed: Option<BootMs>,
    pub(super) failures: u32,
    /// The one restart in place is used up.
    pub(super) restarted: bool,
    /// Failed on this node: not eligible until then, unless seen healthy before.
    pub(super) sick_until: Option<BootMs>,
    /// Failed, and seen not to run at all.
    pub(super) is_dead: bool,
    /// When one that failed and doesn't run is tried again.
    pub(super) retry_at: Option<BootMs>,
    pub(super) healthy_since: BootMs,
    next_id: u64,
}

impl Track {
    pub(super) fn new(policy: UnitPolicy, now: Now) -> Self {
        Self {
            policy,
            state: State::Unknown,
            since: now,
            detail: String::new(),
            start_error: None,
            job: None,
            probe: None,
            probed: None,
            failures: 0,
            restarted: false,
            sick_until: None,
            is_dead: false,
            retry_at: None,
            healthy_since: BootMs(0),
            next_id: 0,
        }
    }

    pub(super) fn enter(&mut self, now: Now, state: State, detail: impl Into<String>) {
        if self.state != state {
            self.since = now;
            self.failures = 0;
            self.start_error = None;
            self.is_dead = false;
            // What was asked about the former state says nothing about this one.
            self.probe = None;
            self.probed = None;
        }
        self.state = state;
        self.detail = detail.into();
    }

    /// Begins a job; the one before it, if any, is abandoned.
    pub(super) fn begin(&mut self, unit: usize, now: Now, verb: Verb, duties: &mut Vec<Duty>) {
        let id = self.new_id();
        self.job = Some(Job { id, began: now.boot });
        duties.push(Duty::Unit { unit, job: id, verb });
    }

    /// Asks, if the last question is answered and `every` has passed since it was put.
    pub(super) fn ask(&mut self, unit: usize, now: Now, verb: Verb, every: Duration, duties: &mut Vec<Duty>) {
        let waiting = self.probe.is_some_and(|probe| now.boot.since(probe.began) < PROBE_LOST);
        let early = self.probed.is_some_and(|at| now.boot.since(at) < every);
        if waiting || early {
            return;
        }
        let id = self.new_id();
        self.probe = Some(Job { id, began: now.boot });
        self.probed = Some(now.boot);
        duties.push(Duty::Unit { unit, job: id, verb });
    }

    pub(super) fn in_state_for(&self, now: Now) -> Duration {
        now.boot.since(self.since.boot)
    }

    pub(super) fn report(&self) -> UnitReport {
        let state = match self.state {
            State::Unknown | State::Stopped => "stopped",
            State::Starting => "starting",
            State::Healthy if self.failures > 0 => "unhealthy",
            State::Healthy => "healthy",
            State::Stopping | State::Killing => "stopping",
            State::Failed => "failed",
        };
        let detail = if self.state == State::Unknown && self.detail.is_empty() {
            "not looked at yet"
        } else {
            &self.detail
        };
        UnitReport {
            name: self.policy.name.clone(),
            state,
            detail: detail.to_owned(),
            since: self.since.unix,
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
