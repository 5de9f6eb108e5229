//! A planned switch, as `replicator::task::switch` has it.

use super::{Replica, Turn};
use holdfast_replicator::roles::Role;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// vip-agent stops the units in order and takes the address away.
    Releasing,
    /// No new requests; those under way get committed.
    Flushing,
    Transferring,
}

pub(super) struct HandOver {
    term: u64,
    to: u64,
    step: Step,
    since_ms: u64,
    vip_released: bool,
    reason: &'static str,
}

const RELEASE_MAX_MS: u64 = 120_000;
const FLUSH_MAX_MS: u64 = 10_000;
const TRANSFER_MAX_MS: u64 = 10_000;
const LEAVE_AGAIN_MS: u64 = 30_000;

impl HandOver {
    pub(super) fn is_releasing(&self) -> bool {
        self.step == Step::Releasing
    }
}

impl Replica {
    pub(super) fn begin_handover(&mut self, to: Option<u64>, reason: &'static str, now_ms: u64) {
        let Role::Active { term } = self.role else { return };
        let able = |id: &u64| {
            let peer = self.core.peer(*id).filter(|peer| peer.heard_ms + 1500 > now_ms);
            peer.and_then(|peer| peer.state)
                .is_some_and(|state| state.eligible && !state.forgetful)
        };
        let to = match to {
            Some(to) => Some(to).filter(able),
            None => self.best_standby(now_ms),
        };
        let Some(to) = to else { return };
        self.role = Role::HandOver { term };
        self.handover = Some(HandOver {
            term,
            to,
            step: Step::Releasing,
            since_ms: now_ms,
            vip_released: false,
            reason,
        });
    }

    /// A transfer under way can't be called back.
    pub(super) fn cancel_handover(&mut self) {
        self.handover.take_if(|handover| handover.step != Step::Transferring);
    }

    pub(super) fn step_handover(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now_ms;
        let Some(handover) = &mut self.handover else { return };
        match handover.step {
            Step::Releasing => {
                let released = self.agent.connected && self.agent.released_term >= handover.term;
                handover.vip_released = released && now >= self.vip_not_before_ms;
                if released || !self.agent.connected {
                    handover.step = Step::Flushing;
                    handover.since_ms = now;
                    self.gate.set_serving(false);
                } else if now >= handover.since_ms + RELEASE_MAX_MS {
                    self.stay(now);
                }
            }
            Step::Flushing => {
                self.sequencer.urgency.now();
                self.sequencer.progress(self.core.received(), self.core.committed());
                if self.core.committed() == self.core.last() {
                    handover.step = Step::Transferring;
                    handover.since_ms = now;
                    let (to, term, released, reason) =
                        (handover.to, handover.term, handover.vip_released, handover.reason);
                    let message = self.handover_message(term, released, reason);
                    let send = self.core.transfer(to, &message);
                    self.send_all(send, turn);
                    self.role = Role::Lost { term: self.role.term() };
                    self.end_role();
                } else if now >= handover.since_ms + FLUSH_MAX_MS {
                    self.stay(now);
                }
            }
            Step::Transferring => {
                let done = self.core.leader() == Some(handover.to);
                let failed = now >= handover.since_ms + TRANSFER_MAX_MS
                    || (self.core.is_leader() && !self.core.is_transferring());
                if done || failed {
                    self.handover = None;
                }
            }
        }
    }

    /// It can't be handed over; this node stays active.
    fn stay(&mut self, now_ms: u64) {
        if let Some(handover) = self.handover.take() {
            self.leave_again_ms = now_ms + LEAVE_AGAIN_MS;
            self.role = Role::Active { term: handover.term };
        }
    }
}
