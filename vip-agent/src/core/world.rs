//! A kernel, a PBX and a daemon in memory, for the tests: does the core's duties and looks at each with suspicion.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

pub(super) const LEASE_MIN: Duration = Duration::from_millis(400);
pub(super) const GRACE: Duration = Duration::from_secs(3);
const VALID_MS: u64 = 1000;

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: u64,
    /// When the kernel drops the address by itself; absent: it isn't there.
    pub(super) address_until: Option<u64>,
    pub(super) running: Vec<bool>,
    pub(super) sick: Vec<bool>,
    /// It ends as soon as it is started.
    pub(super) refuses: Vec<bool>,
    /// Milliseconds that the thread stands still between a decision on the address and the kernel.
    pub(super) stall: u64,
    pub(super) unit_takes: u64,
    /// Another machine answers for the address: since when, and until when.
    pub(super) other: (u64, u64),
    /// The first question about another owner in this role, since the address was last here.
    asking_since: Option<u64>,
    pub(super) has_link: bool,
    /// Everything done since last taken, in order.
    pub(super) done: Vec<Duty>,
    pending: BTreeMap<(u64, usize, u64), Verb>,
}

pub(super) fn unit(name: &str) -> UnitPolicy {
    UnitPolicy {
        name: name.to_owned(),
        health_every: Duration::from_millis(500),
        health_failures: 2,
        start_timeout: Duration::from_secs(2),
        stop_timeout: Duration::from_secs(2),
    }
}

