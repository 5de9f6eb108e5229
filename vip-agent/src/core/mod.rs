//! The decisions: (facts, lease, now, what was seen) → duties. Pure: no I/O, no clock, no randomness.
//!
//! `Core::step` is told one event at a time, with the time, and answers with what is to be done now.
//! It judges anew at every step from what is known (it is driven by levels, not by edges), so a lost or a late event delays
//! a duty and never turns it around. The order of the rules:
//!
//! * the address follows the lease alone (`address`);
//! * the PBX follows the role (`pbx`): started in order on an active node whose address is in place, left
//!   alone while suspended, stopped in reverse order in a hand-over, killed when there is no file system.

mod address;
mod notices;
mod pbx;
mod unit;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::time::Duration;

use holdfast_config::Config;

pub use address::{Address, AddressEvent, Want};
pub use notices::Notice;
pub use pbx::{Goal, Pbx};
pub use unit::{Outcome, Seen, State, UnitPolicy, UnitReport, Verb};

use crate::clock::{BootMs, Now, UnixMs};
use crate::lease::{Facts, Role, Standing};
use notices::Notices;

/// What is to be done now, by verbs that decide nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    AddVip,
    RenewVip,
    /// Remove the address wherever it is, and read back that it is gone.
    DropVip,
    ReadVip,
    /// Ask the network who has the address; `anew`: what was answered to earlier questions doesn't count.
    AskForVip {
        anew: bool,
    },
    /// One gratuitous ARP or unsolicited NA.
    Announce,
    /// Make our rule and our table as they should be while the address is here.
    SetSource,
    ClearSource,
    Unit {
        unit: usize,
        job: u64,
        verb: Verb,
    },
}

#[derive(Debug, Clone)]
pub enum Event {
    Tick,
    Facts(Facts),
    /// The connection to the daemon ended: what it says next may come from a new process with a new mount.
    Disconnected,
    Address(AddressEvent),
    Unit {
        unit: usize,
        job: u64,
        outcome: Outcome,
    },
    /// The operator stops this agent.
    Shutdown,
}

/// What the core needs of the configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    pub vip: Option<VipPolicy>,
    pub units: Vec<UnitPolicy>,
    pub grace: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct VipPolicy {
    pub valid: Duration,
    pub renew_every: Duration,
    pub renew_min_lease: Duration,
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Self {
        Self {
            vip: config.vip.as_ref().map(|vip| VipPolicy {
                valid: vip.valid,
                renew_every: vip.renew_every,
                renew_min_lease: vip.renew_min_lease,
            }),
            units: config.units.iter().map(UnitPolicy::from).collect(),
            grace: config.timers.grace,
        }
    }
}

/// A PBX that was killed with its role and still runs so long after, killed again and again, is beyond this agent's power.
const STUCK_AFTER: Duration = Duration::from_secs(15);

/// The network is asked for another owner of the address from so long before it may be added.
const ASK_AHEAD: Duration = Duration::from_millis(150);

/// This agent stood still if nothing happened for so long: it looks at the clock every 20 ms.
const STOOD_STILL: Duration = Duration::from_millis(300);
/// By then it has read what the daemon said meanwhile.
const CATCHES_UP_WITHIN: Duration = Duration::from_millis(200);

/// How long to wait for the daemon's first word before an address left here is taken away.
const FIRST_WORD: Duration = Duration::from_secs(1);

pub struct Core {
    grace: Duration,
    started: BootMs,
    facts: Option<Facts>,
    /// The connection has not been cut since the last facts.
    continuous: bool,
    address: Option<Address>,
    pbx: Pbx,
    /// Term of the file-system session that running units belong to.
    session: Option<u64>,
    /// Units that still run belong to an earlier session: their files are dead.
    stale: bool,
    /// Term of the last role held here.
    role_term: u64,
    released: u64,
    /// Last term in which the PBX may have been run here.
    ran_term: u64,
    /// The PBX of such a role is being killed.
    killing_since: Option<BootMs>,
    shutdown: bool,
    notices: Notices,
    last_step: BootMs,
    /// Until then the facts may be older than what waits to be read.
    blind_until: BootMs,
}

