//! Copies between machines: when a node asks for one, and the questions and answers.

use super::clock::SECOND;
use super::machine::Daemon;
use super::promises::Rot;
use super::receiver::{Progress, Receiver};
use super::world::{What, Whom, World};
use holdfast_replicator::roles::Role;
use holdfast_storage::copy::{Joint, Source, history};
use holdfast_storage::error::StoreError;

impl World {
    fn is_active(&self, id: u64) -> bool {
        let role = self.machines[id as usize - 1].replica().map(|replica| replica.role);
        matches!(role, Some(Role::Active { .. }))
    }

    fn can_ask(&self, id: u64, peer: u64) -> bool {
        let frozen = self.machines[peer as usize - 1].daemon_frozen_us > self.now_us;
        peer != id && !frozen && self.net.reaches(id, peer, self.now_us)
    }

    /// Once a second: does the active node say that this one can't come back by the log? Twice in a row, and it asks for a copy.
    pub(super) fn look_for_copy(&mut self, id: u64) {
        let start = self.machines[id as usize - 1].start;
        self.schedule(SECOND, Whom::Daemon(id, start), What::LookForCopy);
        let offers = |peer: &u64| {
            let needs = |replica: &super::replica::Replica| replica.needs_copy(id);
            self.can_ask(id, *peer)
                && self.is_active(*peer)
                && self.machines[*peer as usize - 1].replica().is_some_and(needs)
        };
        let offered: Vec<u64> = (1..=3).filter(offers).collect();
        let machine = &mut self.machines[id as usize - 1];
        machine.offers = if offered.is_empty() { 0 } else { machine.offers + 1 };
        if machine.offers < 2 {
            return;
        }
        let agreed = offered.into_iter().any(|peer| self.agrees(id, peer));
        if agreed && !self.is_active(id) {
            self.begin_receiving(id);
        }
    }

    fn agrees(&self, id: u64, peer: u64) -> bool {
        let now_us = self.now_us;
        let (machine, source) = (&self.machines[id as usize - 1], &self.machines[peer as usize - 1]);
        let (Some(own), Some(theirs)) = (machine.replica(), source.replica()) else {
            return false;
        };
        let known_otherwise = own.pins.lock().expect("one thread").is_strange(peer);
        let own_history = history(&own.store.meta).unwrap_or(0);
        let same = theirs.core.history != 0 && (own_history == 0 || own_history == theirs.core.history);
        !known_otherwise && same && theirs.begin_copy(id, false, source.clock.at_ms(now_us)).is_some()
    }

    fn begin_receiving(&mut self, id: u64) {
        self.tell(&format!("n{id} stops to have its store copied"));
        let sound = self.stop_replica(id);
        let machine = &mut self.machines[id as usize - 1];
        machine.start += 1;
        let start = machine.start;
        match Receiver::open(&machine.disk, &machine.meta, sound) {
            Ok(receiver) => {
                machine.stored.clear();
                machine.whole = false;
                machine.daemon = Some(Daemon::Receiver(Box::new(receiver)));
                self.judge.received.ended(&self.machines);
                self.schedule(1000, Whom::Daemon(id, start), What::CopyStep);
            }
            Err(error) => self.copy_failed(id, &error),
        }
    }

    /// Its own disk fails: the process ends, and the next start goes on.
    fn copy_failed(&mut self, id: u64, error: &StoreError) {
        self.tell(&format!("n{id}: copying fails: {error}"));
        let power = self.machines[id as usize - 1].disk.is_dead() && self.fate.chance(500);
        self.end(id, power);
        self.schedule(500_000, Whom::World, What::Start(id));
    }