impl World {
    pub(super) fn new(units: usize) -> Self {
        let policy = Policy {
            vip: Some(VipPolicy {
                valid: Duration::from_millis(VALID_MS),
                renew_every: Duration::from_millis(200),
                renew_min_lease: LEASE_MIN,
            }),
            units: (0..units).map(|index| unit(&format!("u{index}"))).collect(),
            grace: GRACE,
        };
        let now = 1_000_000;
        Self {
            core: Core::new(policy, at(now)),
            now,
            address_until: None,
            running: vec![false; units],
            sick: vec![false; units],
            refuses: vec![false; units],
            stall: 0,
            unit_takes: 30,
            other: (0, 0),
            asking_since: None,
            has_link: true,
            done: Vec::new(),
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn facts(&self, role: Role, term: u64, lease_ms: u64) -> Facts {
        Facts {
            role,
            term,
            lease_until: (lease_ms > 0).then(|| BootMs(self.now + lease_ms)),
            vip_not_before: BootMs(0),
            writable: true,
            active: String::new(),
            grace_until: None,
            heard: BootMs(self.now),
        }
    }

    pub(super) fn hear(&mut self, role: Role, term: u64, lease_ms: u64) {
        let facts = self.facts(role, term, lease_ms);
        self.step(Event::Facts(facts));
    }

    /// Lets time pass, with the loop's ticks, while the lease stays as it is.
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + 20).min(end);
            self.kernel_clock();
            self.finish_jobs();
            self.step(Event::Tick);
        }
    }

    /// Lets time pass with a daemon that renews the lease.
    pub(super) fn pass_leased(&mut self, role: Role, term: u64, millis: u64) {
        for _ in 0..millis / 100 {
            self.hear(role, term, 1500);
            self.pass(100);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Duty> {
        std::mem::take(&mut self.done)
    }

    pub(super) fn state(&self, unit: usize) -> &'static str {
        self.core.units()[unit].state
    }

    /// Verbs done since last taken, without looks and checks.
    pub(super) fn verbs(&mut self) -> Vec<(usize, Verb)> {
        let verbs = self.take().into_iter().filter_map(|duty| match duty {
            Duty::Unit { unit, verb, .. } => Some((unit, verb)),
            _ => None,
        });
        verbs
            .filter(|(_, verb)| !matches!(verb, Verb::Look | Verb::Check))
            .collect()
    }

    pub(super) fn step(&mut self, event: Event) {
        let mut duties = std::collections::VecDeque::from(self.decide(event));
        while let Some(duty) = duties.pop_front() {
            self.done.push(duty);
            for event in self.perform(duty) {
                let urgent = self.decide(event);
                urgent.into_iter().rev().for_each(|duty| duties.push_front(duty));
            }
        }
        self.suspect_all();
    }

    fn decide(&mut self, event: Event) -> Vec<Duty> {
        let duties = self.core.step(at(self.now), event);
        for duty in &duties {
            self.suspect(*duty);
            match duty {
                Duty::AskForVip { .. } => self.asking_since = self.asking_since.or(Some(self.now)),
                Duty::AddVip => self.asking_since = None,
                _ => {}
            }
        }
        if !matches!(
            self.core.standing(BootMs(self.now)),
            Standing::Holding | Standing::Handover
        ) {
            self.asking_since = None;
        }
        duties
    }

    fn perform(&mut self, duty: Duty) -> Vec<Event> {
        let event = match duty {
            Duty::AddVip | Duty::RenewVip => {
                let asked = BootMs(self.now);
                self.now += std::mem::take(&mut self.stall);
                self.kernel_clock();
                self.address_until = Some(self.now + VALID_MS);
                AddressEvent::Renewed { asked }
            }
            Duty::DropVip => {
                self.address_until = None;
                self.read()
            }
            Duty::ReadVip => self.read(),
            Duty::AskForVip { .. } => AddressEvent::Asked {
                other: self.another_has_it().then(|| "02:00:00:00:00:08".to_owned()),
            },
            Duty::SetSource => AddressEvent::SourceSet,
            Duty::ClearSource => AddressEvent::SourceCleared,
            Duty::Announce => return Vec::new(),
            Duty::Unit { unit, job, verb } => {
                if matches!(verb, Verb::Start | Verb::Stop | Verb::Kill) {
                    // A job that is under way is abandoned for the new one.
                    self.pending
                        .retain(|(_, of, _), verb| *of != unit || matches!(verb, Verb::Look | Verb::Check));
                }
                self.pending.insert((self.now + self.unit_takes, unit, job), verb);
                return Vec::new();
            }
        };
        vec![Event::Address(event)]
    }

    fn read(&self) -> AddressEvent {
        AddressEvent::Read {
            present: self.address_until.is_some(),
            interface: Ok("eth0".to_owned()),
            has_link: self.has_link,
        }
    }

    pub(super) fn another_has_it(&self) -> bool {
        (self.other.0..self.other.1).contains(&self.now)
    }

    fn kernel_clock(&mut self) {
        if self.address_until.is_some_and(|until| self.now >= until) {
            self.address_until = None;
        }
    }

    fn finish_jobs(&mut self) {
        while let Some(entry) = self.pending.first_entry() {
            let (due, unit, job) = *entry.key();
            if due > self.now {
                return;
            }
            let outcome = match entry.remove() {
                Verb::Start => {
                    self.running[unit] = !self.refuses[unit];
                    Outcome::Started
                }
                Verb::Stop => {
                    self.running[unit] = false;
                    Outcome::Stopped(Ok(()))
                }
                Verb::Kill => {
                    self.running[unit] = false;
                    Outcome::Killed(Ok(()))
                }
                Verb::Look if self.running[unit] => Outcome::Seen(Seen::Running),
                Verb::Check if self.running[unit] && self.sick[unit] => {
                    Outcome::Seen(Seen::Unhealthy("sick".to_owned()))
                }
                Verb::Check if self.running[unit] => Outcome::Seen(Seen::Healthy),
                Verb::Look | Verb::Check => Outcome::Seen(Seen::NotRunning),
            };
            self.step(Event::Unit { unit, job, outcome });
        }
    }

    /// What must be so of every duty, at the moment it is decided.
    fn suspect(&self, duty: Duty) {
        let now = BootMs(self.now);
        let standing = self.core.standing(now);
        let facts = self.core.facts.as_ref();
        match duty {
            Duty::AddVip | Duty::RenewVip => {
                let facts = facts.expect("an address without a word of the daemon");
                assert!(
                    facts.lease_left(now) >= LEASE_MIN,
                    "renewed with {:?} of the lease left",
                    facts.lease_left(now)
                );
                assert!(
                    now >= facts.vip_not_before,
                    "{duty:?} before the former owner's address is gone"
                );
                assert!(
                    matches!(standing, Standing::Holding | Standing::Handover),
                    "{duty:?} while {standing:?}"
                );
                // Whoever has had it for some questions' time was seen, and waited for, but not for ever.
                let seen = self.another_has_it() && self.now >= self.other.0 + 150;
                let waited = self.asking_since.is_some_and(|since| self.now >= since + 3000);
                assert!(
                    duty == Duty::RenewVip || !seen || waited,
                    "added while another machine has it"
                );
            }
            Duty::Unit { verb: Verb::Start, .. } => {
                assert_eq!(standing, Standing::Holding, "started without the role");
                assert!(
                    facts.is_some_and(|facts| facts.writable),
                    "started without a file system"
                );
                assert!(self.core.vip_held(), "started before the address was here");
                assert!(!self.core.stale, "started beside units of an earlier role");
            }
            Duty::Unit { verb: Verb::Stop, .. } => {
                let leased = facts.is_some_and(|facts| facts.lease_left(now) > Duration::ZERO);
                assert!(leased, "stopped politely without a file system");
            }
            Duty::Unit {
                unit, verb: Verb::Kill, ..
            } if standing == Standing::Suspended => {
                let begun = matches!(self.state(unit), "stopping");
                assert!(
                    begun || self.core.stale || self.core.shutdown,
                    "killed during the grace"
                );
            }
            _ => {}
        }
    }

    /// What must be so after every step.
    fn suspect_all(&self) {
        let now = BootMs(self.now);
        let standing = self.core.standing(now);
        if matches!(standing, Standing::Idle | Standing::Suspended | Standing::Lost) {
            assert_eq!(self.address_until, None, "address still here while {standing:?}");
        }
        let is_blind = now < self.core.blind_until && self.core.is_lost_by_age();
        if matches!(standing, Standing::Idle | Standing::Lost) && !is_blind {
            for unit in self.core.units() {
                assert!(
                    matches!(unit.state, "stopped" | "stopping"),
                    "{} is {} while {standing:?}",
                    unit.name,
                    unit.state
                );
            }
        }
        if self.core.role_term > 0 && self.core.released_term() >= self.core.role_term && standing != Standing::Idle {
            assert_eq!(self.address_until, None, "released with the address here");
            assert!(!self.running.contains(&true), "released with units running");
        }
    }
}

pub(super) fn at(millis: u64) -> Now {
    Now {
        boot: BootMs(millis),
        unix: UnixMs(1_700_000_000_000 + millis),
    }
}
