//! A node that stopped without a clean-stop mark may have lost entries that it had confirmed as received.
//! Until it surely has them again, its vote could elect a leader that lacks what was acknowledged: so it
//! neither votes nor campaigns, until
//! - it has persisted all that a current leader had sequenced when they first spoke, or
//! - all three nodes take part, and the candidate's log is as long as any of theirs, or
//! - the third stays away for longer than the configured time while another one is here: then the durable
//!   logs alone decide, and status says so.

/// Last entry of a log, in the order in which Raft compares logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

#[derive(Debug)]
pub struct Forgetful {
    wait_ms: u64,
    /// Since when exactly one of the other two is here.
    waiting_since_ms: Option<u64>,
    /// Leader's term and its last index when it was first heard in that term.
    cure: Option<(u64, u64)>,
    /// In that term: up to here the leader's entries are durable here.
    held: u64,
}

/// Why a forgetful node may take part after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    No,
    /// All three are here and this log is the longest.
    All,
    /// The third stayed away; what only it or this node's memory held may be missing.
    DurableAlone,
}

impl Forgetful {
    pub fn new(wait_ms: u64) -> Self {
        Self {
            wait_ms,
            waiting_since_ms: None,
            cure: None,
            held: 0,
        }
    }

    /// A leader of `term` spoke; its log ends at `last_index`.
    pub fn leader_spoke(&mut self, term: u64, last_index: u64) {
        if self.cure.is_none_or(|(known, _)| known != term) {
            self.cure = Some((term, last_index));
            self.held = 0;
        }
    }

    /// Up to `index` this log is the one of the leader of `term`, and durable.
    pub fn holds(&mut self, term: u64, index: u64) {
        if self.cure.is_some_and(|(of, _)| of == term) {
            self.held = self.held.max(index);
        }
    }

    /// Whether everything that was missing is here again.
    pub fn is_cured(&self, term: u64) -> bool {
        self.cure.is_some_and(|(of, index)| of == term && self.held >= index)
    }

    /// `others`: positions of the peers that are here.
    pub fn observe(&mut self, now_ms: u64, others: usize) {
        match others {
            1 => {
                self.waiting_since_ms.get_or_insert(now_ms);
            }
            _ => self.waiting_since_ms = None,
        }
    }

    /// May a candidate with this log be elected with this node's help?
    pub fn permits(&self, now_ms: u64, candidate: Position, own: Position, others: &[Position]) -> Permission {
        if others.len() >= 2 && candidate >= own && others.iter().all(|other| candidate >= *other) {
            return Permission::All;
        }
        let waited = self
            .waiting_since_ms
            .is_some_and(|since| now_ms.saturating_sub(since) >= self.wait_ms);
        if others.len() < 2 && waited {
            Permission::DurableAlone
        } else {
            Permission::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Position = Position { term: 2, index: 10 };
    const LONGER: Position = Position { term: 2, index: 12 };

    #[test]
    fn with_all_three_here_only_the_longest_log_may_win() {
        let forgetful = Forgetful::new(10_000);
        assert_eq!(forgetful.permits(0, OWN, OWN, &[LONGER, OWN]), Permission::No);
        assert_eq!(forgetful.permits(0, LONGER, OWN, &[LONGER, OWN]), Permission::All);
    }

    #[test]
    fn the_durable_logs_decide_only_after_the_wait_with_another_node_here() {
        let mut forgetful = Forgetful::new(10_000);
        forgetful.observe(0, 0);
        assert_eq!(forgetful.permits(60_000, OWN, OWN, &[]), Permission::No);
        forgetful.observe(60_000, 1);
        assert_eq!(forgetful.permits(69_999, OWN, OWN, &[OWN]), Permission::No);
        assert_eq!(forgetful.permits(70_000, OWN, OWN, &[OWN]), Permission::DurableAlone);
    }

    #[test]
    fn a_third_node_that_is_here_is_waited_for_anew() {
        let mut forgetful = Forgetful::new(10_000);
        forgetful.observe(0, 1);
        forgetful.observe(9_000, 2);
        forgetful.observe(60_000, 1);
        assert_eq!(forgetful.permits(60_000, OWN, OWN, &[OWN]), Permission::No);
    }

    #[test]
    fn a_leader_of_a_new_term_sets_a_new_mark() {
        let mut forgetful = Forgetful::new(10_000);
        forgetful.leader_spoke(3, 100);
        forgetful.leader_spoke(3, 120);
        forgetful.holds(3, 100);
        assert!(forgetful.is_cured(3));
        forgetful.leader_spoke(4, 130);
        forgetful.holds(3, 140);
        assert!(!forgetful.is_cured(4));
    }
}
