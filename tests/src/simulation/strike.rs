//! What each kind of fault does.

use super::agent::Agent;
use super::clock::SECOND;
use super::disk;
use super::machine::{Daemon, Machine};
use super::net::Weather;
use super::plan::{Fault, Kind};
use super::random::Random;
use super::replica::Event;
use super::world::{What, Whom, World};
use holdfast_replicator::roles::Role;
use holdfast_storage::data;
use holdfast_storage::types::{BLOCK, Ino};
use std::collections::BTreeMap;

impl World {
    /// The node that serves, or else any.
    fn active_or(&self, any: u64) -> u64 {
        let active = |id: &u64| {
            let role = self.machines[*id as usize - 1].replica().map(|replica| replica.role);
            matches!(role, Some(Role::Active { .. } | Role::HandOver { .. }))
        };
        (1..=3).find(active).unwrap_or(any)
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        let mut dice = Random::of(fault.seed, 0);
        let any = dice.between(1, 4);
        let now_us = self.now_us;
        let soon = dice.one_of(&[200_000, SECOND, 8 * SECOND]);
        let pause = dice.between(20_000, soon);
        self.tell(&format!(
            "fault {}: {:?} (n{any}, or the active one), {:.3} s",
            fault.number,
            fault.kind,
            pause as f64 / 1e6
        ));
        *self.figures.faults.entry(fault.kind).or_default() += 1;
        match fault.kind {
            Kind::Kill => self.crash(any, false, pause),
            Kind::PowerLoss => self.crash(any, true, pause),
            Kind::KillActive => self.crash(self.active_or(any), false, pause),
            Kind::PowerLossOfActive => self.crash(self.active_or(any), true, pause),
            Kind::PowerLossOfAll => {
                for id in 1..=3 {
                    let pause = dice.between(20_000, soon);
                    self.crash(id, true, pause);
                }
            }
            Kind::Stop => self.stop(any, pause),
            Kind::Isolate => self.isolate(any, now_us + pause),
            Kind::IsolateActive => self.isolate(self.active_or(any), now_us + pause),
            Kind::CutOneWay => self.net.cut(any, any % 3 + 1, now_us + pause),
            Kind::CutPair => {
                self.net.cut(any, any % 3 + 1, now_us + pause);
                self.net.cut(any % 3 + 1, any, now_us + pause);
            }
            Kind::Flap => {
                for flap in 0..dice.between(3, 12) {
                    let at = flap * dice.between(50_000, 800_000);
                    let cut = Fault {
                        kind: Kind::CutPair,
                        seed: dice.next(),
                        ..fault
                    };
                    self.schedule(at, Whom::World, What::Fault(cut));
                }
            }
            Kind::Weather => self.net.weather = Weather::drawn(&mut dice),
            Kind::Heal => self.net.heal(),
            Kind::FreezeDaemon => self.machines[any as usize - 1].daemon_frozen_us = now_us + pause,
            Kind::FreezeAgent => {
                let id = self.active_or(any);
                self.machines[id as usize - 1].agent_frozen_us = now_us + pause;
            }
            Kind::FreezeNode => {
                let id = if dice.chance(500) { self.active_or(any) } else { any };
                let machine = &mut self.machines[id as usize - 1];
                (machine.daemon_frozen_us, machine.agent_frozen_us) = (now_us + pause, now_us + pause);
            }
            Kind::KillAgent => {
                self.kill_agent(any);
                self.schedule(pause, Whom::World, What::StartAgent(any));
            }
            Kind::SlowDisk => self.machines[any as usize - 1].disk_held_us = now_us + pause.min(3 * SECOND),
            Kind::LogRefuses => self.bad_disk(any, disk::Kind::Log, pause),
            Kind::DataRefuses => self.bad_disk(any, disk::Kind::Data, pause),
            Kind::Unreadable => {
                let machine = &mut self.machines[any as usize - 1];
                machine.disk.unreadable(true);
                machine.has_faulty_reads = true;
                self.schedule(pause, Whom::World, What::DiskIsMended(any, true));
            }
            Kind::Full => self.fill(any, pause, &mut dice),
            Kind::Rot => self.rot(any, &mut dice),
            Kind::Misdirect => self.misdirect(any, &mut dice),
            Kind::LogWriteLost | Kind::LogRots => {
                let id = if dice.chance(300) { self.active_or(any) } else { any };
                self.harm_log(id, fault.kind == Kind::LogWriteLost, pause, &mut dice);
            }
            Kind::PbxFails => {
                let everywhere = dice.chance(300);
                let active = self.active_or(any);
                let until_us = now_us + dice.between(3 * SECOND, 40 * SECOND);
                for id in (1..=3).filter(|id| everywhere || *id == active) {
                    let machine = &mut self.machines[id as usize - 1];
                    machine.pbx_broken_until_us = until_us;
                    machine.unit_runs = false;
                    machine.agent.iter_mut().for_each(Agent::loses_unit);
                }
            }
            Kind::NewDisk => self.new_disk(any, pause),
            Kind::Away => {
                let long = dice.between(8, 20) * SECOND;
                self.machines[any as usize - 1].away_until_us = now_us + long;
                self.crash(any, true, long);
            }
            Kind::HandOver => {
                let id = self.active_or(any);
                let to = dice
                    .chance(500)
                    .then(|| (id + dice.between(0, 2)) % 3 + 1)
                    .filter(|to| *to != id);
                self.daemon(id, Event::HandOver { to });
            }
            Kind::ClockJump => {
                let seconds = dice.one_of(&[-3600, -1, 1, 86_400]);
                self.machines[any as usize - 1].clock.jump(seconds);
            }
            Kind::CutOffThenHung => {
                let id = self.active_or(any);
                self.isolate(id, now_us + 3 * SECOND + pause);
                let until_us = (!dice.chance(300)).then_some(now_us + 3 * SECOND);
                let moment = dice.between(0, 1_300_000);
                self.schedule(moment, Whom::World, What::AgentFails(id, until_us));
            }
            Kind::VoterReturns => {
                let id = self.active_or(any);
                let (voter, deaf) = (id % 3 + 1, (id + 1) % 3 + 1);
                let (voter, deaf) = if dice.chance(500) { (voter, deaf) } else { (deaf, voter) };
                self.net.cut(id, deaf, now_us + 8 * SECOND);
                self.net.cut(deaf, id, now_us + 8 * SECOND);
                // With nothing to be done, what the deaf one doesn't hear doesn't make its log too short to win with.
                self.clients.rest_until_us = now_us + 8 * SECOND;
                for time in 1..=4 {
                    let moment = time * 1_600_000 + dice.between(0, 800_000);
                    let pause = dice.between(10_000, 300_000);
                    self.schedule(moment, Whom::World, What::Stop(voter, pause));
                }
            }
        }
    }