impl Core {
    pub fn new(policy: Policy, now: Now) -> Self {
        Self {
            grace: policy.grace,
            started: now.boot,
            facts: None,
            continuous: true,
            address: policy.vip.map(Address::new),
            pbx: Pbx::new(policy.units, now),
            session: None,
            stale: false,
            role_term: 0,
            released: 0,
            ran_term: 0,
            killing_since: None,
            shutdown: false,
            notices: Notices::default(),
            last_step: now.boot,
            blind_until: BootMs(0),
        }
    }

    /// The only way in: what happened, when, and what is to be done now, in this order.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Duty> {
        if now.boot.since(self.last_step) >= STOOD_STILL {
            self.blind_until = now.boot.plus(CATCHES_UP_WITHIN);
        }
        self.last_step = now.boot;
        self.hear(now, event);
        self.settle();
        self.notices.forget_old(now.unix);
        let standing = self.standing(now.boot);
        let mut duties = Vec::new();
        let want = self.want_address(now.boot, standing);
        if let Some(address) = &mut self.address {
            address.duties(now, want, &mut duties);
        }
        let goal = self.goal(now.boot, standing);
        self.pbx.duties(now, goal, &mut self.notices, &mut duties);
        if goal == Goal::Run {
            self.ran_term = self.role_term;
        }
        let killing = goal == Goal::Kill && self.may_linger();
        self.killing_since = killing.then(|| self.killing_since.unwrap_or(now.boot));
        self.release(standing);
        duties
    }

    pub fn standing(&self, now: BootMs) -> Standing {
        match &self.facts {
            Some(facts) => facts.standing(now, self.grace),
            // Without a daemon there is no file system: what runs here is judged like a lease that ran out at the start.
            None if now.since(self.started) >= self.grace => Standing::Lost,
            None => Standing::Waiting,
        }
    }

    /// True once a shutdown has nothing left to do.
    pub fn finished(&self) -> bool {
        self.shutdown && self.address_gone() && self.pbx.all_stopped()
    }

    /// A PBX that was run here in a role that isn't given back yet.
    pub fn may_linger(&self) -> bool {
        self.ran_term > self.released && !self.pbx.all_stopped()
    }

    /// The PBX of a lost role doesn't die. Never of what an agent finds at its start: a machine must not be reset again and
    /// again for a unit that can't be asked.
    pub fn stuck(&self, now: BootMs) -> bool {
        self.killing_since.is_some_and(|since| now.since(since) >= STUCK_AFTER)
    }

    /// What an operator should know of the machine's watchdog; `None`: nothing.
    pub fn note_watchdog(&mut self, now: Now, trouble: Option<&str>) {
        let Some(trouble) = trouble else {
            return self.notices.clear("watchdog");
        };
        let notice = Notice {
            what: format!("the watchdog doesn't protect this machine: {trouble}"),
            advice: "see `[watchdog]` in the configuration, and that nothing else uses the device".to_owned(),
            since: now.unix,
            serious: true,
        };
        self.notices.go_on("watchdog", notice, now.unix);
    }

    pub fn shutting_down(&self) -> bool {
        self.shutdown
    }

    pub fn vip_held(&self) -> bool {
        self.address.as_ref().is_some_and(Address::held)
    }

    pub fn vip_since(&self) -> Option<UnixMs> {
        self.address.as_ref().and_then(Address::since)
    }

    pub fn interface(&self) -> Option<&str> {
        self.address.as_ref().and_then(Address::interface)
    }

    /// Highest term for which everything that the role used is confirmed as given back.
    pub fn released_term(&self) -> u64 {
        self.released
    }

    pub fn units(&self) -> Vec<UnitReport> {
        self.pbx.report()
    }

    pub fn units_healthy_since(&self) -> Option<UnixMs> {
        self.pbx.all_healthy_since()
    }

    /// Why this node shouldn't become (or stay) active; empty: it may.
    pub fn not_eligible_because(&self, now: Now) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.shutdown {
            reasons.push("vip-agent is being stopped".to_owned());
        }
        if let Some(trouble) = self.address.as_ref().and_then(Address::trouble) {
            reasons.push(trouble.to_owned());
        }
        reasons.extend(self.pbx.not_eligible_because(now.boot, self.standing(now.boot)));
        reasons
    }

    /// Without a role: only a unit's failure in a role before makes this node ineligible.
    pub fn is_last_resort(&self, now: Now) -> bool {
        let address_is_well = self.address.as_ref().and_then(Address::trouble).is_none();
        let standing = self.standing(now.boot);
        !self.shutdown && address_is_well && self.pbx.only_failed_before(now.boot, standing)
    }

    /// On an active node: nothing that this agent did has brought a unit, or the address, up. Another node may do better.
    pub fn gives_up(&self) -> bool {
        let in_trouble = |address: &Address| address.trouble().is_some() && !address.held();
        let is_active = self.facts.as_ref().is_some_and(|facts| facts.role == Role::Active);
        is_active && !self.shutdown && (self.pbx.has_given_up() || self.address.as_ref().is_some_and(in_trouble))
    }

    pub fn notices(&self) -> Vec<Notice> {
        self.notices.all()
    }

    /// One sentence for status: what the agent is doing.
    pub fn phase(&self, now: BootMs) -> String {
        let standing = self.standing(now);
        if self.shutdown {
            return "stopping, as asked: PBX in order, then the address".to_owned();
        }
        if self.facts.is_none() && standing == Standing::Lost {
            return "no word from the daemon: nothing is held here".to_owned();
        }
        match standing {
            Standing::Waiting => "waiting for the daemon's first word".to_owned(),
            Standing::Idle if self.pbx.all_stopped() && self.address_gone() => {
                "standby: nothing is held here".to_owned()
            }
            Standing::Idle => "standby: clearing away what is left of a role".to_owned(),
            Standing::Suspended if self.promoting() => "promoting: waiting for a lease".to_owned(),
            Standing::Suspended => {
                "suspended: no lease, so no address; the PBX isn't touched during the grace".to_owned()
            }
            Standing::Lost if self.pbx.all_stopped() && self.address_gone() => {
                "the role is over: nothing is held here".to_owned()
            }
            Standing::Lost => "the role is over: killing the PBX".to_owned(),
            Standing::Handover if self.pbx.all_stopped() && self.address_gone() => {
                "handing over: PBX stopped, address gone".to_owned()
            }
            Standing::Handover if self.pbx.all_stopped() => {
                "handing over: PBX stopped, removing the address".to_owned()
            }
            Standing::Handover => "handing over: stopping the PBX in order".to_owned(),
            Standing::Holding if self.stale => "promoting: killing PBX units of an earlier role first".to_owned(),
            Standing::Holding if !self.address_ready() => {
                "promoting: waiting until the address may be added".to_owned()
            }
            Standing::Holding => self.pbx.phase(),
        }
    }

    fn hear(&mut self, now: Now, event: Event) {
        match event {
            Event::Tick => {}
            Event::Facts(facts) => self.hear_facts(now, facts),
            Event::Disconnected => {
                self.continuous = false;
                self.pbx.excuse(now.boot);
            }
            Event::Address(event) => {
                let lease_left = self
                    .facts
                    .as_ref()
                    .map_or(Duration::ZERO, |facts| facts.lease_left(now.boot));
                if let Some(address) = &mut self.address {
                    address.hear(now, event, lease_left, &mut self.notices);
                }
            }
            Event::Unit { unit, job, outcome } => self.pbx.hear(now, unit, job, outcome, &mut self.notices),
            Event::Shutdown => self.shutdown = true,
        }
    }

    fn hear_facts(&mut self, now: Now, facts: Facts) {
        if matches!(facts.role, Role::Lost | Role::Suspended) {
            self.pbx.excuse(now.boot);
        }
        match facts.role {
            Role::Promoting | Role::Active | Role::Suspended | Role::Handover => {
                if !self.same_session(&facts) {
                    self.stale = !self.pbx.all_stopped();
                    self.pbx.begin_role();
                }
                self.session = Some(facts.term);
                self.role_term = facts.term;
            }
            Role::Lost | Role::Standby => {
                if facts.role == Role::Lost {
                    // Also for an agent that was started anew after the role had begun.
                    self.role_term = self.role_term.max(facts.term);
                    self.ran_term = self.role_term;
                }
                self.session = None;
                self.stale = false;
            }
        }
        self.continuous = true;
        self.facts = Some(facts);
    }

    /// Whether units that run now may go on under these facts, or belong to a mount that is gone.
    fn same_session(&self, facts: &Facts) -> bool {
        let Some(last) = &self.facts else {
            // Just started: what runs on an active node is adopted, but a new role begins with nothing running.
            return facts.role != Role::Promoting;
        };
        match self.session {
            Some(term) if term == facts.term => true,
            // The same node won again while it was suspended: the mount never ended, calls go on.
            Some(_) if self.continuous => match last.role {
                Role::Suspended => true,
                Role::Active => facts.role != Role::Promoting,
                _ => false,
            },
            _ => false,
        }
    }

    fn settle(&mut self) {
        if self.stale && self.pbx.all_stopped() {
            self.stale = false;
        }
    }

    fn want_address(&self, now: BootMs, standing: Standing) -> Want {
        let Some(address) = &self.address else {
            return Want::Drop;
        };
        let Some(facts) = &self.facts else {
            let waiting = now.since(self.started) < FIRST_WORD && !self.shutdown;
            return if waiting { Want::Lapse } else { Want::Drop };
        };
        let enough = facts.lease_left(now) >= address.renew_min_lease();
        let leaving = self.shutdown || standing == Standing::Handover;
        match standing {
            Standing::Holding | Standing::Handover if leaving && self.pbx.all_stopped() => Want::Drop,
            Standing::Holding if now < facts.vip_not_before && now.plus(ASK_AHEAD) >= facts.vip_not_before => {
                Want::Soon
            }
            Standing::Holding | Standing::Handover if now < facts.vip_not_before => Want::Drop,
            Standing::Holding | Standing::Handover if !enough => Want::Lapse,
            Standing::Holding if facts.writable && !leaving => Want::Hold,
            // Not added here any more, but kept while the PBX says good-bye from it.
            Standing::Holding | Standing::Handover => Want::Keep,
            Standing::Waiting | Standing::Idle | Standing::Suspended | Standing::Lost => Want::Drop,
        }
    }

    fn goal(&self, now: BootMs, standing: Standing) -> Goal {
        let writable = self.facts.as_ref().is_some_and(|facts| facts.writable);
        match standing {
            // The PBX isn't killed for a pause of this agent alone; the address is gone at once whatever the reason.
            Standing::Lost if now < self.blind_until && self.is_lost_by_age() => Goal::Leave,
            Standing::Waiting if self.shutdown => Goal::Kill,
            Standing::Waiting => Goal::Leave,
            Standing::Idle | Standing::Lost => Goal::Kill,
            Standing::Suspended if self.shutdown || self.stale => Goal::Kill,
            Standing::Suspended => Goal::Leave,
            Standing::Holding | Standing::Handover if self.stale => Goal::Kill,
            Standing::Handover => Goal::Stop,
            Standing::Holding if self.shutdown && writable => Goal::Stop,
            Standing::Holding if self.shutdown => Goal::Kill,
            Standing::Holding if writable && self.address_ready() => Goal::Run,
            Standing::Holding => Goal::Leave,
        }
    }

    /// The daemon hasn't said that the role is over: it follows from the time since it said anything.
    fn is_lost_by_age(&self) -> bool {
        let said = self.facts.as_ref().map(|facts| facts.role);
        matches!(said, Some(Role::Promoting | Role::Active | Role::Handover))
    }

    fn release(&mut self, standing: Standing) {
        let empty = self.pbx.all_stopped() && self.address_gone();
        match standing {
            Standing::Idle | Standing::Lost | Standing::Handover if empty => {
                self.released = self.released.max(self.role_term);
            }
            // Taken up again in a term that was given back before: the confirmation no longer holds.
            Standing::Holding | Standing::Suspended => {
                self.released = self.released.min(self.role_term.saturating_sub(1));
            }
            _ => {}
        }
    }

    fn promoting(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.role == Role::Promoting)
    }

    /// True also where no address is managed.
    fn address_ready(&self) -> bool {
        self.address.as_ref().is_none_or(Address::ready)
    }

    fn address_gone(&self) -> bool {
        self.address.as_ref().is_none_or(Address::gone)
    }
}
