//! A planned switch, as `crate::handover` takes it from step to step, and whoever waits for its end.

use super::Task;
use crate::clock::boottime_ms;
use crate::core::Unfit;
use crate::handover::{Facts, HandOver, Next, Step};
use crate::roles::Role;
use tokio::sync::oneshot;

pub(crate) struct Switch {
    pub(crate) handover: HandOver,
    outcome: oneshot::Sender<Result<String, String>>,
}

impl Switch {
    pub(super) fn is_releasing(&self) -> bool {
        self.handover.step == Step::Releasing
    }

    pub(super) fn finish(self, outcome: Result<String, String>) {
        if let Err(why) = &outcome {
            tracing::warn!(why, "the role was not handed over");
        }
        let _nobody_may_wait = self.outcome.send(outcome);
    }
}

impl Task {
    /// `reason`: for those who ask later why the role moved.
    pub(super) fn begin_handover(
        &mut self,
        to: Option<String>,
        reason: String,
        outcome: oneshot::Sender<Result<String, String>>,
    ) {
        let now = boottime_ms();
        match self.check_handover(to, now) {
            Err(why) => {
                let _ = outcome.send(Err(why));
            }
            Ok((term, to)) => {
                tracing::info!(to = self.name(to), "handing the active role over");
                self.state.role = Some(Role::HandOver { term });
                let handover = HandOver::new(term, to, reason, now);
                self.state.switch = Some(Switch { handover, outcome });
            }
        }
    }

    fn check_handover(&self, to: Option<String>, now: u64) -> Result<(u64, u64), String> {
        let Role::Active { term } = self.role() else {
            return Err("this node is not active, so it has nothing to hand over".into());
        };
        let Some(name) = to else {
            let best = self
                .best_standby(now)
                .ok_or("no standby is reachable, up to date and able to take over: see `holdfast status`")?;
            return Ok((term, best));
        };
        let names = &self.settings.names;
        let id = names.iter().find(|(_, known)| **known == name).map(|(id, _)| *id);
        let id = id.ok_or_else(|| format!("there is no node {name} in this cluster"))?;
        if id == self.settings.id {
            return Err(format!("{name} is the active node already"));
        }
        match self.core.takes_over(id, now, self.state.odd_one_out) {
            Ok(()) => Ok((term, id)),
            Err(Unfit::NotReached) => Err(format!("{name} isn't reached: nothing was changed")),
            Err(Unfit::Differs) => Err(format!(
                "{name} doesn't hold the same as the two others: `holdfast check --repair` first. Nothing was changed"
            )),
            Err(Unfit::NotEligible) => Err(format!(
                "{name} says that it could not take over; `holdfast status` there says why"
            )),
            Err(Unfit::Forgetful) => Err(format!("{name} is still catching up after a crash")),
            Err(Unfit::LeftBehind) => Err(format!(
                "{name} needs a copy first, for the log has no longer what it lacks: nothing was changed. `holdfast status` shows when it has all"
            )),
            Err(Unfit::Behind(bytes)) => Err(format!(
                "{name} is still catching up: {:.0} MiB of the log are on their way to it. Nothing was changed; `holdfast status` shows when it \
                 has all",
                bytes as f64 / 1_048_576.0
            )),
        }
    }

    pub(super) fn step_handover(&mut self, now: u64) {
        let Some(mut switch) = self.state.switch.take() else {
            return;
        };
        if switch.handover.step == Step::Flushing {
            self.sequencer.urgency.now();
            // Their answers may still be given: the lease runs. Then nothing is left that a transfer could lose.
            self.sequencer.progress(self.core.received(), self.core.committed());
        }
        let facts = Facts {
            now_ms: now,
            agent: &self.state.agent,
            vip_not_before_ms: self.state.vip_not_before_ms,
            units_stop_ms: self.settings.units_stop_ms,
            is_flushed: self.core.committed() == self.core.last(),
            leader: self.core.leader(),
            still_leads: self.core.is_leader() && !self.core.is_transferring(),
        };
        let (next, to) = (switch.handover.step(&facts), switch.handover.to);
        match next {
            Next::Stay(why) => {
                self.state.fitness.stays(now);
                self.state.role = Some(Role::Active {
                    term: self.role().term(),
                });
                return switch.finish(Err(format!("{why}; this node stays active")));
            }
            Next::Ended { taken } => {
                let name = self.name(to);
                return switch.finish(if taken {
                    Ok(name)
                } else {
                    Err(format!("{name} didn't take the role; the nodes elect one of them now"))
                });
            }
            Next::Wait | Next::Flush | Next::Transfer(_) => self.state.switch = Some(switch),
        }
        match next {
            Next::Flush => self.gate.set_serving(false),
            Next::Transfer(message) => {
                let send = self.core.transfer(to, &message);
                self.send_all(send);
                self.state.role = Some(Role::Lost {
                    term: self.role().term(),
                });
                self.end_role();
            }
            _ => {}
        }
    }
}
