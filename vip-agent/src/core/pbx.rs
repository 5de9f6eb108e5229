//! The PBX as a whole: which unit is started, stopped, killed or looked at next.
//!
//! Never flap: a unit that turns unwell on the active node is restarted in place once a role (the right to a restart
//! comes back after ten healthy minutes). If that doesn't help it is left as it is, still looked at, and this node is
//! not eligible, with the reason, for ten minutes or until the unit is seen healthy again (unless its file system had died
//! under it); as a standby it still serves if it is elected and nobody else can. If it doesn't run at all the daemon gives the role to a node that may do better, if there is one; where there is none
//! it is tried again after those ten minutes. Units after a failed one are not started.

use std::time::Duration;

use super::Duty;
use super::notices::{Notice, Notices};
use super::unit::{Outcome, Seen, State, Track, UnitPolicy, UnitReport, Verb};
use crate::clock::{BootMs, Now, UnixMs};
use crate::lease::Standing;

/// What the role asks of the PBX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Start what is stopped, in order, each awaited healthy; watch what runs.
    Run,
    /// Touch nothing and judge nothing: requests to the file system are held, so every probe would fail.
    Leave,
    /// Politely, in reverse order.
    Stop,
    /// All at once, by SIGKILL.
    Kill,
}

const LOOK_SOON: Duration = Duration::from_millis(100);
/// The PBX is waited for by everybody when it starts.
const CHECK_STARTING: Duration = Duration::from_millis(100);
/// A standby looks so often whether somebody started the PBX on it.
const PATROL: Duration = Duration::from_secs(5);
/// Longer than a unit's `kill` command may take, which would never get to its end otherwise.
const KILL_AGAIN: Duration = Duration::from_secs(6);
const SICK_FOR: Duration = Duration::from_secs(600);
/// How long before the end of a role was heard of its files may have been dead.
const EXCUSED: Duration = Duration::from_secs(5);
const RESTART_EARNED: Duration = Duration::from_secs(600);

pub struct Pbx {
    units: Vec<Track>,
    goal: Goal,
    all_healthy: Option<UnixMs>,
}

impl Pbx {
    pub fn new(policies: Vec<UnitPolicy>, now: Now) -> Self {
        let units = policies.into_iter().map(|policy| Track::new(policy, now)).collect();
        Self {
            units,
            goal: Goal::Leave,
            all_healthy: None,
        }
    }

    /// A new role: each unit has its one restart again.
    pub fn begin_role(&mut self) {
        for unit in &mut self.units {
            unit.restarted = false;
        }
        self.all_healthy = None;
    }

    /// The role's file system ended just now, against its will: what failed in its last moments failed for that, and
    /// must not keep this node from being active again.
    pub fn excuse(&mut self, now: BootMs) {
        for unit in &mut self.units {
            unit.sick_until = unit.sick_until.filter(|until| until.since(now) + EXCUSED < SICK_FOR);
        }
    }

    pub fn all_stopped(&self) -> bool {
        self.units.iter().all(|unit| unit.state == State::Stopped)
    }

    pub fn all_healthy_since(&self) -> Option<UnixMs> {
        self.all_healthy
    }

    pub fn report(&self) -> Vec<UnitReport> {
        self.units.iter().map(Track::report).collect()
    }

    pub fn phase(&self) -> String {
        match self.units.iter().find(|unit| unit.state != State::Healthy) {
            None => "active: address held, PBX healthy".to_owned(),
            Some(unit) if unit.state == State::Failed => {
                format!("active, but unit {} has failed: {}", unit.policy.name, unit.detail)
            }
            Some(unit) => format!("starting the PBX: waiting for unit {} to be healthy", unit.policy.name),
        }
    }

    pub fn not_eligible_because(&self, now: BootMs, standing: Standing) -> Vec<String> {
        let idle = matches!(standing, Standing::Idle | Standing::Waiting);
        self.units
            .iter()
            .filter_map(|unit| ineligible(unit, now, idle))
            .collect()
    }

    /// Nothing of it runs, and all that stands against this node is that a unit failed in a role before.
    pub fn only_failed_before(&self, now: BootMs, standing: Standing) -> bool {
        let idle = matches!(standing, Standing::Idle | Standing::Waiting);
        let is_sick = |unit: &Track| unit.sick_until.is_some_and(|until| now < until);
        idle && self.all_stopped() && self.units.iter().any(is_sick)
    }

