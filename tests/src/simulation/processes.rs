//! Daemons' starts and ends, and the connections between them.

use super::clock::SECOND;
use super::replica::{Event, Replica};
use super::world::{What, Whom, World};
use holdfast_replicator::wire::PeerMessage;

impl World {
    pub(super) fn start(&mut self, id: u64) {
        let now_us = self.now_us;
        let machine = &mut self.machines[id as usize - 1];
        if machine.daemon.is_some() || machine.away_until_us > now_us {
            return;
        }
        if !self.calm && self.fate.chance(150) {
            let most = self.fate.one_of(&[4, 30, 300]);
            machine.disk.dies_after(self.fate.between(0, most));
        }
        let booted = machine.boot(now_us, &mut self.fate);
        let start = machine.start;
        match booted {
            Ok(()) => {
                machine.disk.lives();
                machine.disk.forget_harm();
                let copying = machine.is_copying();
                let agent_start = machine.agent_start;
                if let Some(agent) = &mut machine.agent {
                    agent.connected();
                }
                self.tell(&format!(
                    "n{id} starts{}",
                    if copying { ", to go on with a copy" } else { "" }
                ));
                if copying {
                    self.schedule(1000, Whom::Daemon(id, start), What::CopyStep);
                } else {
                    self.schedule(1, Whom::Daemon(id, start), What::Daemon(Event::Tick));
                    self.schedule(500_000, Whom::Daemon(id, start), What::Daemon(Event::LookForCheckpoint));
                    self.schedule(SECOND, Whom::Daemon(id, start), What::LookForCopy);
                    self.schedule(1000, Whom::Agent(id, agent_start), What::AgentTick);
                }
            }
            Err(error) if machine.disk.is_dead() => {
                self.figures.broken_starts += 1;
                let power = self.fate.chance(500);
                self.tell(&format!("n{id} dies in its recovery ({error})"));
                self.end(id, power);
                let pause = self.fate.between(10_000, SECOND);
                self.schedule(pause, Whom::World, What::Start(id));
            }
            Err(error) => {
                let facts = format!("n{id} can't be started: {}", holdfast_storage::error::chain(&error));
                if self.machines[id as usize - 1].disk.is_harmed() {
                    return self.replace_harmed(id);
                }
                // A disk that refuses: tried again, as systemd does.
                if self.has_a_bad_disk(id) {
                    self.end(id, false);
                    self.schedule(SECOND, Whom::World, What::Start(id));
                } else {
                    self.judge.blame(now_us, "a node recovers by itself", facts);
                }
            }
        }
    }

    /// A process ends, by itself or with its machine.
    pub(super) fn end(&mut self, id: u64, power: bool) {
        let outstanding: Vec<u64> = self.judge.received.indexes().collect();
        let is_harmed = self.settle_harm(id);
        let machine = &mut self.machines[id as usize - 1];
        machine.end(power, &outstanding, &mut self.fate);
        if is_harmed {
            machine.stored.clear();
        }
        self.note_unwritten(id);
        self.ended(id);
        if power {
            let pause = self.fate.between(100_000, 3 * SECOND);
            self.schedule(pause, Whom::World, What::StartAgent(id));
        }
    }

    pub(super) fn ended(&mut self, id: u64) {
        self.abandon(id);
        self.judge.received.ended(&self.machines);
        for peer in (1..=3).filter(|peer| *peer != id) {
            *self.net.link(id, peer) = None;
            if let Some(link) = *self.net.link(peer, id) {
                // A dead process's connections break at once, a dead machine's after a while.
                let pause = if self.random.chance(500) { 100_000 } else { 2 * SECOND };
                let pause = self.random.between(100, pause);
                self.schedule(pause, Whom::World, What::Broken(peer, id, link));
            }
            self.schedule(100_000, Whom::World, What::Connect(id, peer));
        }
        let agent_start = self.machines[id as usize - 1].agent_start;
        self.schedule(1000, Whom::Agent(id, agent_start), What::AgentCutOff);
    }

    pub(super) fn send(&mut self, from: u64, to: u64, message: &PeerMessage) {
        let starts = (
            self.machines[to as usize - 1].start,
            self.machines[from as usize - 1].start,
        );
        if *self.net.link(from, to) != Some(starts) || self.machines[to as usize - 1].replica().is_none() {
            return;
        }
        for at in self.net.arrivals(from, to, self.now_us) {
            let event = Event::Message {
                from,
                message: message.clone(),
            };
            self.schedule(at - self.now_us, Whom::Daemon(to, starts.0), What::Daemon(event));
        }
    }

    /// Both ends learn which store the other one has.
    pub(super) fn connect(&mut self, from: u64, to: u64) {
        let (near, far) = (&self.machines[from as usize - 1], &self.machines[to as usize - 1]);
        let starts = (far.start, near.start);
        if *self.net.link(from, to) == Some(starts) && near.replica().is_some() {
            return;
        }
        let frozen = near.daemon_frozen_us.max(far.daemon_frozen_us) > self.now_us;
        let (Some(one), Some(other)) = (near.replica(), far.replica()) else {
            // A node that has no daemon to connect tries again when it is started.
            if near.daemon.is_some() || far.daemon.is_none() {
                self.schedule(200_000, Whom::World, What::Connect(from, to));
            } else {
                self.schedule(100_000, Whom::World, What::Connect(from, to));
            }
            return;
        };
        let (mine, theirs) = (one.core.history, other.core.history);
        let stranger = mine != 0 && theirs != 0 && mine != theirs;
        if frozen || stranger || !self.net.reaches(from, to, self.now_us) {
            self.schedule(200_000, Whom::World, What::Connect(from, to));
            return;
        }
        let greets = |replica: &Replica| Event::HasStore {
            peer: replica.id,
            store_id: replica.store_id(),
            joined: replica.identity.joined.0,
            has_data: replica.core.history != 0,
        };
        let (hello, answer) = (greets(one), greets(other));
        *self.net.link(from, to) = Some(starts);
        self.daemon(to, hello);
        self.daemon(from, answer);
        self.daemon(from, Event::Up { peer: to });
    }

    pub(super) fn link_broke(&mut self, from: u64, to: u64, link: (u64, u64)) {
        if *self.net.link(from, to) != Some(link) {
            return;
        }
        *self.net.link(from, to) = None;
        if self.machines[from as usize - 1].replica().is_some() {
            self.daemon(from, Event::Down { peer: to });
        }
        let pause = self.random.between(10_000, 300_000);
        self.schedule(pause, Whom::World, What::Connect(from, to));
    }
}
