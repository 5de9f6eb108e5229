//! The view of the lease: what the daemon said last, and what that is worth at a given time.
//!
//! A daemon that hangs, or a connection that is cut, needs no case of its own: the lease known last runs out.

use std::time::Duration;

use holdfast_proto::control::{LeaseFacts, Role as WireRole};

use crate::clock::BootMs;

/// The daemon's role, as far as it matters to what this agent may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing to hold: standby, catching up, candidate, halted and so on.
    Standby,
    Promoting,
    Active,
    Suspended,
    Lost,
    Handover,
}

impl From<WireRole> for Role {
    fn from(role: WireRole) -> Self {
        match role {
            WireRole::Promoting => Self::Promoting,
            WireRole::Active => Self::Active,
            WireRole::Suspended => Self::Suspended,
            WireRole::Lost => Self::Lost,
            WireRole::Handover => Self::Handover,
            WireRole::Unspecified
            | WireRole::Starting
            | WireRole::Standby
            | WireRole::CatchingUp
            | WireRole::Candidate
            | WireRole::Halted
            | WireRole::Down => Self::Standby,
        }
    }
}

/// What the daemon said, and when it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub role: Role,
    pub term: u64,
    /// Absent: no lease.
    pub lease_until: Option<BootMs>,
    pub vip_not_before: BootMs,
    pub writable: bool,
    pub active: String,
    pub grace_until: Option<BootMs>,
    pub heard: BootMs,
}

impl Facts {
    pub fn new(wire: &LeaseFacts, heard: BootMs) -> Self {
        let instant = |ms: u64| (ms > 0).then_some(BootMs(ms));
        Self {
            role: wire.role().into(),
            term: wire.term,
            lease_until: instant(wire.lease_until_ms),
            vip_not_before: BootMs(wire.vip_not_before_ms),
            writable: wire.writable,
            active: wire.active.clone(),
            grace_until: instant(wire.grace_until_ms),
            heard,
        }
    }

    pub fn lease_left(&self, now: BootMs) -> Duration {
        self.lease_until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// What these facts allow now. `grace` counts from the lease's end, or from the hearing where there is none.
    pub fn standing(&self, now: BootMs, grace: Duration) -> Standing {
        let leased = self.lease_left(now) > Duration::ZERO;
        let local_end = self.lease_until.unwrap_or(self.heard).plus(grace);
        let until = |ends: BootMs| {
            if now < ends {
                Standing::Suspended
            } else {
                Standing::Lost
            }
        };
        match self.role {
            Role::Standby => Standing::Idle,
            Role::Lost => Standing::Lost,
            Role::Suspended => until(self.grace_until.unwrap_or(local_end)),
            Role::Promoting | Role::Active if leased => Standing::Holding,
            Role::Handover if leased => Standing::Handover,
            Role::Promoting | Role::Active | Role::Handover => until(local_end),
        }
    }
}

/// What the node may hold at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The daemon hasn't been heard since this agent started.
    Waiting,
    /// No role: nothing is held here.
    Idle,
    /// The lease runs: address and PBX belong here.
    Holding,
    /// The lease is gone and the grace runs: no address, the PBX isn't touched.
    Suspended,
    /// The role is over: no address, and the PBX is killed.
    Lost,
    /// The lease runs and the role is being given away as planned.
    Handover,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);

    fn facts(role: Role, lease_until: u64) -> Facts {
        Facts {
            role,
            term: 7,
            lease_until: (lease_until > 0).then_some(BootMs(lease_until)),
            vip_not_before: BootMs(0),
            writable: true,
            active: String::new(),
            grace_until: None,
            heard: BootMs(1000),
        }
    }

    #[test]
    fn a_silent_daemon_is_judged_by_the_lease_that_it_told_last() {
        let facts = facts(Role::Active, 2000);
        assert_eq!(facts.standing(BootMs(1999), GRACE), Standing::Holding);
        assert_eq!(facts.standing(BootMs(2000), GRACE), Standing::Suspended);
        assert_eq!(facts.standing(BootMs(4999), GRACE), Standing::Suspended);
        assert_eq!(facts.standing(BootMs(5000), GRACE), Standing::Lost);
    }

    #[test]
    fn the_daemons_own_end_of_the_grace_counts() {
        let facts = Facts {
            grace_until: Some(BootMs(2500)),
            ..facts(Role::Suspended, 0)
        };
        assert_eq!(facts.standing(BootMs(2499), GRACE), Standing::Suspended);
        assert_eq!(facts.standing(BootMs(2500), GRACE), Standing::Lost);
    }

    #[test]
    fn a_promotion_that_has_no_lease_yet_holds_nothing() {
        assert_eq!(
            facts(Role::Promoting, 0).standing(BootMs(1001), GRACE),
            Standing::Suspended
        );
    }

    #[test]
    fn a_handover_without_a_lease_has_no_file_system_to_stop_on() {
        assert_eq!(
            facts(Role::Handover, 1500).standing(BootMs(1400), GRACE),
            Standing::Handover
        );
        assert_eq!(
            facts(Role::Handover, 1500).standing(BootMs(1600), GRACE),
            Standing::Suspended
        );
        assert_eq!(
            facts(Role::Handover, 1500).standing(BootMs(4600), GRACE),
            Standing::Lost
        );
    }
}