    /// A unit has failed and doesn't run, and the PBX was never whole in this role, or none of it serves any more. One that runs,
    /// however unwell, may be what calls go through, or may take its time to come up: it is left to itself.
    pub fn has_given_up(&self) -> bool {
        let serves = self.units.iter().any(|unit| unit.state == State::Healthy);
        let is_dead = self.units.iter().any(|unit| unit.is_dead);
        self.goal == Goal::Run && is_dead && (self.all_healthy.is_none() || !serves)
    }

    pub fn duties(&mut self, now: Now, goal: Goal, notices: &mut Notices, duties: &mut Vec<Duty>) {
        if goal != self.goal {
            self.change_goal(now, goal);
        }
        for index in self.order() {
            match goal {
                Goal::Run => self.run(index, now, notices, duties),
                Goal::Leave => self.finish(index, now, notices, duties),
                Goal::Stop => self.stop(index, now, notices, duties),
                Goal::Kill => self.kill(index, now, notices, duties),
            }
        }
        self.note_health(now);
    }

    /// What starts first stops last.
    fn order(&self) -> Vec<usize> {
        match self.goal {
            Goal::Run | Goal::Leave => (0..self.units.len()).collect(),
            Goal::Stop | Goal::Kill => (0..self.units.len()).rev().collect(),
        }
    }

    fn change_goal(&mut self, now: Now, goal: Goal) {
        self.goal = goal;
        for unit in &mut self.units {
            // A probe of the time before may have failed for a reason that is gone, or pass for one that is.
            unit.probe = None;
            unit.probed = None;
            unit.failures = 0;
            if unit.state == State::Starting {
                unit.since = now;
            }
        }
        if matches!(goal, Goal::Stop | Goal::Kill) {
            self.all_healthy = None;
        }
    }

    fn note_health(&mut self, now: Now) {
        let all = self.goal == Goal::Run && self.units.iter().all(|unit| unit.state == State::Healthy);
        if all && self.all_healthy.is_none() {
            self.all_healthy = Some(now.unix);
        }
    }

    fn run(&mut self, index: usize, now: Now, notices: &mut Notices, duties: &mut Vec<Duty>) {
        let may_start = self.units[..index].iter().all(|unit| unit.state == State::Healthy);
        let unit = &mut self.units[index];
        match unit.state {
            // Whether it runs comes first: a probe may pass without it.
            State::Unknown => unit.ask(index, now, Verb::Look, CHECK_STARTING, duties),
            State::Stopped if may_start => {
                unit.enter(now, State::Starting, "");
                unit.begin(index, now, Verb::Start, duties);
            }
            State::Stopped => {}
            State::Starting if unit.start_error.is_some() => {
                let why = unit.start_error.take().unwrap_or_default();
                start_failed(unit, index, now, &why, notices, duties);
            }
            State::Starting if unit.in_state_for(now) >= unit.policy.start_timeout => {
                let why = format!(
                    "not healthy within {:?} of its start: {}",
                    unit.policy.start_timeout, unit.detail
                );
                start_failed(unit, index, now, &why, notices, duties);
            }
            State::Starting => unit.ask(index, now, Verb::Check, CHECK_STARTING, duties),
            State::Failed if unit.is_dead && unit.retry_at.is_some_and(|at| now.boot >= at) => {
                // Nobody else could take the role: what was in the way may be gone.
                unit.retry_at = None;
                unit.enter(now, State::Stopping, format!("being tried again: {}", unit.detail));
                unit.begin(index, now, Verb::Stop, duties);
            }
            State::Healthy | State::Failed => unit.ask(index, now, Verb::Check, unit.policy.health_every, duties),
            State::Stopping | State::Killing => self.finish(index, now, notices, duties),
        }
        let unit = &mut self.units[index];
        if unit.state == State::Healthy && now.boot.since(unit.healthy_since) >= RESTART_EARNED {
            unit.restarted = false;
        }
        if unit.state == State::Healthy && unit.failures >= unit.policy.health_failures {
            unwell(unit, index, now, notices, duties);
        }
    }

    fn stop(&mut self, index: usize, now: Now, notices: &mut Notices, duties: &mut Vec<Duty>) {
        let turn = self.units[index + 1..].iter().all(|unit| unit.state == State::Stopped);
        let unit = &mut self.units[index];
        match unit.state {
            State::Stopped => {}
            State::Unknown => unit.ask(index, now, Verb::Look, LOOK_SOON, duties),
            State::Starting | State::Healthy | State::Failed if turn => {
                unit.enter(now, State::Stopping, "");
                unit.begin(index, now, Verb::Stop, duties);
            }
            State::Starting | State::Healthy | State::Failed => {}
            State::Stopping | State::Killing => self.finish(index, now, notices, duties),
        }
    }

