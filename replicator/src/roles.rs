//! The active role's life on this node: promoting, active, suspended, lost, handed over. Pure.
//!
//! A role belongs to a term. It survives a change of the term only if this node won that term itself and
//! nobody else's entry stands between: then no other node can have served meanwhile.

/// What the core knows, as far as the role depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub now_ms: u64,
    pub term: u64,
    pub leader: bool,
    /// An entry of this leader's own term is committed and applied.
    pub own_term_applied: bool,
    /// Another node leads, or this node has voted for another one in a later term than the role's.
    pub other_elected: bool,
    /// Term of the entry before this leader's first one.
    pub before_own_term: u64,
    pub lease_until_ms: u64,
    pub eligible: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing is held here.
    None,
    /// Elected; the file system is being mounted.
    Promoting {
        term: u64,
    },
    Active {
        term: u64,
    },
    /// The lease is gone and no higher term was seen: requests wait, the PBX goes on, until then.
    Suspended {
        term: u64,
        grace_until_ms: u64,
    },
    /// Over: the mount is being aborted and the PBX killed. `term` is the role's.
    Lost {
        term: u64,
    },
    /// Being given away as planned.
    HandOver {
        term: u64,
    },
}

impl Role {
    pub fn term(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Promoting { term }
            | Self::Active { term }
            | Self::Suspended { term, .. }
            | Self::Lost { term }
            | Self::HandOver { term } => term,
        }
    }

    /// Changes are planned and sequenced in this state.
    pub fn accepts(self) -> bool {
        matches!(self, Self::Active { .. } | Self::HandOver { .. })
    }

    /// The role as it is after these facts.
    pub fn step(self, facts: &Facts, grace_ms: u64) -> Self {
        let leased = facts.leader && facts.now_ms < facts.lease_until_ms;
        match self {
            Self::None if leased && facts.own_term_applied && facts.eligible && !facts.other_elected => {
                Self::Promoting { term: facts.term }
            }
            Self::None => self,
            Self::Lost { .. } => self,
            _ if self.is_lost(facts) => Self::Lost { term: self.term() },
            // The file system isn't up yet, so nothing has to be spared.
            Self::Promoting { term } if !leased => Self::Lost { term },
            Self::Promoting { .. } => self,
            Self::Active { term } if leased && facts.term == term => self,
            Self::Active { term } | Self::HandOver { term } if !leased => Self::Suspended {
                term,
                grace_until_ms: facts.now_ms + grace_ms,
            },
            Self::HandOver { .. } => self,
            Self::Suspended { .. } | Self::Active { .. } if leased && facts.own_term_applied => {
                Self::Active { term: facts.term }
            }
            Self::Suspended { term, grace_until_ms } if facts.now_ms >= grace_until_ms => Self::Lost { term },
            Self::Suspended { .. } | Self::Active { .. } => self,
        }
    }

    fn is_lost(self, facts: &Facts) -> bool {
        facts.other_elected || (facts.leader && facts.term != self.term() && facts.before_own_term != self.term())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leading(term: u64) -> Facts {
        Facts {
            now_ms: 1000,
            term,
            leader: true,
            own_term_applied: true,
            before_own_term: 1,
            lease_until_ms: 2000,
            eligible: true,
            ..Facts::default()
        }
    }

    #[test]
    fn a_lease_that_comes_back_in_time_resumes_the_role() {
        let role = Role::Active { term: 3 };
        let role = role.step(
            &Facts {
                lease_until_ms: 900,
                ..leading(3)
            },
            3000,
        );
        assert_eq!(
            role,
            Role::Suspended {
                term: 3,
                grace_until_ms: 4000
            }
        );
        assert_eq!(role.step(&leading(3), 3000), Role::Active { term: 3 });
    }

    #[test]
    fn winning_again_resumes_only_if_nobody_wrote_between() {
        let role = Role::Suspended {
            term: 3,
            grace_until_ms: 4000,
        };
        assert_eq!(
            role.step(
                &Facts {
                    before_own_term: 3,
                    ..leading(5)
                },
                3000
            ),
            Role::Active { term: 5 }
        );
        assert_eq!(
            role.step(
                &Facts {
                    before_own_term: 4,
                    ..leading(5)
                },
                3000
            ),
            Role::Lost { term: 3 }
        );
    }

    #[test]
    fn the_grace_ends_in_a_loss() {
        let role = Role::Suspended {
            term: 3,
            grace_until_ms: 4000,
        };
        let cut = Facts {
            now_ms: 4000,
            leader: false,
            lease_until_ms: 0,
            ..leading(3)
        };
        assert_eq!(role.step(&cut, 3000), Role::Lost { term: 3 });
    }

    proptest! {
        /// Whatever happens, a role is never active without a running lease of its term's leader, and never
        /// leaves `Lost` by itself.
        #[test]
        fn active_needs_a_lease(steps in prop::collection::vec((1u64..9, any::<bool>(), any::<bool>(), any::<bool>(), 0u64..9, 0u64..4000, any::<bool>()), 1..60)) {
            let mut role = Role::None;
            for (number, (term, leader, own_term_applied, other_elected, before_own_term, lease_until_ms, eligible)) in steps.into_iter().enumerate() {
                let facts = Facts { now_ms: number as u64 * 100, term, leader, own_term_applied, other_elected, before_own_term, lease_until_ms, eligible };
                let was = role;
                role = role.step(&facts, 1000);
                if let Role::Promoting { term } = role && was == Role::None {
                    role = Role::Active { term };
                }
                if let Role::Active { .. } = role {
                    prop_assert!(leader && facts.now_ms < lease_until_ms && !other_elected);
                }
                if let Role::Lost { .. } = was {
                    prop_assert_eq!(role, was);
                    role = Role::None;
                }
            }
        }
    }
}