    pub(super) fn copy_step(&mut self, id: u64) {
        let start = self.machines[id as usize - 1].start;
        if !self.calm && self.fate.chance(10) {
            let calls = self.fate.between(0, 10);
            self.machines[id as usize - 1].disk.dies_after(calls);
        }
        let Some(receiver) = self.machines[id as usize - 1].receiver_mut() else {
            return;
        };
        let Some(session) = &receiver.session else {
            if !self.find_source(id) {
                self.schedule(SECOND, Whom::Daemon(id, start), What::CopyStep);
                return;
            }
            self.schedule(2000, Whom::Daemon(id, start), What::CopyStep);
            return;
        };
        let (source, source_start, basis) = (session.source, session.start, session.basis);
        let from = &self.machines[source as usize - 1];
        if from.start != source_start || from.replica().is_none() || !self.can_ask(id, source) {
            self.drop_session(id);
            self.schedule(SECOND, Whom::Daemon(id, start), What::CopyStep);
            return;
        }
        let now_ms = from.clock.at_ms(self.now_us);
        if let Some(replica) = from.replica() {
            replica.go_on_copy(id, &basis, now_ms);
        }
        let stepped = self.machines[id as usize - 1].receiver_mut().map(Receiver::step);
        let pause = match stepped {
            None => return,
            Some(Ok(Progress::GoesOn)) => self.random.between(300, 4000),
            Some(Ok(Progress::AtEnd)) => {
                let ending = self.with_replica(source, |replica, turn| {
                    let ending = replica.mark_end(id, &basis, turn);
                    replica.round(turn);
                    ending
                });
                match (ending.flatten(), self.machines[id as usize - 1].receiver_mut()) {
                    (Some(ending), Some(receiver)) => receiver.wait_for(ending),
                    _ => self.drop_session(id),
                }
                5000
            }
            Some(Ok(Progress::Ending(ending))) => {
                let ended = self.machines[source as usize - 1]
                    .replica()
                    .and_then(|replica| replica.end_copy(ending, &basis, now_ms));
                match ended {
                    None => {}
                    Some(Ok(Some(joint))) => return self.finish_copy(id, source, joint),
                    Some(Ok(None) | Err(())) => self.drop_session(id),
                }
                10_000
            }
            // What just changes is asked for again; what the source can't read isn't this node's fault.
            Some(Err(StoreError::InFlux { .. } | StoreError::Garbled { .. })) => {
                self.drop_session(id);
                SECOND
            }
            Some(Err(error)) => {
                if self.machines[source as usize - 1].has_faulty_reads
                    && !self.machines[id as usize - 1].has_faulty_reads
                    && !self.machines[id as usize - 1].disk.is_dead()
                {
                    self.drop_session(id);
                    SECOND
                } else {
                    return self.copy_failed(id, &error);
                }
            }
        };
        self.schedule(pause, Whom::Daemon(id, start), What::CopyStep);
    }

    fn drop_session(&mut self, id: u64) {
        if let Some(receiver) = self.machines[id as usize - 1].receiver_mut() {
            receiver.session = None;
            receiver.target.settled();
        }
    }

    fn find_source(&mut self, id: u64) -> bool {
        for peer in 1..=3 {
            if !self.can_ask(id, peer) {
                continue;
            }
            let source = &self.machines[peer as usize - 1];
            let now_ms = source.clock.at_ms(self.now_us);
            let Some(replica) = source.replica() else { continue };
            let Some(offer) = replica.begin_copy(id, true, now_ms) else {
                continue;
            };
            let keys = 1 + self.now_us as usize % 60;
            let from = Source::with_pieces_of(replica.store.clone(), keys);
            let (start, theirs) = (source.start, history(&replica.store.meta).unwrap_or(0));
            let Some(receiver) = self.machines[id as usize - 1].receiver_mut() else {
                return false;
            };
            let own = receiver.target.history().unwrap_or(0);
            if theirs == 0 || (own != 0 && own != theirs) {
                continue;
            }
            receiver.begin(peer, start, offer.basis, from);
            return true;
        }
        false
    }

    fn finish_copy(&mut self, id: u64, source: u64, joint: Joint) {
        let mut store = [0; 16];
        store[..8].copy_from_slice(&self.fate.next().to_le_bytes());
        let machine = &mut self.machines[id as usize - 1];
        let Some(Daemon::Receiver(receiver)) = machine.daemon.take() else {
            return;
        };
        if !self.calm && self.fate.chance(200) {
            machine.disk.dies_after(self.fate.between(0, 25));
        }
        let damaged = receiver.target.counts.damaged;
        match receiver.finish(store, joint) {
            Ok(_) => {
                let machine = &mut self.machines[id as usize - 1];
                machine.disk.lives();
                machine.whole = true;
                if damaged == 0 {
                    machine.rot = Rot::default();
                }
                self.figures.copies += 1;
                self.take_rot(id, source);
                self.tell(&format!(
                    "n{id} has a whole copy, from {} to {}",
                    joint.checkpoint, joint.joined
                ));
                let machine = &mut self.machines[id as usize - 1];
                machine.forget_process_in_order();
                self.ended(id);
                self.schedule(50_000, Whom::World, What::Start(id));
            }
            Err(error) => {
                // It may be whole already, all but the removal of its mark.
                self.take_rot(id, source);
                self.copy_failed(id, &error);
            }
        }
    }

    fn take_rot(&mut self, id: u64, source: u64) {
        let rot = self.machines[source as usize - 1].rot.clone();
        self.machines[id as usize - 1].rot.spreads_from(&rot);
    }
}