    fn kill(&mut self, index: usize, now: Now, notices: &mut Notices, duties: &mut Vec<Duty>) {
        let unit = &mut self.units[index];
        match unit.state {
            State::Stopped => unit.ask(index, now, Verb::Look, PATROL, duties),
            State::Unknown => unit.ask(index, now, Verb::Look, LOOK_SOON, duties),
            State::Starting | State::Healthy | State::Failed | State::Stopping => {
                kill_now(unit, index, now, "", duties);
            }
            State::Killing => self.finish(index, now, notices, duties),
        }
    }

    /// Goes on with a stop or a kill that has begun, whatever the goal is now.
    fn finish(&mut self, index: usize, now: Now, notices: &mut Notices, duties: &mut Vec<Duty>) {
        let unit = &mut self.units[index];
        match unit.state {
            State::Stopping if unit.in_state_for(now) >= unit.policy.stop_timeout => {
                let name = &unit.policy.name;
                let what = format!(
                    "unit {name} didn't stop within {:?}; it is killed",
                    unit.policy.stop_timeout
                );
                notices.raise(
                    format!("stop-{name}"),
                    notice(now, what, "raise its stop_timeout_ms if it needs longer", false),
                );
                kill_now(unit, index, now, "", duties);
            }
            State::Stopping if unit.job.is_none() => unit.ask(index, now, Verb::Look, LOOK_SOON, duties),
            State::Killing if unit.in_state_for(now) >= KILL_AGAIN => {
                let name = &unit.policy.name;
                let what = format!(
                    "unit {name} still runs {:?} after it was killed; it is killed again",
                    KILL_AGAIN
                );
                notices.raise(
                    format!("kill-{name}"),
                    notice(
                        now,
                        what,
                        "if it stays, the unit's `kill` command doesn't reach it",
                        true,
                    ),
                );
                unit.since = now;
                unit.begin(index, now, Verb::Kill, duties);
            }
            // Also while the kill goes on: its command may take its time after everything is dead.
            State::Killing => unit.ask(index, now, Verb::Look, LOOK_SOON, duties),
            _ => {}
        }
    }

    pub fn hear(&mut self, now: Now, index: usize, job: u64, outcome: Outcome, notices: &mut Notices) {
        let Some(unit) = self.units.get_mut(index) else { return };
        if unit.job.is_some_and(|running| running.id == job) {
            unit.job = None;
            hear_job(unit, outcome);
        } else if unit.probe.is_some_and(|running| running.id == job) {
            unit.probe = None;
            if let Outcome::Seen(seen) = outcome {
                hear_seen(unit, now, self.goal, seen, notices);
            }
        }
    }
}

fn hear_job(unit: &mut Track, outcome: Outcome) {
    match outcome {
        Outcome::StartFailed(why) if unit.state == State::Starting => unit.start_error = Some(why),
        Outcome::Stopped(Err(why)) | Outcome::Killed(Err(why)) => unit.detail = why,
        Outcome::Started
        | Outcome::StartFailed(_)
        | Outcome::Stopped(Ok(()))
        | Outcome::Killed(Ok(()))
        | Outcome::Seen(_) => {}
    }
    unit.probed = None;
}

fn hear_seen(unit: &mut Track, now: Now, goal: Goal, seen: Seen, notices: &mut Notices) {
    if unit.state == State::Failed && !matches!(seen, Seen::Unclear(_)) {
        unit.is_dead = seen == Seen::NotRunning;
    }
    match (unit.state, seen) {
        (State::Unknown | State::Stopping | State::Killing, Seen::NotRunning) => unit.enter(now, State::Stopped, ""),
        (State::Stopping | State::Killing, _) => {}
        (State::Stopped | State::Unknown, Seen::Running) if goal == Goal::Kill => found_running(unit, now, notices),
        (State::Unknown, Seen::Unclear(why)) if goal == Goal::Kill => unit.enter(now, State::Failed, why),
        // Perhaps still coming up: it gets the time of a start, and its probe says when it is healthy.
        (State::Unknown, Seen::Running) => unit.enter(now, State::Starting, ""),
        (State::Stopped, Seen::Unclear(why)) => unit.detail = why,
        (State::Stopped, _) => unit.detail.clear(),
        (State::Unknown | State::Starting | State::Healthy | State::Failed, Seen::Healthy) => healthy(unit, now),
        (State::Unknown, Seen::Unhealthy(why) | Seen::Unclear(why)) => {
            // Runs already, perhaps still coming up: it gets the time of a start.
            unit.enter(now, State::Starting, why);
        }
        (State::Healthy, Seen::NotRunning) => {
            unit.failures = unit.policy.health_failures;
            unit.detail = "it has ended by itself".to_owned();
        }
        (State::Healthy, Seen::Unhealthy(why) | Seen::Unclear(why)) => {
            unit.failures += 1;
            unit.detail = why;
        }
        (State::Starting, Seen::Unhealthy(why) | Seen::Unclear(why)) => unit.detail = why,
        (State::Starting, Seen::NotRunning) => unit.detail = "not running yet".to_owned(),
        (State::Failed, Seen::Unhealthy(why) | Seen::Unclear(why)) => unit.detail = why,
        (State::Failed, Seen::NotRunning) => unit.detail = "it doesn't run".to_owned(),
        (State::Starting | State::Healthy | State::Failed, Seen::Running) => {}
    }
}

