//! A planned switch, step by step: the agent stops the PBX and releases the address, what is sequenced gets
//! committed, the lease ends, the leadership goes over. Pure.

use crate::handle::AgentFacts;
use holdfast_proto::stream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// vip-agent stops the units in order and takes the address away.
    Releasing,
    /// No new requests; those under way get committed.
    Flushing,
    Transferring,
}

/// What there is to be seen, as far as a switch depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub now_ms: u64,
    pub agent: &'a AgentFacts,
    /// Until then the node before this one may still have the address.
    pub vip_not_before_ms: u64,
    /// How long the PBX's units may take to stop, one after the other.
    pub units_stop_ms: u64,
    /// All that is sequenced is committed.
    pub is_flushed: bool,
    pub leader: Option<u64>,
    /// This node leads, and isn't giving that away any more.
    pub still_leads: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Wait,
    /// No new requests from here on.
    Flush,
    /// The role ends here, and the leadership goes with this message.
    Transfer(stream::Handover),
    /// The role stays here, for this reason.
    Stay(&'static str),
    Ended {
        taken: bool,
    },
}

#[derive(Clone, Debug)]
pub struct HandOver {
    /// Of the role that is given away.
    term: u64,
    pub to: u64,
    pub step: Step,
    since_ms: u64,
    vip_released: bool,
    reason: String,
}

/// Stopping the PBX may take as long as its units' own timeouts allow, and so much longer; this is the end of all patience.
const RELEASE_SLACK_MS: u64 = 30_000;

/// What is under way must get onto two disks; if it can't, the PBX is better off where it was.
const FLUSH_MAX_MS: u64 = 10_000;

const TRANSFER_MAX_MS: u64 = 10_000;

impl HandOver {
    /// `reason`: for those who ask later why the role moved.
    pub fn new(term: u64, to: u64, reason: String, now_ms: u64) -> Self {
        Self {
            term,
            to,
            step: Step::Releasing,
            since_ms: now_ms,
            vip_released: false,
            reason,
        }
    }

    pub fn step(&mut self, facts: &Facts<'_>) -> Next {
        match self.step {
            Step::Releasing => self.release(facts),
            Step::Flushing if facts.is_flushed => {
                self.enter(Step::Transferring, facts);
                Next::Transfer(stream::Handover {
                    term: self.term,
                    vip_released: self.vip_released,
                    reason: self.reason.clone(),
                })
            }
            Step::Flushing if facts.now_ms >= self.since_ms + FLUSH_MAX_MS => {
                Next::Stay("what was written last didn't get onto two disks in time")
            }
            Step::Flushing => Next::Wait,
            Step::Transferring => {
                let taken = facts.leader == Some(self.to);
                let failed = facts.now_ms >= self.since_ms + TRANSFER_MAX_MS || facts.still_leads;
                if taken || failed {
                    Next::Ended { taken }
                } else {
                    Next::Wait
                }
            }
        }
    }

    fn release(&mut self, facts: &Facts<'_>) -> Next {
        let agent = facts.agent;
        let released = agent.connected && agent.released_term >= self.term;
        if released || !agent.connected {
            // It has let go of what it hasn't got yet, while the one before it may still have it.
            self.vip_released = released && facts.now_ms >= facts.vip_not_before_ms;
            self.enter(Step::Flushing, facts);
            Next::Flush
        } else if facts.now_ms >= self.since_ms + facts.units_stop_ms + RELEASE_SLACK_MS {
            Next::Stay("the PBX's units didn't stop in time")
        } else {
            Next::Wait
        }
    }

    fn enter(&mut self, step: Step, facts: &Facts<'_>) {
        (self.step, self.since_ms) = (step, facts.now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(agent: &AgentFacts, now_ms: u64) -> Facts<'_> {
        Facts {
            now_ms,
            agent,
            vip_not_before_ms: 0,
            units_stop_ms: 60_000,
            is_flushed: true,
            leader: Some(1),
            still_leads: false,
        }
    }

    fn agent(connected: bool, released_term: u64) -> AgentFacts {
        AgentFacts {
            connected,
            released_term,
            ..AgentFacts::default()
        }
    }

    fn begun() -> HandOver {
        HandOver::new(5, 2, "planned".into(), 1000)
    }

    fn transferred(handover: &mut HandOver, agent: &AgentFacts, vip_not_before_ms: u64) -> stream::Handover {
        let facts = Facts {
            vip_not_before_ms,
            ..facts(agent, 2000)
        };
        assert_eq!(handover.step(&facts), Next::Flush);
        match handover.step(&facts) {
            Next::Transfer(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_address_counts_as_released_only_by_the_agents_word_for_this_role_and_after_the_wait() {
        assert_eq!(begun().step(&facts(&agent(true, 4), 2000)), Next::Wait);
        assert!(transferred(&mut begun(), &agent(true, 5), 2000).vip_released);
        assert!(!transferred(&mut begun(), &agent(true, 5), 2001).vip_released);
        assert!(!transferred(&mut begun(), &agent(false, 5), 0).vip_released);
    }

    #[test]
    fn a_pbx_that_doesnt_stop_and_writes_that_arent_durable_leave_the_role_here() {
        let waits = agent(true, 4);
        let mut handover = begun();
        assert_eq!(handover.step(&facts(&waits, 90_999)), Next::Wait);
        assert!(matches!(handover.step(&facts(&waits, 91_000)), Next::Stay(_)));

        let gone = agent(true, 5);
        let mut handover = begun();
        let unflushed = |now_ms| Facts {
            is_flushed: false,
            ..facts(&gone, now_ms)
        };
        assert_eq!(handover.step(&unflushed(2000)), Next::Flush);
        assert_eq!(handover.step(&unflushed(11_999)), Next::Wait);
        assert!(matches!(handover.step(&unflushed(12_000)), Next::Stay(_)));
    }

    #[test]
    fn a_transfer_ends_when_the_other_leads_or_this_node_still_does_or_the_time_is_over() {
        let gone = agent(true, 5);
        let ends = |facts: Facts<'_>| {
            let mut handover = begun();
            transferred(&mut handover, &gone, 0);
            handover.step(&facts)
        };
        let at = facts(&gone, 3000);
        assert_eq!(ends(at), Next::Wait);
        assert_eq!(ends(Facts { leader: Some(2), ..at }), Next::Ended { taken: true });
        assert_eq!(
            ends(Facts {
                still_leads: true,
                ..at
            }),
            Next::Ended { taken: false }
        );
        assert_eq!(ends(facts(&gone, 12_000)), Next::Ended { taken: false });
    }
}
