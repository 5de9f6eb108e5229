//! The right to answer: how long this node may be sure that no other one has been elected.
//!
//! A follower that took a heartbeat grants no vote and doesn't campaign for an election timeout from then
//! on. So from the *sending* of a heartbeat that a majority answered, one tick less than that timeout, less
//! the drift of clocks, is ours. raft-rs's own `in_lease` checks no clock and isn't used.

use std::collections::BTreeMap;

/// What a node's configuration says of leases, in ms of its own clock; 0: not known. All three should say the same, but while an
/// operator changes them they don't: then the shortest lease counts, and the longest wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// What a leader may count on with this node's answer, and what this one counts on as a leader.
    pub lease_ms: u64,
    /// How long the address may outlast a lease of this node.
    pub after_lease_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Lease {
    length_ms: u64,
    /// Term in which it is held; answers to other terms' heartbeats don't count.
    term: u64,
    /// Per peer: how long the latest heartbeat that it answered holds.
    answered: BTreeMap<u64, u64>,
    until_ms: u64,
    /// Given up before a transfer: nothing renews it in this term any more.
    ended: bool,
}

impl Lease {
    pub(crate) fn new(length_ms: u64) -> Self {
        Self {
            length_ms,
            term: 0,
            answered: BTreeMap::new(),
            until_ms: 0,
            ended: false,
        }
    }

    /// A heartbeat of `term`, sent by this node at `sent_at_ms`, was answered. With three nodes one answer and
    /// this node are a majority. An answer to what isn't sent yet is none: it would make the lease outlast its promise.
    /// `promise_ms`: what the peer's own timers allow to count on; 0: it hasn't said.
    pub(crate) fn answered(&mut self, term: u64, peer: u64, sent_at_ms: u64, promise_ms: u64, now_ms: u64) {
        if term != self.term || self.ended || sent_at_ms == 0 || sent_at_ms > now_ms {
            return;
        }
        let promised = if promise_ms == 0 { self.length_ms } else { promise_ms };
        let latest = self.answered.entry(peer).or_default();
        *latest = (*latest).max(sent_at_ms + promised.min(self.length_ms));
        self.until_ms = self.answered.values().copied().max().unwrap_or(0);
    }

    /// This node leads a new term; nothing that was answered before counts in it.
    pub(crate) fn begin(&mut self, term: u64) {
        *self = Self {
            term,
            ..Self::new(self.length_ms)
        };
    }

    /// This node gives the role away or was deposed. No earlier answer can bring it back.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.until_ms = 0;
    }

    /// CLOCK_BOOTTIME at which it runs out; 0 if none is held.
    pub(crate) fn until_ms(&self) -> u64 {
        self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_the_sending_of_the_newest_heartbeat_that_was_answered() {
        let mut lease = Lease::new(900);
        lease.begin(3);
        lease.answered(3, 2, 1000, 0, 1500);
        lease.answered(3, 1, 800, 0, 1500);
        assert_eq!(lease.until_ms(), 1900);
    }

    /// Its timers are being changed, one node after the other.
    #[test]
    fn a_shorter_promise_makes_it_shorter() {
        let mut lease = Lease::new(900);
        lease.begin(3);
        lease.answered(3, 2, 1000, 400, 1500);
        assert_eq!(lease.until_ms(), 1400);
        lease.answered(3, 1, 900, 2000, 1500);
        assert_eq!(lease.until_ms(), 1800);
    }

    #[test]
    fn an_answer_to_what_is_not_sent_yet_gives_nothing() {
        let mut lease = Lease::new(900);
        lease.begin(3);
        lease.answered(3, 2, 1501, 0, 1500);
        lease.answered(3, 1, u64::MAX, 0, 1500);
        assert_eq!(lease.until_ms(), 0);
    }

    #[test]
    fn answers_of_another_term_and_after_the_end_give_nothing() {
        let mut lease = Lease::new(900);
        lease.begin(3);
        lease.answered(2, 2, 1000, 0, 1500);
        assert_eq!(lease.until_ms(), 0);
        lease.answered(3, 2, 1000, 0, 1500);
        lease.end();
        lease.answered(3, 2, 1100, 0, 1500);
        assert_eq!(lease.until_ms(), 0);
    }
}
