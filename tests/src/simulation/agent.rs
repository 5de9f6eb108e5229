//! vip-agent on one machine: its real core, with a kernel and a PBX of one unit as its verbs. Duties on the address are done at
//! once, those on the unit take their time.

use super::random::Random;
use super::timers;
use holdfast_replicator::AgentFacts;
use std::collections::VecDeque;
use std::time::Duration;
use vip_agent::core::{AddressEvent, Core, Duty, Event, Outcome, Policy, Seen, UnitPolicy, Verb, VipPolicy};
use vip_agent::{BootMs, Facts, Now, UnixMs};

/// The machine's kernel, as far as the address goes: it drops it when its lifetime runs out, a little late.
#[derive(Default)]
pub struct Kernel {
    /// True time.
    until_us: Option<u64>,
}

/// A kernel with nothing else to do is at most so late.
const OVERSHOOT_US: u64 = 250_000;

impl Kernel {
    pub fn holds(&self, now_us: u64) -> bool {
        self.until_us.is_some_and(|until| now_us < until)
    }

    fn put(&mut self, now_us: u64, valid_us: u64, random: &mut Random) {
        self.until_us = Some(now_us + valid_us + random.between(0, OVERSHOOT_US));
    }

    pub fn drop_it(&mut self) {
        self.until_us = None;
    }
}

pub struct Agent {
    core: Core,
    running: bool,
    report: Option<AgentFacts>,
}

/// What the machine around the agent is like at this moment.
pub struct Around<'a> {
    pub now_us: u64,
    pub now_ms: u64,
    /// Its clock's second in true time.
    pub valid_us: u64,
    pub kernel: &'a mut Kernel,
    /// Another machine that can be reached has the address.
    pub other_has_it: bool,
    /// The PBX doesn't start on it.
    pub pbx_is_broken: bool,
    pub random: &'a mut Random,
    /// Work of the unit: in so many µs it ends.
    pub later: Vec<(u64, usize, u64, Verb)>,
    pub added: bool,
}

fn at(now_ms: u64) -> Now {
    Now {
        boot: BootMs(now_ms),
        unix: UnixMs(1_700_000_000_000),
    }
}

fn policy() -> Policy {
    Policy {
        vip: Some(VipPolicy {
            valid: Duration::from_millis(timers::VALID_MS),
            renew_every: Duration::from_millis(timers::RENEW_EVERY_MS),
            renew_min_lease: Duration::from_millis(timers::RENEW_MIN_LEASE_MS),
        }),
        units: vec![UnitPolicy {
            name: "pbx".to_owned(),
            health_every: Duration::from_secs(2),
            health_failures: 2,
            start_timeout: Duration::from_secs(5),
            stop_timeout: Duration::from_millis(timers::UNITS_STOP_MS),
        }],
        grace: Duration::from_millis(timers::GRACE_MS),
    }
}

impl Agent {
    pub fn start(now_ms: u64, running: bool) -> Self {
        Self {
            core: Core::new(policy(), at(now_ms)),
            running,
            report: None,
        }
    }

    pub fn runs_unit(&self) -> bool {
        self.running
    }

    /// The PBX ends by itself.
    pub fn loses_unit(&mut self) {
        self.running = false;
    }

    /// One event and all that follows from it, as `vip_agent::agent` handles it.
    pub fn happen(&mut self, event: Event, around: &mut Around<'_>) {
        let mut duties = VecDeque::from(self.core.step(at(around.now_ms), event));
        while let Some(duty) = duties.pop_front() {
            for event in self.perform(duty, around) {
                let urgent = self.core.step(at(around.now_ms), Event::Address(event));
                urgent.into_iter().rev().for_each(|duty| duties.push_front(duty));
            }
        }
    }

    fn perform(&mut self, duty: Duty, around: &mut Around<'_>) -> Vec<AddressEvent> {
        match duty {
            Duty::AddVip | Duty::RenewVip => {
                around.kernel.put(around.now_us, around.valid_us, around.random);
                around.added |= duty == Duty::AddVip;
                vec![AddressEvent::Renewed {
                    asked: BootMs(around.now_ms),
                }]
            }
            Duty::DropVip => {
                around.kernel.drop_it();
                vec![read(around)]
            }
            Duty::ReadVip => vec![read(around)],
            Duty::AskForVip { .. } => {
                let other = around.other_has_it.then(|| "02:00:00:00:00:08".to_owned());
                vec![AddressEvent::Asked { other }]
            }
            Duty::Announce => Vec::new(),
            Duty::SetSource => vec![AddressEvent::SourceSet],
            Duty::ClearSource => vec![AddressEvent::SourceCleared],
            Duty::Unit { unit, job, verb } => {
                let most = match verb {
                    Verb::Start | Verb::Stop => 400_000,
                    Verb::Kill => 100_000,
                    Verb::Look | Verb::Check => 10_000,
                };
                around.later.push((around.random.between(1000, most), unit, job, verb));
                Vec::new()
            }
        }
    }

    pub fn unit_done(&mut self, unit: usize, job: u64, verb: Verb, around: &mut Around<'_>) {
        let outcome = match verb {
            Verb::Start if around.pbx_is_broken => Outcome::StartFailed("it is broken".to_owned()),
            Verb::Start => {
                self.running = true;
                Outcome::Started
            }
            Verb::Stop => {
                self.running = false;
                Outcome::Stopped(Ok(()))
            }
            Verb::Kill => {
                self.running = false;
                Outcome::Killed(Ok(()))
            }
            Verb::Look if self.running => Outcome::Seen(Seen::Running),
            Verb::Check if self.running => Outcome::Seen(Seen::Healthy),
            Verb::Look | Verb::Check => Outcome::Seen(Seen::NotRunning),
        };
        self.happen(Event::Unit { unit, job, outcome }, around);
    }

    /// What the daemon is to hear, if it has changed.
    pub fn report(&mut self, now_ms: u64) -> Option<AgentFacts> {
        let report = AgentFacts {
            connected: true,
            eligible: self.core.not_eligible_because(at(now_ms)).is_empty(),
            released_term: self.core.released_term(),
            vip_held: self.core.vip_held(),
            units_healthy: self.core.units_healthy_since().is_some(),
            gives_up: self.core.gives_up(),
            last_resort: self.core.is_last_resort(at(now_ms)),
        };
        if self.report.as_ref() == Some(&report) {
            return None;
        }
        self.report = Some(report.clone());
        Some(report)
    }

    /// Why its node isn't eligible, for people.
    pub fn objections(&self, now_ms: u64) -> String {
        let last_resort = self.core.is_last_resort(at(now_ms));
        let reasons = self.core.not_eligible_because(at(now_ms)).join(", ");
        format!(
            "[{reasons}] last resort {last_resort}, {}",
            self.core.phase(BootMs(now_ms))
        )
    }

    /// The daemon has been started anew: it has heard nothing yet.
    pub fn connected(&mut self) {
        self.report = None;
    }

    pub fn hear(&mut self, mut facts: Facts, around: &mut Around<'_>) {
        facts.heard = BootMs(around.now_ms);
        self.happen(Event::Facts(facts), around);
    }
}

fn read(around: &Around<'_>) -> AddressEvent {
    AddressEvent::Read {
        present: around.kernel.holds(around.now_us),
        interface: Ok("eth0".to_owned()),
        has_link: true,
    }
}
