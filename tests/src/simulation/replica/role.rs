//! The active role's beginning and end, as `replicator::task::role` has it.

use super::{Replica, Turn};
use crate::simulation::timers;
use holdfast_replicator::api::Failure;
use holdfast_replicator::roles::{Facts, Role};
use holdfast_storage::effects::Entry;
use holdfast_storage::store::ReadError;
use holdfast_storage::types::{Ino, Term};

impl Replica {
    fn facts(&self, now_ms: u64) -> Facts {
        let role_term = self.role.term();
        let leader = self.core.is_leader();
        let other_leads = self.core.leader().is_some_and(|id| id != self.id);
        Facts {
            now_ms,
            term: self.core.term(),
            leader,
            own_term_applied: self.core.has_applied_own_term(),
            other_elected: role_term > 0
                && (other_leads && !leader || (self.core.term() > role_term && self.core.voted_for_other())),
            before_own_term: self.core.before_own_term(),
            lease_until_ms: self.core.lease_until_ms(),
            eligible: self.may_serve(now_ms),
        }
    }

    pub(super) fn step_role(&mut self, turn: &mut Turn<'_>) {
        let facts = self.facts(turn.now_ms);
        let was = self.role;
        let role = was.step(&facts, timers::GRACE_MS);
        self.role = role;
        self.gate
            .set_lease(if role == Role::None { 0 } else { facts.lease_until_ms });
        let releasing = self.handover.as_ref().is_none_or(|handover| handover.is_releasing());
        self.gate.set_serving(role.accepts() && releasing);
        self.core.suspended = matches!(role, Role::Suspended { .. });
        if role == was {
            return;
        }
        match role {
            Role::Promoting { term } => self.promote(term, turn),
            Role::Suspended { .. } => self.cancel_handover(),
            Role::Lost { .. } => self.end_role(),
            Role::Active { .. } | Role::None | Role::HandOver { .. } => {}
        }
    }

    fn promote(&mut self, term: u64, turn: &mut Turn<'_>) {
        self.vip_not_before_ms = turn.now_ms + self.core.address_wait_ms(timers::VIP_WAIT_MS);
        self.sequencer.end();
        self.queued.clear();
        self.sync_asked = 0;
        if let Err(ReadError::Refused(_)) = self.store.inode(Ino::ROOT) {
            let entry = Entry {
                term: Term(term),
                effects: holdfast_storage::plan::root(turn.wall),
            };
            if self.propose_own(&entry, turn).is_some() {
                self.sequencer.urgency.now();
            }
        }
    }

    /// The gate is open: what waited goes on.
    pub(super) fn release_held(&mut self, turn: &mut Turn<'_>) {
        for (op, request) in std::mem::take(&mut self.held) {
            self.submit(op, request, turn);
        }
    }

    pub(super) fn end_role(&mut self) {
        self.gate.set_serving(false);
        self.sequencer.end();
        self.queued.clear();
        self.core.role_ended();
        self.roles_ended += 1;
        for (_, request) in std::mem::take(&mut self.held) {
            (request.done)(Err(Failure::Lost));
        }
        self.cancel_handover();
    }
}