fn healthy(unit: &mut Track, now: Now) {
    if unit.state != State::Healthy {
        unit.healthy_since = now.boot;
    }
    unit.enter(now, State::Healthy, "");
    unit.failures = 0;
    unit.sick_until = None;
}

/// On a node without a role: killed at the next step, for there is no file system to stop it on.
fn found_running(unit: &mut Track, now: Now, notices: &mut Notices) {
    let name = &unit.policy.name;
    let what = format!("unit {name} was found running although this node isn't active");
    let advice = "it is killed; if it comes back, something else starts it: disable its unit in systemd, or its container's restart policy";
    notices.raise(format!("stray-{name}"), notice(now, what, advice, true));
    unit.enter(now, State::Failed, "found running although this node isn't active");
}

fn unwell(unit: &mut Track, index: usize, now: Now, notices: &mut Notices, duties: &mut Vec<Duty>) {
    let why = unit.detail.clone();
    if unit.restarted {
        give_up(unit, now, &why, notices);
        return;
    }
    unit.restarted = true;
    restart_notice(unit, now, &why, notices);
    unit.enter(now, State::Stopping, format!("being restarted: {why}"));
    unit.begin(index, now, Verb::Stop, duties);
}

fn start_failed(unit: &mut Track, index: usize, now: Now, why: &str, notices: &mut Notices, duties: &mut Vec<Duty>) {
    if unit.restarted {
        give_up(unit, now, why, notices);
        return;
    }
    unit.restarted = true;
    restart_notice(unit, now, why, notices);
    kill_now(unit, index, now, &format!("being restarted: {why}"), duties);
}

fn give_up(unit: &mut Track, now: Now, why: &str, notices: &mut Notices) {
    unit.sick_until = Some(now.boot.plus(SICK_FOR));
    unit.retry_at = Some(now.boot.plus(SICK_FOR));
    let name = &unit.policy.name;
    let what = format!("unit {name} has failed, also after a restart: {why}");
    let advice = "if it doesn't run at all, the role goes to a node that can take it; else mend the unit: it is taken up again once it is healthy, and tried again after ten minutes if it doesn't run";
    notices.raise(format!("failed-{name}"), notice(now, what, advice, true));
    unit.enter(now, State::Failed, why);
}

fn restart_notice(unit: &Track, now: Now, why: &str, notices: &mut Notices) {
    let name = &unit.policy.name;
    let what = format!("unit {name} was unwell and is restarted in place: {why}");
    notices.raise(
        format!("restart-{name}"),
        notice(now, what, "if it stays unwell, this node becomes ineligible", false),
    );
}

fn kill_now(unit: &mut Track, index: usize, now: Now, detail: &str, duties: &mut Vec<Duty>) {
    unit.enter(now, State::Killing, detail);
    unit.begin(index, now, Verb::Kill, duties);
}

fn ineligible(unit: &Track, now: BootMs, idle: bool) -> Option<String> {
    let name = &unit.policy.name;
    if unit.state == State::Failed && !idle {
        return Some(format!("unit {name} has failed: {}", unit.detail));
    }
    if let Some(until) = unit.sick_until.filter(|until| now < *until) {
        let left = until.since(now).as_secs();
        return Some(format!(
            "unit {name} failed here when this node was active; considered again in {left} s"
        ));
    }
    match unit.state {
        State::Stopped => None,
        State::Unknown if idle => Some(format!("unit {name} hasn't been looked at yet")),
        _ if idle => Some(format!("unit {name} still runs here from an earlier role")),
        _ => None,
    }
}

fn notice(now: Now, what: String, advice: &str, serious: bool) -> Notice {
    Notice {
        what,
        advice: advice.to_owned(),
        since: now.unix,
        serious,
    }
}
