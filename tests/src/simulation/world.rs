//! Three machines, a network, clients, and true time: one event after the other, each followed by the promises.

use super::client::Clients;
use super::clock::{Clock, SECOND};
use super::figures::Figures;
use super::machine::{Daemon, Machine};
use super::mending::Given;
use super::model::Files;
use super::net::Net;
use super::plan::{Fault, Plan};
use super::promises::Judge;
use super::random::Random;
use super::replica::{Event, Turn};
use super::timers;
use super::trace::Trace;
use holdfast_replicator::roles::Role;
use holdfast_storage::log::Geometry;
use holdfast_storage::types::Ino;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use vip_agent::core::Verb;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    World,
    /// Of this start.
    Daemon(u64, u64),
    Agent(u64, u64),
}

pub enum What {
    Daemon(Event),
    AgentTick,
    AgentHears(vip_agent::Facts),
    AgentCutOff,
    AgentUnit(usize, u64, Verb),
    Client(u64),
    Late(u64),
    Fault(Fault),
    Start(u64),
    StartAgent(u64),
    /// This end tries to open its connection to that one.
    Connect(u64, u64),
    /// It notices that its connection to that start of the other end is gone.
    Broken(u64, u64, (u64, u64)),
    LookForCopy,
    CopyStep,
    DiskIsMended(u64, bool),
    /// A damaged block is met; what another machine gives for it is here after so many microseconds.
    LookAt(Ino, u64, u64),
    Mend(Given),
    /// In order; started anew after so many microseconds.
    Stop(u64, u64),
    /// Its process is killed, or its power is cut.
    Dies(u64, bool),
    /// It hangs until then, or is killed.
    AgentFails(u64, Option<u64>),
}

/// What a run is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub seed: u64,
    /// Numbers of faults that are left out.
    pub skip: BTreeSet<u32>,
    pub shown: bool,
    /// The disks say that they have synced and haven't.
    pub lying_disks: bool,
}

pub struct World {
    pub now_us: u64,
    /// How long things take, and what clients do.
    pub random: Random,
    /// What a crash leaves, and the processes' own seeds.
    pub fate: Random,
    pub machines: Vec<Machine>,
    pub net: Net,
    queue: BTreeMap<(u64, u64), (Whom, What)>,
    numbered: u64,
    pub clients: Clients,
    pub judge: Judge,
    pub trace: Trace,
    pub figures: Figures,
    /// The last faults and what came of them, for the story of a failure.
    pub story: VecDeque<String>,
    pub plan: Plan,
    /// Faults have stopped.
    pub calm: bool,
}

impl World {
    pub fn new(options: &Options) -> Self {
        let seed = options.seed;
        let mut random = Random::of(seed, 2);
        // Small, so that logs wrap around within seconds, but a few of raft-rs's largest messages have room.
        let segment_kib = random.one_of(&[512, 768, 1024]);
        let geometry = Geometry {
            segment_bytes: segment_kib << 10,
            segments: 4,
        };
        let machines = (1..=3).map(|id| Machine::new(id, Clock::drawn(timers::DRIFT_PERMILLE, &mut random), geometry));
        let mut world = Self {
            now_us: 0,
            machines: machines.collect(),
            net: Net::new(Random::of(seed, 3)),
            fate: Random::of(seed, 4),
            random,
            queue: BTreeMap::new(),
            numbered: 0,
            clients: Clients::default(),
            judge: Judge::default(),
            trace: Trace::new(options.shown),
            figures: Figures {
                runs: 1,
                ..Figures::default()
            },
            story: VecDeque::new(),
            plan: Plan::drawn(seed),
            calm: false,
        };
        if options.lying_disks {
            world.machines.iter().for_each(|machine| machine.disk.lie());
        }
        let faults = world.plan.faults.clone();
        for fault in faults.into_iter().filter(|fault| !options.skip.contains(&fault.number)) {
            world.schedule(fault.at_us, Whom::World, What::Fault(fault));
        }
        for id in 1..=3 {
            world.schedule(id * 1000, Whom::World, What::Start(id));
            world.schedule(id * 1500, Whom::World, What::StartAgent(id));
            for peer in (1..=3).filter(|peer| *peer != id) {
                world.schedule(5000 * id + peer, Whom::World, What::Connect(id, peer));
            }
        }
        for slot in 0..timers::CLIENTS as u64 {
            world.schedule(SECOND + slot * 777, Whom::World, What::Client(slot));
        }
        world
    }

