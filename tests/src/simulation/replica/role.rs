//! The active role's beginning and end, as `replicator::task::role` has it.

use super::{Replica, Turn};
use crate::simulation::timers;
use holdfast_replicator::api::Failure;
use holdfast_replicator::handover::Step;
use holdfast_replicator::roles::Role;
use holdfast_storage::effects::Entry;
use holdfast_storage::store::ReadError;
use holdfast_storage::types::{Ino, Term};

impl Replica {
    pub(super) fn step_role(&mut self, turn: &mut Turn<'_>) {
        let was = self.role;
        let facts = self.core.facts_for(was, turn.now_ms, self.may_serve(turn.now_ms));
        let role = was.step(&facts, timers::GRACE_MS);
        self.role = role;
        self.gate
            .set_lease(if role == Role::None { 0 } else { facts.lease_until_ms });
        let mut handover = self.handover.iter();
        let keeps_serving = handover.all(|handover| handover.step == Step::Releasing);
        self.gate.set_serving(role.accepts() && keeps_serving);
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
        let given = self.core.given_by();
        self.came = given.map(|(_, handover)| (handover.reason.clone(), turn.now_ms));
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
