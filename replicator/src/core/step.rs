//! One step of raft-rs: what it isn't told, and what follows from what it made of the rest.

use super::Core;
use crate::memory_log::OldEntries;
use crate::wire::RaftMessage;
use raft::eraftpb::MessageType;
use raft::{INVALID_ID, StateRole};

impl<O: OldEntries> Core<O> {
    pub(super) fn raft_message(&mut self, raft: RaftMessage) {
        let RaftMessage {
            message,
            sent_at_ms,
            last_index,
        } = raft;
        let (from, term, kind) = (message.from, message.term, message.msg_type);
        match kind {
            _ if !self.is_sound(&message) => return,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote if !self.may_vote_for(&message) => return,
            MessageType::MsgTimeoutNow if self.forgetful.is_some() || !self.has_settled() => {
                return;
            }
            // As if it were lost on the way: the leader finds out, and sends it again when the disk takes something.
            MessageType::MsgAppend if !self.take_in(&message.entries) => return,
            _ => {}
        }
        // An unknown peer or a stale message is raft-rs's to ignore.
        let _ = self.node.step(message);
        self.after_step();
        if kind == MessageType::MsgTimeoutNow && self.term() > term {
            self.asked_to_lead = self.term();
        }
        if term != self.term() {
            return;
        }
        match kind {
            MessageType::MsgAppend | MessageType::MsgHeartbeat => {
                self.leader_heard_ms = self.now_ms;
                if let Some(forgetful) = &mut self.forgetful {
                    forgetful.leader_spoke(term, last_index);
                }
                // raft-rs makes the same promise, but forgets it when any message of a higher term arrives.
                self.silent_until_tick = self
                    .silent_until_tick
                    .max(self.ticks + u64::from(self.config.election_ticks));
                if kind == MessageType::MsgHeartbeat
                    && let Some(peer) = self.peers.get_mut(&from)
                {
                    peer.heartbeat = (term, sent_at_ms);
                }
            }
            MessageType::MsgHeartbeatResponse if self.is_leader() => {
                let promise_ms = self.peers.get(&from).map_or(0, |peer| peer.timing.lease_ms);
                self.lease.answered(term, from, sent_at_ms, promise_ms, self.now_ms);
            }
            _ => {}
        }
    }

    /// Keeps what depends on role and term in step with them.
    pub(super) fn after_step(&mut self) {
        let (term, role, leader) = (self.term(), self.role(), self.node.raft.leader_id);
        if self.drawn_for != (term, role, leader) {
            let (was_term, was_role, _) = self.drawn_for;
            self.drawn_for = (term, role, leader);
            self.timeout = self.config.election_ticks as usize
                + (self.draw() as usize) % (spread(self.config.election_ticks as usize) + 1);
            if role == StateRole::Leader && (was_role != StateRole::Leader || was_term != term) {
                self.lease.begin(term);
                self.own_first = Some(self.last());
                self.left_at = 0;
                // The role was won by the rules for forgetful nodes: what this log holds is the truth now.
                self.forgetful = None;
            }
            if role != StateRole::Leader {
                self.own_first = None;
                self.transfer = None;
                if self.lease.until_ms() > self.now_ms {
                    self.keep_silent();
                }
                self.lease.end();
            }
        }
        if self.node.raft.randomized_election_timeout() != self.timeout {
            self.node.raft.set_randomized_election_timeout(self.timeout);
        }
    }

    /// No vote for as long as a lease that ends early would have run: vip-agent may not hear of its end in time, and then goes by what
    /// it was told before.
    pub(super) fn keep_silent(&mut self) {
        self.silent_until_tick = self
            .silent_until_tick
            .max(self.ticks + u64::from(self.config.election_ticks));
    }

    /// A transfer that didn't come about leaves no lease behind, so this node stands for election again like any other.
    pub(super) fn give_up_failed_transfer(&mut self) {
        if self
            .transfer
            .is_some_and(|transfer| self.ticks > transfer.since_tick + u64::from(self.config.election_ticks))
        {
            self.transfer = None;
            let term = self.term();
            self.node.raft.become_follower(term, INVALID_ID);
        }
    }

    /// xorshift64*: reproducible from the seed.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}

/// Ticks that election timeouts differ by at most.
pub(super) fn spread(election_ticks: usize) -> usize {
    (election_ticks / 4).max(2)
}
