//! A planned switch, step by step: see `crate::handover`.

use super::Task;
use super::fitness::LEAVE_AGAIN_MS;
use crate::clock::boottime_ms;
use crate::handover::{FLUSH_MAX_MS, HandOver, RELEASE_SLACK_MS, Step};
use crate::roles::Role;
use holdfast_proto::stream;
use tokio::sync::oneshot;

impl Task {
    /// `reason`: for those who ask later why the role moved.
    pub(super) fn begin_handover(
        &mut self,
        to: Option<String>,
        reason: String,
        outcome: oneshot::Sender<Result<String, String>>,
    ) {
        match self.check_handover(to) {
            Err(why) => {
                let _ = outcome.send(Err(why));
            }
            Ok((term, to)) => {
                tracing::info!(to = self.name(to), "handing the active role over");
                self.state.role = Some(Role::HandOver { term });
                self.state.handover = Some(HandOver {
                    term,
                    to,
                    step: Step::Releasing,
                    since_ms: boottime_ms(),
                    vip_released: false,
                    reason,
                    outcome: Some(outcome),
                });
            }
        }
    }

    fn check_handover(&self, to: Option<String>) -> Result<(u64, u64), String> {
        let Role::Active { term } = self.role() else {
            return Err("this node is not active, so it has nothing to hand over".into());
        };
        let Some(name) = to else {
            let best = self
                .best_standby()
                .ok_or("no standby is reachable, up to date and able to take over: see `holdfast status`")?;
            return Ok((term, best));
        };
        let id = self
            .settings
            .names
            .iter()
            .find(|(_, known)| **known == name)
            .map(|(id, _)| *id);
        let id = id.ok_or_else(|| format!("there is no node {name} in this cluster"))?;
        if id == self.settings.id {
            return Err(format!("{name} is the active node already"));
        }
        let peer = self.core.peer(id).filter(|peer| peer.heard_ms + 1500 > boottime_ms());
        match peer.and_then(|peer| peer.state) {
            None => Err(format!("{name} isn't reached: nothing was changed")),
            Some(_) if self.state.odd_one_out == Some(id) => Err(format!(
                "{name} doesn't hold the same as the two others: `holdfast check --repair` first. Nothing was changed"
            )),
            Some(state) if !state.eligible => Err(format!(
                "{name} says that it could not take over; `holdfast status` there says why"
            )),
            Some(state) if state.forgetful => Err(format!("{name} is still catching up after a crash")),
            Some(_) if !self.core.is_up_to_date(id) => Err(format!(
                "{name} is still catching up: {:.0} MiB of the log are on their way to it. Nothing was changed; `holdfast status` shows when it \
                 has all",
                self.core.behind(id) as f64 / 1_048_576.0
            )),
            Some(_) => Ok((term, id)),
        }
    }

    pub(super) fn step_handover(&mut self, now: u64) {
        let Some(handover) = &mut self.state.handover else {
            return;
        };
        match handover.step {
            Step::Releasing => {
                let agent = &self.state.agent;
                let released = agent.connected && agent.released_term >= handover.term;
                // It has let go of what it hasn't got yet, while the one before it may still have it.
                handover.vip_released = released && now >= self.state.vip_not_before_ms;
                if released || !agent.connected {
                    handover.step = Step::Flushing;
                    handover.since_ms = now;
                    self.gate.set_serving(false);
                } else if now >= handover.since_ms + self.settings.units_stop_ms + RELEASE_SLACK_MS
                    && let Some(handover) = self.state.handover.take()
                {
                    self.state.leave_again_ms = now + LEAVE_AGAIN_MS;
                    self.state.role = Some(Role::Active { term: handover.term });
                    handover.finish(Err("the PBX's units didn't stop in time; this node stays active".into()));
                }
            }
            Step::Flushing => {
                self.sequencer.urgency.now();
                // Their answers may still be given: the lease runs. Then nothing is left that a transfer could lose.
                self.sequencer.progress(self.core.received(), self.core.committed());
                if self.core.committed() == self.core.last() {
                    let message = stream::Handover {
                        term: handover.term,
                        vip_released: handover.vip_released,
                        reason: handover.reason.clone(),
                    };
                    handover.step = Step::Transferring;
                    handover.since_ms = now;
                    let to = handover.to;
                    let send = self.core.transfer(to, &message);
                    self.send_all(send);
                    self.state.role = Some(Role::Lost {
                        term: self.role().term(),
                    });
                    self.end_role();
                } else if now >= handover.since_ms + FLUSH_MAX_MS
                    && let Some(handover) = self.state.handover.take()
                {
                    self.state.leave_again_ms = now + LEAVE_AGAIN_MS;
                    self.state.role = Some(Role::Active { term: handover.term });
                    handover.finish(Err(
                        "what was written last didn't get onto two disks in time; this node stays active".into(),
                    ));
                }
            }
            Step::Transferring => {
                let to = handover.to;
                let done = self.core.leader() == Some(to);
                let failed = !done
                    && (now >= handover.since_ms + 10_000 || (self.core.is_leader() && !self.core.is_transferring()));
                if (done || failed)
                    && let Some(handover) = self.state.handover.take()
                {
                    let name = self.name(to);
                    handover.finish(if done {
                        Ok(name)
                    } else {
                        Err(format!("{name} didn't take the role; the nodes elect one of them now"))
                    });
                }
            }
        }
    }
}
