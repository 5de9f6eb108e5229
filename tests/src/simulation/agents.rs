//! The agents in their world: their starts and ends, their events, and what they and their daemons tell each other.

use super::agent::{Agent, Around};
use super::replica::Event;
use super::world::{What, Whom, World};
use holdfast_replicator::AgentFacts;
use holdfast_replicator::roles::Role;

impl World {
    pub(super) fn start_agent(&mut self, id: u64) {
        let machine = &mut self.machines[id as usize - 1];
        if machine.agent.is_some() {
            return;
        }
        machine.agent_start += 1;
        machine.agent = Some(Agent::start(machine.clock.at_ms(self.now_us), machine.unit_runs));
        let start = machine.agent_start;
        self.schedule(1, Whom::Agent(id, start), What::AgentTick);
        self.publish(id);
    }

    pub(super) fn kill_agent(&mut self, id: u64) {
        let machine = &mut self.machines[id as usize - 1];
        machine.agent = None;
        machine.agent_start += 1;
        machine.agent_frozen_us = 0;
        let start = machine.start;
        // Without it this node isn't eligible; what it held it may still hold.
        let gone = AgentFacts {
            eligible: true,
            ..AgentFacts::default()
        };
        self.schedule(1000, Whom::Daemon(id, start), What::Daemon(Event::Agent(gone)));
    }

    pub(super) fn agent_event(&mut self, id: u64, start: u64, what: What) {
        let now_us = self.now_us;
        let machine = &self.machines[id as usize - 1];
        if machine.agent_start != start || machine.agent.is_none() {
            return;
        }
        if machine.agent_frozen_us > now_us {
            let later = machine.agent_frozen_us - now_us + u64::from(!matches!(what, What::AgentTick));
            self.schedule(later, Whom::Agent(id, start), what);
            return;
        }
        let other_has_it = (1..=3).any(|peer| {
            peer != id && self.machines[peer as usize - 1].kernel.holds(now_us) && self.net.reaches(id, peer, now_us)
        });
        let machine = &mut self.machines[id as usize - 1];
        let (now_ms, valid_us) = (machine.clock.at_ms(now_us), machine.valid_us());
        let Some(agent) = &mut machine.agent else { return };
        let mut around = Around {
            now_us,
            now_ms,
            valid_us,
            kernel: &mut machine.kernel,
            other_has_it,
            pbx_is_broken: machine.pbx_broken_until_us > now_us,
            random: &mut self.random,
            later: Vec::new(),
            added: false,
        };
        let ticks = matches!(what, What::AgentTick);
        match what {
            What::AgentTick => agent.happen(vip_agent::core::Event::Tick, &mut around),
            What::AgentHears(facts) => agent.hear(facts, &mut around),
            What::AgentCutOff => agent.happen(vip_agent::core::Event::Disconnected, &mut around),
            What::AgentUnit(unit, job, verb) => agent.unit_done(unit, job, verb, &mut around),
            _ => {}
        }
        let (later, added) = (around.later, around.added);
        machine.unit_runs = agent.runs_unit();
        let report = machine.daemon.is_some().then(|| agent.report(now_ms)).flatten();
        let daemon = machine.start;
        for (in_us, unit, job, verb) in later {
            self.schedule(in_us, Whom::Agent(id, start), What::AgentUnit(unit, job, verb));
        }
        if let Some(report) = report {
            let arrives_us = now_us + self.random.between(50, 2000);
            let heard_us = &mut self.machines[id as usize - 1].agent_heard_us;
            *heard_us = arrives_us.max(*heard_us + 1);
            let takes = *heard_us - now_us;
            self.schedule(takes, Whom::Daemon(id, daemon), What::Daemon(Event::Agent(report)));
        }
        if added {
            self.tell(&format!("n{id} adds the address"));
        }
        if ticks {
            let late = self.random.between(0, 2000);
            self.schedule(20_000 + late, Whom::Agent(id, start), What::AgentTick);
        }
    }

    /// The daemon tells its agent what it is.
    pub(super) fn publish(&mut self, id: u64) {
        let machine = &self.machines[id as usize - 1];
        let (Some(replica), true) = (machine.replica(), machine.agent.is_some()) else {
            return;
        };
        let instant = |ms: u64| (ms > 0).then_some(vip_agent::BootMs(ms));
        let (role, grace_until) = match replica.role {
            Role::None => (vip_agent::Role::Standby, 0),
            Role::Promoting { .. } => (vip_agent::Role::Promoting, 0),
            Role::Active { .. } => (vip_agent::Role::Active, 0),
            Role::Suspended { grace_until_ms, .. } => (vip_agent::Role::Suspended, grace_until_ms),
            Role::Lost { .. } => (vip_agent::Role::Lost, 0),
            Role::HandOver { .. } => (vip_agent::Role::Handover, 0),
        };
        let facts = vip_agent::Facts {
            role,
            term: if replica.role == Role::None {
                replica.core.term()
            } else {
                replica.role.term()
            },
            lease_until: instant(replica.gate.lease_until_ms()),
            vip_not_before: vip_agent::BootMs(replica.vip_not_before_ms),
            writable: matches!(replica.role, Role::Active { .. } | Role::HandOver { .. }),
            active: String::new(),
            grace_until: instant(grace_until),
            heard: vip_agent::BootMs(0),
        };
        let start = machine.agent_start;
        let arrives_us = self.now_us + self.random.between(50, 2000);
        let hears_us = &mut self.machines[id as usize - 1].agent_hears_us;
        *hears_us = arrives_us.max(*hears_us + 1);
        let takes = *hears_us - self.now_us;
        self.schedule(takes, Whom::Agent(id, start), What::AgentHears(facts));
    }
}