    fn crash(&mut self, id: u64, power: bool, pause: u64) {
        self.end(id, power);
        self.schedule(pause, Whom::World, What::Start(id));
    }

    /// In order, with the mark of it; the process may still be killed in the midst.
    pub(super) fn stop(&mut self, id: u64, pause: u64) {
        self.schedule(pause, Whom::World, What::Start(id));
        if self.machines[id as usize - 1].is_copying() {
            return self.end(id, false);
        }
        if self.fate.chance(300) {
            let calls = self.fate.between(0, 30);
            self.machines[id as usize - 1].disk.dies_after(calls);
        }
        self.stop_replica(id);
    }

    /// Whether it ended in order, with all that may have been applied before applied again.
    pub(super) fn stop_replica(&mut self, id: u64) -> bool {
        let now_us = self.now_us;
        let outstanding: Vec<u64> = self.judge.received.indexes().collect();
        let is_harmed = self.settle_harm(id);
        let machine = &mut self.machines[id as usize - 1];
        let reader = match &machine.daemon {
            Some(Daemon::Replica(replica)) => replica.reader.clone(),
            _ => return false,
        };
        let (now_ms, wall) = (machine.clock.at_ms(now_us), machine.clock.wall(now_us));
        let Some(Daemon::Replica(replica)) = machine.daemon.take() else {
            return false;
        };
        let mut turn = super::replica::Turn {
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
        let stopped = replica.stop(&mut turn);
        let committed = std::mem::take(&mut turn.committed);
        let held = |index: &u64| Some((*index, reader.term(holdfast_storage::types::LogIndex(*index))?.0));
        let stored = outstanding.iter().filter_map(held).collect();
        let dead = machine.disk.is_dead();
        machine.forget_process(false, &mut self.fate);
        machine.stored = if is_harmed { BTreeMap::new() } else { stored };
        self.note_unwritten(id);
        self.committed(id, &committed);
        self.ended(id);
        match stopped {
            Ok(sound) => sound && !dead,
            Err(_) => false,
        }
    }

    fn isolate(&mut self, id: u64, until_us: u64) {
        for peer in (1..=3).filter(|peer| *peer != id) {
            self.net.cut(id, peer, until_us);
            self.net.cut(peer, id, until_us);
        }
    }

    fn bad_disk(&mut self, id: u64, kind: disk::Kind, pause: u64) {
        self.machines[id as usize - 1].disk.refuse(kind, true);
        self.machines[id as usize - 1].has_faulty_reads = true;
        self.schedule(pause, Whom::World, What::DiskIsMended(id, true));
    }

    /// It refuses, or has no room for a log.
    pub(super) fn has_a_bad_disk(&self, id: u64) -> bool {
        let machine = &self.machines[id as usize - 1];
        machine.has_faulty_reads || machine.disk.is_small()
    }

    /// The operator has seen to it, and starts the daemon anew.
    pub(super) fn disk_is_mended(&mut self, id: u64, restart: bool) {
        self.machines[id as usize - 1].disk.mend();
        if restart {
            self.end(id, false);
            self.schedule(200_000, Whom::World, What::Start(id));
        }
        self.machines[id as usize - 1].has_faulty_reads = false;
    }

    fn fill(&mut self, id: u64, pause: u64, dice: &mut Random) {
        let machine = &self.machines[id as usize - 1];
        let total = machine.geometry.total_bytes();
        let free = dice.between(total / 8, total * 2);
        machine.disk.leave_free(free);
        self.schedule(pause, Whom::World, What::DiskIsMended(id, false));
    }

    /// No other machine's copy is in doubt.
    fn others_are_sound(&self, id: u64) -> bool {
        let sound = |machine: &Machine| machine.rot.is_empty() && machine.whole && !machine.disk.is_harmed();
        self.machines.iter().all(|machine| machine.id == id || sound(machine))
    }

    /// A byte of a file that has some, where no other machine's copy is in doubt.
    fn to_be_damaged(&self, id: u64, dice: &mut Random) -> Option<(Ino, u64)> {
        let files = self.files_of(id);
        let inos: Vec<_> = files
            .files
            .iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(ino, bytes)| (*ino, bytes.len() as u64))
            .collect();
        if !self.others_are_sound(id) || inos.is_empty() {
            return None;
        }
        let (ino, size) = dice.one_of(&inos);
        Some((ino, dice.between(0, size)))
    }

