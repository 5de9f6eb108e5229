//! What must hold whatever happens; one file a property. Each panics with what it saw.

mod at_most_one_lease;
mod committed_stays;
mod logs_agree;
mod no_early_vote;
mod no_forwarding;
mod one_leader_a_term;
mod received_stays;
mod state_machines_agree;

use crate::node::Node;
use holdfast_replicator::wire::PeerMessage;
use holdfast_storage::apply::Committed;

#[derive(Default)]
pub(crate) struct Invariants {
    pub(crate) committed: committed_stays::CommittedStays,
    pub(crate) received: received_stays::ReceivedStays,
    leaders: one_leader_a_term::OneLeaderATerm,
    machines: state_machines_agree::StateMachinesAgree,
    votes: no_early_vote::NoEarlyVote,
}

impl Invariants {
    pub(crate) fn before_output(&mut self, nodes: &[Node]) {
        self.received.look(nodes);
    }

    /// After each event of node `id`.
    pub(crate) fn check(&mut self, nodes: &mut [Node], id: u64, now_us: u64) {
        at_most_one_lease::check(nodes, now_us);
        self.received.look(nodes);
        let node = &mut nodes[id as usize - 1];
        if self.leaders.check(node) {
            self.committed.elected(node);
            self.received.elected(node, now_us);
        }
        logs_agree::check(&mut self.committed, node);
    }

    /// A node's process or machine has ended.
    pub(crate) fn ended(&mut self, nodes: &[Node]) {
        self.received.ended(nodes);
    }

    pub(crate) fn applies(&mut self, nodes: &mut [Node], id: u64, entries: &[Committed]) {
        self.machines.applies(&mut nodes[id as usize - 1], entries);
    }

    pub(crate) fn leaves(&mut self, node: &Node, message: &PeerMessage, election_ticks: u32) {
        no_forwarding::check(message);
        self.votes.check(node, message, election_ticks);
    }
}
