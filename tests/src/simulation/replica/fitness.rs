//! What this node is fit for, as `replicator::task::fitness` asks `replicator::fitness`, without the stopwatch on the disk.

use super::{Replica, Turn};
use holdfast_proto::stream;
use holdfast_replicator::disk_health::{DiskTrouble, Fault};
use holdfast_replicator::fitness::{Leave, Others, Sight};
use holdfast_replicator::roles::Role;
use holdfast_replicator::spare_from;

impl Replica {
    fn sight(&self, now_ms: u64) -> Sight<'_> {
        Sight {
            now_ms,
            role: self.role,
            agent: Some(&self.agent),
            halted: self.halted.as_deref(),
            disk: self.disk.as_ref().map(|trouble| &trouble.fault),
            has_room: self.has_room,
            differs: false,
            unapplied: self.core.unapplied(),
            came: self.came.as_ref().map(|(why, at_ms)| (why.as_str(), *at_ms)),
        }
    }

    pub(super) fn is_eligible(&self, now_ms: u64) -> bool {
        self.sight(now_ms).is_eligible()
    }

    pub(super) fn may_serve(&self, now_ms: u64) -> bool {
        let somebody_else_could = || self.core.best_standby(now_ms, None).is_some();
        self.fitness.may_serve(&self.sight(now_ms), somebody_else_could)
    }

    pub(super) fn look_at_space(&mut self) {
        let Ok(space) = self.store.space() else { return };
        self.core.store_free = space.above(self.threads.log_total());
        self.core.store_spare = space.above(spare_from(self.threads.log_total()));
        self.has_room = self.core.store_free > 0;
        let own = |free| (free, self.store.applied());
        self.sequencer.full = self
            .core
            .least_room(own(self.core.store_free), |state| state.store_free)
            == 0;
        self.sequencer.spent = self
            .core
            .least_room(own(self.core.store_spare), |state| state.store_spare)
            == 0;
    }

    pub(super) fn look_at_disk(&mut self, now_ms: u64) {
        let trouble = |since_ms, fault| DiskTrouble {
            for_ms: now_ms - since_ms,
            fault,
        };
        let unreadable = self
            .unreadable
            .then(|| trouble(now_ms, Fault::Unreadable("EIO".into())));
        let full = || self.threads.full_since_ms.map(|since| trouble(since, Fault::Full));
        self.disk = self.fitness.disk(unreadable.or_else(full), now_ms);
    }

    pub(super) fn leave_if_unfit(&mut self, turn: &mut Turn<'_>) {
        let others = Others {
            best_standby: self.core.best_standby(turn.now_ms, None),
            are_all_eligible: self.core.are_all_eligible(turn.now_ms),
            are_led: self.core.is_leader() && !self.core.is_transferring(),
        };
        let mut fitness = self.fitness;
        let leave = fitness.leaves(&self.sight(turn.now_ms), &others, self.handover.is_some());
        self.fitness = fitness;
        match leave {
            None => {}
            Some(Leave::HandOver { why }) => self.begin_handover(None, why, turn.now_ms),
            Some(Leave::Transfer { to, why }) => {
                self.transfer(to, why, turn);
                if let Role::Promoting { term } = self.role {
                    self.role = Role::Lost { term };
                    self.end_role();
                }
            }
        }
    }

    fn transfer(&mut self, to: u64, reason: String, turn: &mut Turn<'_>) {
        let message = stream::Handover {
            term: self.core.term(),
            vip_released: false,
            reason,
        };
        let send = self.core.transfer(to, &message);
        self.send_all(send, turn);
    }

    /// The disk has refused what it mustn't: to its peers this node is dead from here on.
    pub(super) fn fail(&mut self, why: String, turn: &mut Turn<'_>) {
        if self.out {
            return;
        }
        if self.core.is_leader()
            && let Some(to) = self.core.best_standby(turn.now_ms, None)
        {
            self.transfer(to, why.clone(), turn);
            let last_words = self.core.output().send;
            self.send_all(last_words, turn);
        }
        self.out = true;
        self.handover = None;
        self.halted = Some(why);
        self.gate.set_lease(0);
        let term = self.role.term();
        self.role = if term > 0 { Role::Lost { term } } else { Role::None };
        self.end_role();
        turn.publish = true;
    }
}