    pub fn schedule(&mut self, in_us: u64, whom: Whom, what: What) {
        self.numbered += 1;
        self.queue.insert((self.now_us + in_us, self.numbered), (whom, what));
    }

    pub fn tell(&mut self, what: &str) {
        self.trace.say(self.now_us, what);
        self.story
            .push_back(format!("{:>10.3} s  {what}", self.now_us as f64 / 1e6));
        if self.story.len() > 40 {
            self.story.pop_front();
        }
    }

    /// Until then, or until a promise is broken, or until `done`.
    pub fn run_until(&mut self, end_us: u64, done: impl Fn(&Self) -> bool) -> bool {
        while self.judge.broken.is_none() {
            if done(self) {
                return true;
            }
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= end_us => self.step(),
                _ => {
                    self.now_us = end_us;
                    return false;
                }
            }
        }
        false
    }

    fn step(&mut self) {
        let Some(((at_us, _), (whom, what))) = self.queue.pop_first() else {
            return;
        };
        self.now_us = self.now_us.max(at_us);
        self.figures.events += 1;
        match whom {
            Whom::World => self.world_event(what),
            Whom::Daemon(id, start) => self.daemon_event(id, start, what),
            Whom::Agent(id, start) => self.agent_event(id, start, what),
        }
        self.suspect();
    }

    fn world_event(&mut self, what: What) {
        match what {
            What::Client(slot) => self.client(slot),
            What::Late(op) => self.late(op),
            What::Fault(fault) => self.strike(fault),
            What::Start(id) => self.start(id),
            What::StartAgent(id) => self.start_agent(id),
            What::Connect(from, to) => self.connect(from, to),
            What::Broken(from, to, link) => self.link_broke(from, to, link),
            What::DiskIsMended(id, restart) => self.disk_is_mended(id, restart),
            What::Stop(id, pause) if !self.calm => self.stop(id, pause),
            What::Dies(id, power) if !self.calm => self.dies(id, power),
            What::AgentFails(id, Some(until_us)) if !self.calm => {
                self.machines[id as usize - 1].agent_frozen_us = until_us;
                self.tell(&format!("n{id}'s agent hangs"));
            }
            What::AgentFails(id, None) if !self.calm => {
                self.kill_agent(id);
                self.tell(&format!("n{id}'s agent is killed"));
                self.schedule(3 * SECOND, Whom::World, What::StartAgent(id));
            }
            other => drop(other),
        }
    }

    // ---- daemons ------------------------------------------------------------------------------------

    fn daemon_event(&mut self, id: u64, start: u64, what: What) {
        let machine = &self.machines[id as usize - 1];
        if machine.start != start || machine.daemon.is_none() {
            return;
        }
        let disk = matches!(
            what,
            What::Daemon(Event::LogDone | Event::ApplyDone | Event::CheckpointDone)
        );
        let until = if disk {
            machine.daemon_frozen_us.max(machine.disk_held_us)
        } else {
            machine.daemon_frozen_us
        };
        if until > self.now_us {
            // After a stall there is one tick, and it comes first.
            let later = until - self.now_us + u64::from(!matches!(what, What::Daemon(Event::Tick)));
            self.schedule(later, Whom::Daemon(id, start), what);
            return;
        }
        match what {
            What::Daemon(event) => {
                let applies = matches!(event, Event::ApplyDone);
                self.daemon(id, event);
                if applies && self.random.chance(60) {
                    self.compare_with_history(id);
                }
            }
            What::LookForCopy => self.look_for_copy(id),
            What::CopyStep => self.copy_step(id),
            What::LookAt(ino, number, takes_us) => self.look_at(id, (ino, number), takes_us),
            What::Mend(given) => self.mend_one(id, &given),
            _ => {}
        }
    }

    /// An event of a replica, and the end of its round.
    pub(super) fn daemon(&mut self, id: u64, event: Event) {
        let name = event.name();
        if self.trace.is_shown() {
            eprintln!("{:>12.6} n{id} {}", self.now_us as f64 / 1e6, event.describe());
        }
        self.with_replica(id, |replica, turn| {
            replica.happen(event, turn);
            replica.round(turn);
        });
        if let Some(replica) = self.machines[id as usize - 1].replica() {
            let core = &replica.core;
            let numbers = [
                core.term(),
                core.last(),
                core.durable(),
                core.committed(),
                replica.store.applied().0,
                core.lease_until_ms(),
            ];
            self.trace.event(self.now_us, id, name, &numbers);
        }
    }

    /// Does something with a replica, and sees to all that comes of it.
    pub(super) fn with_replica<T>(
        &mut self,
        id: u64,
        what: impl FnOnce(&mut super::replica::Replica, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let now_us = self.now_us;
        let machine = &mut self.machines[id as usize - 1];
        let (now_ms, wall, start) = (machine.clock.at_ms(now_us), machine.clock.wall(now_us), machine.start);
        let Some(Daemon::Replica(replica)) = &mut machine.daemon else {
            return None;
        };
        let was = replica.role;
        let mut turn = Turn {
            now_ms,
            wall,
            random: &mut self.random,
            send: Vec::new(),
            later: Vec::new(),
            committed: Vec::new(),
            proposed: Vec::new(),
            parts: Vec::new(),
            publish: false,
        };
        let result = what(replica, &mut turn);
        let role = replica.role;
        let Turn {
            send,
            later,
            committed,
            mut proposed,
            parts,
            publish,
            ..
        } = turn;
        self.note_unwritten(id);
        for (in_us, event) in later {
            self.schedule(in_us, Whom::Daemon(id, start), What::Daemon(event));
        }
        self.committed(id, &committed);
        self.role_changed(id, was, role);
        self.placed(id, std::mem::take(&mut proposed));
        for part in parts {
            let verdict = self.judge.agree.found(&self.machines[id as usize - 1], part);
            self.judge.judge(now_us, "replicas agree", verdict);
        }
        for (to, message) in send {
            self.send(id, to, &message);
        }
        if publish {
            self.publish(id);
        }
        self.hear_outcomes();
        Some(result)
    }

    pub(super) fn committed(&mut self, id: u64, entries: &[holdfast_storage::apply::Committed]) {
        for entry in entries {
            let now_us = self.now_us;
            match self.judge.order.committed(id, entry) {
                Ok(false) => {}
                Ok(true) => {
                    let (index, term) = (entry.index.0, entry.term.0);
                    let durable = self.judge.durable.committed(index, term);
                    let received = self.judge.received.committed(index, term);
                    self.judge.judge(now_us, "what is durable stays", durable);
                    self.judge.judge(now_us, "what is received stays", received);
                }
                Err(facts) => self.judge.blame(now_us, "one order", facts),
            }
        }
    }

    fn role_changed(&mut self, id: u64, was: Role, role: Role) {
        if was == role {
            return;
        }
        self.tell(&format!("n{id}: {was:?} → {role:?}"));
        let start = self.machines[id as usize - 1].start;
        match role {
            Role::Promoting { term } => {
                self.promoted(id);
                let takes = self.random.between(10_000, 300_000);
                self.schedule(takes, Whom::Daemon(id, start), What::Daemon(Event::Mounted { term }));
            }
            Role::Lost { term } => {
                let machine = &mut self.machines[id as usize - 1];
                machine.sequenced = None;
                machine.role_ops.clear();
                let takes = self.random.between(1000, 300_000);
                self.schedule(takes, Whom::Daemon(id, start), What::Daemon(Event::Fenced { term }));
            }
            Role::None => {
                self.machines[id as usize - 1].sequenced = None;
            }
            _ => {}
        }
    }

    /// A node becomes active: what it will show is what is applied there, and it has all that was promised.
    fn promoted(&mut self, id: u64) {
        self.figures.roles += 1;
        let (now_us, machine) = (self.now_us, &mut self.machines[id as usize - 1]);
        let Some(Daemon::Replica(replica)) = &machine.daemon else {
            return;
        };
        let order = &self.judge.order;
        let durable = self.judge.durable.promoted(replica, order);
        let received = self.judge.received.promoted(replica);
        let applied = replica.store.applied().0;
        let mut files = if applied >= machine.shadow.index {
            machine.shadow.advance(applied, order);
            machine.shadow.files.clone()
        } else {
            let mut anew = super::promises::Shadow::default();
            anew.advance(applied, order);
            anew.files
        };
        for index in applied + 1..=replica.core.last() {
            let term = replica.memory.get(&index).copied().unwrap_or_default();
            if let Some(change) = order.proposed(index, term) {
                files.apply(change);
            }
        }
        machine.sequenced = Some(files);
        machine.role_ops.clear();
        self.judge.judge(now_us, "what is durable stays", durable);
        self.judge.judge(now_us, "what is received stays", received);
        self.read(id, None);
    }

    pub(super) fn files_of(&self, id: u64) -> Files {
        let machine = &self.machines[id as usize - 1];
        let mut shadow = machine.shadow.clone();
        if let Some(replica) = machine.replica() {
            shadow.advance(replica.store.applied().0, &self.judge.order);
        }
        shadow.files
    }
}
