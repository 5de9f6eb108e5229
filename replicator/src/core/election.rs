//! Who may stand for election and who may be voted for: what raft-rs lacks about forgetful nodes, leases that may
//! still run, and suspended roles.

use super::{Core, HERE_MS, Peer};
use crate::forgetful::{Permission, Position};
use crate::memory_log::OldEntries;
use raft::eraftpb::{Message, MessageType};

impl<O: OldEntries> Core<O> {
    pub(super) fn may_vote_for(&mut self, request: &Message) -> bool {
        // Whoever gives its role away has ended its lease first.
        let forced = request.context.as_ref() == b"CampaignTransfer";
        if self.ticks < self.silent_until_tick && !forced {
            return false;
        }
        let candidate = Position {
            term: request.log_term,
            index: request.index,
        };
        if request.msg_type == MessageType::MsgRequestVote {
            self.note_durable_alone(candidate);
        }
        self.may_elect(candidate)
    }

    /// A vote is about to be given, or asked for: do the durable logs alone decide it?
    pub(super) fn note_durable_alone(&mut self, candidate: Position) {
        if self.permits(candidate) == Permission::DurableAlone {
            self.durable_alone_ms.get_or_insert(self.now_ms);
        }
    }

    pub(super) fn may_campaign(&self) -> bool {
        !self.lets_another_stand() && self.may_elect(self.position())
    }

    /// A node here has suspended its role and lacks nothing that this one has: if it wins again, its PBX goes on as
    /// if nothing had been. It says so only during its grace, so nobody waits long for it.
    fn lets_another_stand(&self) -> bool {
        let own = self.position();
        let first = |peer: &Peer| {
            peer.reached
                && peer.heard_ms + HERE_MS >= self.now_ms
                && peer.state.is_some_and(|state| {
                    state.suspended && state.eligible && (state.last_term, state.last_index) >= (own.term, own.index)
                })
        };
        !self.suspended && self.peers.values().any(first)
    }

    fn may_elect(&self, candidate: Position) -> bool {
        // Two nodes with new disks would begin an empty file system beside the one that has the data.
        if candidate.index == 0 && self.data_elsewhere {
            return false;
        }
        self.permits(candidate) != Permission::No
    }

    fn permits(&self, candidate: Position) -> Permission {
        match &self.forgetful {
            None => Permission::All,
            Some(forgetful) => forgetful.permits(self.now_ms, candidate, self.position(), &self.others_here()),
        }
    }

    pub(super) fn others_here(&self) -> Vec<Position> {
        let here = |peer: &&Peer| peer.heard_ms + HERE_MS >= self.now_ms;
        let position = |peer: &Peer| {
            peer.state.map(|state| Position {
                term: state.last_term,
                index: state.last_index,
            })
        };
        self.peers.values().filter(here).filter_map(position).collect()
    }

    pub(super) fn position(&self) -> Position {
        Position {
            term: self.node.raft.raft_log.last_term(),
            index: self.last(),
        }
    }
}
