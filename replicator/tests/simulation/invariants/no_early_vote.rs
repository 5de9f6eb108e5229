//! A node grants no vote within its first election timeout, unless its store has never seen a term, or a leader gives
//! its role away.

use crate::node::Node;
use holdfast_replicator::wire::PeerMessage;
use raft::eraftpb::MessageType;
use std::collections::BTreeSet;

#[derive(Default)]
pub(crate) struct NoEarlyVote {
    /// Terms that began with a transfer.
    given: BTreeSet<u64>,
}

impl NoEarlyVote {
    pub(crate) fn check(&mut self, node: &Node, message: &PeerMessage, election_ticks: u32) {
        let PeerMessage::Raft(raft) = message else { return };
        let message = &raft.message;
        match message.msg_type {
            MessageType::MsgTimeoutNow => {
                self.given.insert(message.term + 1);
            }
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse if !message.reject => {
                let Some(running) = &node.running else { return };
                let early = running.ticks <= u64::from(election_ticks);
                let allowed = running.fresh || self.given.contains(&message.term);
                assert!(
                    !early || allowed,
                    "node {} votes {} ticks after its start",
                    node.id,
                    running.ticks
                );
            }
            _ => {}
        }
    }
}
