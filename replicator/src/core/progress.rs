//! From where a leader goes on with a peer, where raft-rs would go on from what no longer holds.

use super::Core;
use crate::memory_log::OldEntries;

impl<O: OldEntries> Core<O> {
    /// A peer was started anew. raft-rs goes on from what it knew of it, but the end of its log may have been torn since,
    /// though it was acknowledged.
    pub(super) fn go_on_from(&mut self, peer: u64, last: u64) {
        if !self.is_leader() {
            return;
        }
        if let Some(progress) = self.node.raft.mut_prs().get_mut(peer)
            && progress.matched > last
        {
            progress.matched = last;
            progress.become_probe();
        }
    }

    /// raft-rs would go on with entries that this leader's log no longer has, or that can't be read, though the peer has them and
    /// more: it is a copy, or its confirmations were lost on the way.
    pub(super) fn go_on_within_log(&mut self, peer: u64, last: u64) {
        if !self.is_leader() {
            return;
        }
        let (mut first, own_last) = (self.first(), self.last());
        let its_term = self.peers.get(&peer).and_then(|peer| Some(peer.state?.last_term));
        if its_term.is_some() && self.node.raft.raft_log.term(last).ok() == its_term {
            first = first.max(self.unreadable_at + 1);
        }
        if let Some(progress) = self.node.raft.mut_prs().get_mut(peer)
            && progress.next_idx < first
            && last.saturating_add(1) >= first
        {
            progress.become_probe();
            progress.next_idx = last.min(own_last) + 1;
        }
    }
}
