//! A planned switch, as `replicator::task::switch` takes `replicator::handover` from step to step.

use super::{Replica, Turn};
use crate::simulation::timers;
use holdfast_replicator::handover::{Facts, HandOver, Next, Step};
use holdfast_replicator::roles::Role;

impl Replica {
    pub(super) fn begin_handover(&mut self, to: Option<u64>, reason: String, now_ms: u64) {
        let Role::Active { term } = self.role else { return };
        let to = match to {
            Some(to) => Some(to).filter(|to| self.core.takes_over(*to, now_ms, None).is_ok()),
            None => self.core.best_standby(now_ms, None),
        };
        let Some(to) = to else { return };
        self.role = Role::HandOver { term };
        self.handover = Some(HandOver::new(term, to, reason, now_ms));
    }

    /// A transfer under way can't be called back.
    pub(super) fn cancel_handover(&mut self) {
        self.handover.take_if(|handover| handover.step != Step::Transferring);
    }

    pub(super) fn step_handover(&mut self, turn: &mut Turn<'_>) {
        let Some(handover) = &mut self.handover else { return };
        if handover.step == Step::Flushing {
            self.sequencer.urgency.now();
            self.sequencer.progress(self.core.received(), self.core.committed());
        }
        let next = handover.step(&Facts {
            now_ms: turn.now_ms,
            agent: &self.agent,
            vip_not_before_ms: self.vip_not_before_ms,
            units_stop_ms: timers::UNITS_STOP_MS,
            is_flushed: self.core.committed() == self.core.last(),
            leader: self.core.leader(),
            still_leads: self.core.is_leader() && !self.core.is_transferring(),
        });
        match next {
            Next::Wait => {}
            Next::Flush => self.gate.set_serving(false),
            Next::Transfer(message) => {
                let send = self.core.transfer(handover.to, &message);
                self.send_all(send, turn);
                self.role = Role::Lost { term: self.role.term() };
                self.end_role();
            }
            Next::Stay(_) => {
                self.handover = None;
                self.fitness.stays(turn.now_ms);
                self.role = Role::Active { term: self.role.term() };
            }
            Next::Ended { .. } => self.handover = None,
        }
    }
}
