//! What this node is fit for, as `crate::fitness` judges it. If its disk has failed, it takes no part in anything any more and
//! stays reachable for status.

use super::{State, Task};
use crate::clock::boottime_ms;
use crate::fitness::{Leave, Others, Sight};
use crate::roles::Role;
use holdfast_proto::stream;
use tokio::sync::oneshot;

impl State {
    fn came(&self) -> Option<(&str, u64)> {
        let failover = self.failover.as_ref()?;
        Some((failover.given_away.as_deref()?, failover.lease_ms))
    }
}

impl Task {
    fn sight(&self, now_ms: u64) -> Sight<'_> {
        let state = &self.state;
        Sight {
            now_ms,
            role: self.role(),
            agent: self.settings.needs_agent.then_some(&state.agent),
            halted: state.halted.as_deref(),
            disk: state.disk.as_ref().map(|trouble| &trouble.fault),
            has_room: self.has_room(),
            differs: state.odd_one_out == Some(self.settings.id),
            unapplied: self.core.unapplied(),
            came: state.came(),
        }
    }

    /// As far as this is known.
    pub(super) fn has_room(&self) -> bool {
        self.state.space.total == 0 || self.core.store_free > 0
    }

    pub(super) fn is_eligible(&self, now: u64) -> bool {
        self.sight(now).is_eligible()
    }

    pub(super) fn may_serve(&self, now: u64) -> bool {
        let somebody_else_could = || self.best_standby(now).is_some();
        self.state.fitness.may_serve(&self.sight(now), somebody_else_could)
    }

    pub(super) fn best_standby(&self, now: u64) -> Option<u64> {
        self.core.best_standby(now, self.state.odd_one_out)
    }

    pub(super) fn look_at_disk(&mut self, now: u64) {
        self.channels
            .health
            .tick(self.state.ticks * self.settings.tick.as_millis() as u64);
        let found = self.channels.health.trouble(self.settings.disk_stall_ms);
        let known = self.state.disk.as_ref().map(|trouble| &trouble.fault);
        if let Some(trouble) = &found
            && known.map(std::mem::discriminant) != Some(std::mem::discriminant(&trouble.fault))
        {
            tracing::warn!("{}", trouble.fault);
        }
        self.state.disk = self.state.fitness.disk(found, now);
    }

    pub(super) fn leave_if_unfit(&mut self, now: u64) {
        let others = Others {
            best_standby: self.best_standby(now),
            are_all_eligible: self.core.are_all_eligible(now),
            are_led: self.core.is_leader() && !self.core.is_transferring(),
        };
        let mut fitness = self.state.fitness;
        let leave = fitness.leaves(&self.sight(now), &others, self.state.switch.is_some());
        self.state.fitness = fitness;
        match leave {
            None => {}
            Some(Leave::HandOver { why }) => {
                tracing::warn!(why, "this node isn't fit to be active");
                let (outcome, _nobody_asked) = oneshot::channel();
                self.begin_handover(None, why, outcome);
            }
            Some(Leave::Transfer { to, why }) => {
                self.transfer(to, why);
                if let Role::Promoting { term } = self.role() {
                    self.state.role = Some(Role::Lost { term });
                    self.end_role();
                }
            }
        }
    }

    fn transfer(&mut self, to: u64, reason: String) {
        let handover = stream::Handover {
            term: self.core.term(),
            vip_released: false,
            reason,
        };
        let send = self.core.transfer(to, &handover);
        self.send_all(send);
    }

    /// The disk has refused what it mustn't. From here on this node says nothing to its peers: to them it is dead, and what
    /// it promised before is all that it ever promises.
    pub(super) fn fail(&mut self, why: String) {
        if self.state.out {
            return;
        }
        tracing::error!(why, "this node takes no part any more; the other nodes go on");
        if self.core.is_leader()
            && let Some(to) = self.best_standby(boottime_ms())
        {
            // Spares the others the time that it takes to miss this node.
            self.transfer(to, why.clone());
            let last_words = self.core.output().send;
            self.send_all(last_words);
        }
        self.state.out = true;
        if let Some(switch) = self.state.switch.take() {
            switch.finish(Err(why.clone()));
        }
        self.state.halted = Some(why);
        self.gate.set_lease(0);
        let term = self.role().term();
        self.state.role = Some(if term > 0 { Role::Lost { term } } else { Role::None });
        self.end_role();
    }

    /// What is left of a round for a node whose disk has failed.
    pub(super) fn tick_out(&mut self) {
        self.channels
            .alive
            .store(self.state.ticks, std::sync::atomic::Ordering::Relaxed);
        self.publish(boottime_ms());
    }
}