    fn is_damaged(&mut self, id: u64, ino: Ino) {
        let machine = &mut self.machines[id as usize - 1];
        machine.rot.insert(ino);
        if !machine.replica().is_some_and(super::replica::Replica::is_redone) {
            machine.rot.process_ended();
        }
    }

    fn rot(&mut self, id: u64, dice: &mut Random) {
        let Some((ino, offset)) = self.to_be_damaged(id, dice) else {
            return;
        };
        if self.machines[id as usize - 1].disk.rot(&data::path(ino), offset) {
            self.is_damaged(id, ino);
            self.figures.rotted += 1;
            self.tell(&format!("n{id}: byte {offset} of inode {ino} rots"));
            if dice.chance(600) {
                let (soon, takes_us) = (
                    dice.between(10_000, 2 * SECOND),
                    dice.one_of(&[1000, 100_000, 2 * SECOND]),
                );
                let whom = Whom::Daemon(id, self.machines[id as usize - 1].start);
                self.schedule(soon, whom, What::LookAt(ino, offset / BLOCK, takes_us));
            }
        }
    }

    /// What is hit has other bytes from the next write on; whose write it was has its former ones.
    fn misdirect(&mut self, id: u64, dice: &mut Random) {
        let Some((ino, offset)) = self.to_be_damaged(id, dice) else {
            return;
        };
        // Redo can't tell a write that went astray from one that a crash has torn; armed for later it would still meet it.
        let replica = self.machines[id as usize - 1].replica();
        if !replica.is_some_and(super::replica::Replica::is_redone) {
            return;
        }
        let at = offset / BLOCK * BLOCK;
        self.machines[id as usize - 1].disk.misdirect(data::path(ino), at);
        self.is_damaged(id, ino);
        self.tell(&format!(
            "n{id}: the next write of data ends up at byte {at} of inode {ino}"
        ));
    }

