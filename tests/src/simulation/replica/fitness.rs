//! Whether this node is fit to be active, as `replicator::task::fitness` has it, without the stopwatch on the disk.

use super::{Replica, Turn};
use holdfast_proto::stream;
use holdfast_replicator::roles::Role;
use holdfast_replicator::{UNAPPLIED_MAX, spare_from};

/// By then the others' states say whether their disks are in the same trouble.
const LEAVE_AFTER_MS: u64 = 1_000;
const LEAVE_AGAIN_MS: u64 = 30_000;
const AGENT_AWAY_MAX_MS: u64 = 10_000;
const AGENT_OBJECTS_MAX_MS: u64 = 5_000;

impl Replica {
    fn could_serve(&self) -> bool {
        self.agent.connected && self.agent.eligible && self.halted.is_none()
    }

    fn is_at_its_best(&self) -> bool {
        !self.unreadable && self.has_room && self.core.unapplied() <= UNAPPLIED_MAX
    }

    pub(super) fn is_eligible(&self, _now_ms: u64) -> bool {
        self.could_serve() && self.is_at_its_best()
    }

    pub(super) fn may_serve(&self, now_ms: u64) -> bool {
        self.could_serve() && (self.is_at_its_best() || self.best_standby(now_ms).is_none())
    }

    pub(super) fn best_standby(&self, now_ms: u64) -> Option<u64> {
        let fit = |id: u64| {
            let peer = self.core.peer(id)?;
            let state = peer
                .state
                .filter(|state| state.eligible && !state.forgetful && peer.heard_ms + 1500 > now_ms)
                .filter(|_| self.core.is_up_to_date(id))?;
            Some((state.last_index, id))
        };
        (1..=3).filter_map(fit).max().map(|(_, id)| id)
    }

    pub(super) fn look_at_space(&mut self) {
        let Ok(space) = self.store.space() else { return };
        self.core.store_free = space.above(self.threads.log_total());
        self.core.store_spare = space.above(spare_from(self.threads.log_total()));
        self.has_room = self.core.store_free > 0;
        self.sequencer.full = self.room(self.core.store_free, |state| state.store_free) == 0;
        self.sequencer.spent = self.room(self.core.store_spare, |state| state.store_spare) == 0;
    }

    fn room(&self, own: u64, free: impl Fn(&stream::NodeState) -> u64) -> u64 {
        let standby = (1..=3)
            .filter_map(|id| self.core.peer(id)?.state)
            .map(|state| self.core.room(free(&state), state.applied))
            .max();
        let own = self.core.room(own, self.store.applied().0);
        standby.unwrap_or(u64::MAX).min(own)
    }

    pub(super) fn leave_if_unfit(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.role, Role::Active { .. }) {
            self.unwell_since_ms = None;
        }
        let away_since = (!self.agent.connected).then(|| self.agent_away_since_ms.unwrap_or(turn.now_ms));
        self.agent_away_since_ms = away_since;
        let objects = matches!(self.role, Role::Active { .. }) && self.agent.connected && self.agent.gives_up;
        self.agent_objects_since_ms = objects.then(|| self.agent_objects_since_ms.unwrap_or(turn.now_ms));
        match self.role {
            Role::Active { .. } => self.leave_if_unwell(turn.now_ms),
            Role::None | Role::Promoting { .. } => self.leave_if_ineligible(turn),
            _ => {}
        }
    }

    fn leave_if_unwell(&mut self, now: u64) {
        let is_away = self
            .agent_away_since_ms
            .is_some_and(|since| now >= since + AGENT_AWAY_MAX_MS);
        let objects = self
            .agent_objects_since_ms
            .is_some_and(|since| now >= since + AGENT_OBJECTS_MAX_MS);
        let agent_is_well = !is_away && !objects;
        if self.halted.is_none() && !self.unreadable && self.threads.full_since_ms.is_none() && agent_is_well {
            self.unwell_since_ms = None;
            return;
        }
        let since = *self.unwell_since_ms.get_or_insert(now);
        let too_early = now < since + LEAVE_AFTER_MS || now < self.leave_again_ms;
        if too_early || self.handover.is_some() || self.best_standby(now).is_none() {
            return;
        }
        self.leave_again_ms = now + LEAVE_AGAIN_MS;
        self.begin_handover(None, "it is unwell", now);
    }

    fn leave_if_ineligible(&mut self, turn: &mut Turn<'_>) {
        if self.is_eligible(turn.now_ms) || !self.core.is_leader() || self.core.is_transferring() {
            return;
        }
        if let Some(to) = self.best_standby(turn.now_ms) {
            self.transfer(to, turn);
            if let Role::Promoting { term } = self.role {
                self.role = Role::Lost { term };
                self.end_role();
            }
        }
    }

    fn transfer(&mut self, to: u64, turn: &mut Turn<'_>) {
        let message = self.handover_message(self.core.term(), false, "it could not serve");
        let send = self.core.transfer(to, &message);
        self.send_all(send, turn);
    }

    /// The disk has refused what it mustn't: to its peers this node is dead from here on.
    pub(super) fn fail(&mut self, why: String, turn: &mut Turn<'_>) {
        if self.out {
            return;
        }
        if self.core.is_leader()
            && let Some(to) = self.best_standby(turn.now_ms)
        {
            self.transfer(to, turn);
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
