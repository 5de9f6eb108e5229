//! What others ask of the core.

use super::{Core, Peer};
use crate::memory_log::OldEntries;
use crate::roles;
use holdfast_proto::stream::{Handover, NodeState};
use holdfast_storage::types::LogIndex;
use raft::{INVALID_ID, StateRole};

/// What is on its way to a node that keeps up under load, and more.
const BEHIND_MAX: u64 = 16 << 20;

impl<O: OldEntries> Core<O> {
    pub fn role(&self) -> StateRole {
        self.node.raft.state
    }
    pub fn is_leader(&self) -> bool {
        self.role() == StateRole::Leader
    }
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }
    pub fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|id| *id != INVALID_ID)
    }
    /// Last index in the log, in memory.
    pub fn last(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }
    pub fn durable(&self) -> u64 {
        self.node.raft.raft_log.persisted
    }
    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }
    pub fn first(&self) -> u64 {
        self.node.raft.raft_log.first_index()
    }
    pub fn lease_until_ms(&self) -> u64 {
        if self.is_leader() { self.lease.until_ms() } else { 0 }
    }
    pub fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }
    /// An election timeout has passed since the start: whom this node followed before has no lease any more.
    pub fn has_settled(&self) -> bool {
        self.ticks > u64::from(self.config.election_ticks)
    }
    pub fn is_forgetful(&self) -> bool {
        self.forgetful.is_some()
    }
    /// What a clean-stop mark may say: the end of the log. None for a node that may still lack what it confirmed in a life before:
    /// an end in order doesn't bring that back.
    pub fn clean_end(&self) -> Option<LogIndex> {
        (!self.is_forgetful()).then(|| LogIndex(self.last()))
    }
    pub fn durable_alone_ms(&self) -> Option<u64> {
        self.durable_alone_ms
    }
    /// Bytes of entries in memory.
    pub fn held_bytes(&self) -> usize {
        self.node.store().held_bytes()
    }
    /// What is left of a store's free bytes after the entries behind the one that it had applied then.
    pub fn room(&self, free: u64, applied: u64) -> u64 {
        free.saturating_sub(self.node.store().bytes_after(applied))
    }
    /// Bytes of the log that this peer hasn't got yet, as far as this leader has heard.
    pub fn behind(&self, id: u64) -> u64 {
        let term = self.term();
        let matched = self.node.raft.prs().get(id).map_or(0, |progress| progress.matched);
        let told = self.peers.get(&id).map_or(0, |peer| {
            let received = if peer.received.0 == term { peer.received.1 } else { 0 };
            received.max(peer.state.map_or(0, |state| state.last_index))
        });
        self.node.store().bytes_after(matched.max(told))
    }
    /// Bytes of entries that this node has yet to apply; of those from before its start they are guessed.
    pub fn unapplied(&self) -> u64 {
        self.node.store().bytes_after(self.applied)
    }
    /// It has nearly all, so that a transfer to it takes a moment.
    pub fn is_up_to_date(&self, id: u64) -> bool {
        self.behind(id) <= BEHIND_MAX
    }
    pub fn peer(&self, id: u64) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// Index up to which one more node holds this leader's entries, at least in memory.
    pub fn received(&self) -> u64 {
        let term = self.term();
        let of = |peer: &Peer| if peer.received.0 == term { peer.received.1 } else { 0 };
        self.peers.values().map(of).max().unwrap_or(0).max(self.committed())
    }

    /// This node leads, and an entry of its own term is committed and applied, and so is all that an earlier role in this
    /// term sequenced: all that was ever acknowledged is visible here.
    pub fn has_applied_own_term(&self) -> bool {
        let own_first = self.own_first.filter(|_| self.is_leader());
        own_first.is_some_and(|first| self.applied >= first.max(self.left_at))
    }

    /// The peer that gave the leadership of this term away, and what it said of that.
    pub fn given_by(&self) -> Option<(u64, &Handover)> {
        self.peers.iter().find_map(|(id, peer)| {
            let handover = peer.handover.as_ref()?;
            (handover.term.checked_add(1) == Some(self.term())).then_some((*id, handover))
        })
    }

    /// How long after its election this leader waits before it adds the address. `after_lease_ms`: so long the address may outlast the
    /// lease of whoever had it. An ordinary election comes after that lease has run out; who gives the leadership away ends it before,
    /// but its vip-agent, if it didn't confirm, may not have heard of that.
    pub fn address_wait_ms(&self, after_lease_ms: u64) -> u64 {
        let theirs = || self.peers.values().map(|peer| peer.timing);
        let after_ms = theirs().map(|timing| timing.after_lease_ms).max().unwrap_or(0);
        let lease_ms = theirs().map(|timing| timing.lease_ms).max().unwrap_or(0);
        let (after_ms, lease_ms) = (after_ms.max(after_lease_ms), lease_ms.max(self.config.lease_ms));
        let given = self.given_by().map(|(_, handover)| handover);
        match given {
            Some(handover) if handover.vip_released => 0,
            None if self.asked_to_lead != self.term() => after_ms,
            _ => lease_ms.saturating_add(after_ms),
        }
    }

    /// Term of the entry before the first one of the term that this node leads.
    pub fn before_own_term(&self) -> u64 {
        let before = self.own_first.map_or(0, |first| first - 1);
        self.node.raft.raft_log.term(before).unwrap_or(0)
    }

    /// This node gave its vote in the current term to another one.
    pub fn voted_for_other(&self) -> bool {
        self.node.raft.vote != INVALID_ID && self.node.raft.vote != self.config.id
    }

    /// What `role`, which this node has, depends on.
    pub fn facts_for(&self, role: roles::Role, now_ms: u64, eligible: bool) -> roles::Facts {
        let role_term = role.term();
        let other_leads = !self.is_leader() && self.leader().is_some_and(|id| id != self.config.id);
        let has_voted = self.term() > role_term && self.voted_for_other();
        roles::Facts {
            now_ms,
            term: self.term(),
            leader: self.is_leader(),
            own_term_applied: self.has_applied_own_term(),
            other_elected: role_term > 0 && (other_leads || has_voted),
            before_own_term: self.before_own_term(),
            lease_until_ms: self.lease_until_ms(),
            eligible,
        }
    }

    /// Peers whose next entry is no longer in this leader's log, or can't be read there: they can't catch up by it. Theirs ends
    /// before it begins, or with a tail that nobody took over, and all that this log holds is of later terms.
    pub fn left_behind(&self) -> Vec<u64> {
        let first = self.first();
        let before = self.node.raft.raft_log.term(first.saturating_sub(1)).unwrap_or(0);
        let behind = |id: u64, peer: &Peer| {
            let progress = self.node.raft.prs().get(id);
            let (matched, next) = progress.map_or((0, 0), |progress| (progress.matched, progress.next_idx));
            let is_other = |term| before > 0 && term != before;
            let ends_before =
                |last, term| last < first.saturating_sub(1) || term < before || (last < first && is_other(term));
            let apart = |state: &NodeState| {
                let is_gone = matched.saturating_add(1) < first && ends_before(state.last_index, state.last_term);
                is_gone || next <= self.unreadable_at
            };
            self.is_leader() && peer.state.as_ref().is_some_and(apart)
        };
        self.peers
            .iter()
            .filter(|(id, peer)| behind(**id, peer))
            .map(|(id, _)| *id)
            .collect()
    }
}