    /// Whose write has gone astray lacks it.
    pub(super) fn note_unwritten(&mut self, id: u64) {
        for path in self.machines[id as usize - 1].disk.unwritten() {
            let number = path
                .rsplit('/')
                .next()
                .and_then(|name| u64::from_str_radix(name, 16).ok());
            if let Some(ino) = number.map(Ino) {
                self.is_damaged(id, ino);
                self.tell(&format!("n{id}: a write of inode {ino} has gone astray"));
            }
        }
    }

    /// The two others run and have all that is committed: without this node they can go on.
    fn others_have_all(&self, id: u64) -> bool {
        let has_all = |machine: &Machine| {
            let replica = machine.replica();
            replica.is_some_and(|replica| replica.core.durable() >= self.judge.order.last())
        };
        self.machines.iter().all(|machine| machine.id == id || has_all(machine))
    }

    /// A node whose log isn't what it wrote keeps it until its process ends, which it does soon.
    fn harm_log(&mut self, id: u64, lost: bool, pause: u64, dice: &mut Random) {
        let machine = &self.machines[id as usize - 1];
        let is_sound = machine.whole && machine.rot.is_empty() && !machine.disk.is_harmed();
        if !is_sound || machine.replica().is_none() || !self.others_are_sound(id) || self.has_a_bad_disk(id) {
            return;
        }
        if lost {
            machine.disk.lose_log_write();
        } else if !machine.disk.rot_log(dice) {
            return;
        }
        let what = if lost {
            "the next write of its log is lost"
        } else {
            "a byte of its log rots"
        };
        self.tell(&format!("n{id}: {what}"));
        let what = if dice.chance(300) {
            What::Stop(id, 200_000)
        } else {
            What::Dies(id, dice.chance(500))
        };
        self.schedule(pause, Whom::World, what);
    }

    /// One disk's loss must not be the second: what only this one was told to keep, and hasn't, would be gone with it.
    pub(super) fn settle_harm(&mut self, id: u64) -> bool {
        let stays = self.others_have_all(id);
        self.machines[id as usize - 1].disk.settle_harm(stays)
    }

    pub(super) fn dies(&mut self, id: u64, power: bool) {
        self.crash(id, power, 200_000);
    }

    /// Its log can't be read. The operator waits until the others have all, and gives it another disk.
    pub(super) fn replace_harmed(&mut self, id: u64) {
        self.end(id, false);
        if self.others_are_sound(id) && self.others_have_all(id) {
            self.tell(&format!("n{id}'s log can't be read"));
            self.replace_disk(id);
        }
        self.schedule(SECOND, Whom::World, What::Start(id));
    }

    /// Its disk is lost, if no other node's store is in doubt.
    fn new_disk(&mut self, id: u64, pause: u64) {
        if !self.others_are_sound(id) || !self.others_have_all(id) || self.judge.order.last() == 0 {
            return;
        }
        self.crash(id, true, pause);
        self.replace_disk(id);
    }

    fn replace_disk(&mut self, id: u64) {
        self.machines[id as usize - 1].lose_disk();
        self.judge.received.ended(&self.machines);
        self.tell(&format!("n{id} has a new disk"));
    }
}
