//! The active role's beginning and end on this node, as `crate::roles` decides them.

use super::Task;
use super::switch::Switch;
use crate::api::Failure;
use crate::clock::wall;
use crate::handover::Step;
use crate::roles::Role;
use crate::view::Failover;
use holdfast_storage::effects::Entry;
use holdfast_storage::types::{Ino, Term};

impl Task {
    pub(super) fn step_role(&mut self, now: u64) {
        let was = self.role();
        let facts = self.core.facts_for(was, now, self.may_serve(now));
        let role = was.step(&facts, self.settings.grace_ms);
        self.state.role = Some(role);
        self.gate
            .set_lease(if role == Role::None { 0 } else { facts.lease_until_ms });
        let keeps_serving = self.state.switch.as_ref().is_none_or(Switch::is_releasing);
        self.gate.set_serving(role.accepts() && keeps_serving);
        self.core.suspended = matches!(role, Role::Suspended { .. });
        if role == was {
            return;
        }
        match role {
            Role::Promoting { term } => self.promote(term, now),
            Role::Suspended { .. } => {
                tracing::warn!("suspended: no majority answers; requests wait");
                self.cancel_handover("the lease ran out before the switch was done");
            }
            Role::Active { term } => tracing::info!(term, "the lease runs again"),
            Role::Lost { term } => {
                tracing::warn!(term, "the active role is lost");
                self.end_role();
            }
            Role::None | Role::HandOver { .. } => {}
        }
    }

    fn promote(&mut self, term: u64, now: u64) {
        let given = self.core.given_by();
        self.state.vip_not_before_ms = now.saturating_add(self.core.address_wait_ms(self.settings.vip_wait_ms));
        self.state.failover = Some(Failover {
            term,
            began_ms: self.state.own_before,
            detected_ms: self.core.campaign_ms,
            lease_ms: now,
            from: given.map(|(id, _)| id),
            given_away: given.map(|(_, handover)| handover.reason.clone()),
            ..Failover::default()
        });
        self.sequencer.end();
        self.state.sync_asked = 0;
        tracing::info!(term, "elected; bringing the file system up");
        let root = self.store.inode(Ino::ROOT);
        if let Err(holdfast_storage::store::ReadError::Refused(_)) = root {
            let entry = Entry {
                term: Term(term),
                effects: holdfast_storage::plan::root(wall()),
            };
            if let Some(index) = self.core.propose(entry.encode()) {
                self.store.overlay.sequence(index, &entry.effects);
                self.sequencer.urgency.now();
            }
        }
    }

    /// The gate is open: what waited goes on.
    pub(super) fn release_held(&mut self) {
        self.state.held.reached(u64::MAX);
        for request in std::mem::take(&mut self.state.held_requests) {
            self.submit(request);
        }
    }

    pub(super) fn end_role(&mut self) {
        self.gate.set_serving(false);
        self.sequencer.end();
        self.core.role_ended();
        self.state.roles_ended += 1;
        self.state.held.fail_all(Failure::Lost);
        for request in std::mem::take(&mut self.state.held_requests) {
            (request.done)(Err(Failure::Lost));
        }
        self.cancel_handover("the active role was lost before the switch was done");
    }

    /// A transfer under way can't be called back.
    pub(super) fn cancel_handover(&mut self, why: &str) {
        let switch = &mut self.state.switch;
        if let Some(switch) = switch.take_if(|switch| switch.handover.step != Step::Transferring) {
            switch.finish(Err(format!("{why}; see `holdfast status`")));
        }
    }
}
