//! Whether this node is fit to be active, and when it gives the role away because it isn't. Pure.

use crate::disk_health::{DiskTrouble, Fault};
use crate::handle::AgentFacts;
use crate::roles::Role;

/// A disk that was in trouble is trusted again after so long without.
const MENDING_MS: u64 = 30_000;
/// Between two attempts to give the role away.
const LEAVE_AGAIN_MS: u64 = 30_000;
/// Without vip-agent nobody holds the address. One that is started anew is back within a second.
const AGENT_AWAY_MAX_MS: u64 = 10_000;
/// A PBX, or an address, that doesn't come up here may do so elsewhere.
const AGENT_OBJECTS_MAX_MS: u64 = 5_000;
const AGENT_OBJECTS: &str = "its PBX or its address doesn't come up";
/// Twice what an active node lets gather. A slower disk may leave as much as the log holds, and all of it would have to be applied
/// before anything is served.
pub const UNAPPLIED_MAX: u64 = 128 << 20;
/// A node whose daemon or agent is started anew is eligible again by then.
const LAST_RESORT_AFTER_MS: u64 = 5_000;
/// By then the others' states say whether their disks are in the same trouble.
const LEAVE_AFTER_MS: u64 = 1_000;
/// A role that came here from a slow disk doesn't go on for a slow disk before that.
const SETTLE_MS: u64 = 300_000;
/// The reason that is given for what an operator asked for.
pub const PLANNED: &str = "planned";

/// What there is to be seen of this node.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    pub now_ms: u64,
    pub role: Role,
    /// None: this node has no vip-agent and waits for none.
    pub agent: Option<&'a AgentFacts>,
    pub halted: Option<&'a str>,
    pub disk: Option<&'a Fault>,
    /// As far as this is known.
    pub has_room: bool,
    /// Its replica is known not to hold what the two others hold.
    pub differs: bool,
    /// Bytes of entries that it has yet to apply.
    pub unapplied: u64,
    /// Why and when the node before gave the role to this one, if it did.
    pub came: Option<(&'a str, u64)>,
}

/// And of the others.
#[derive(Clone, Copy, Debug)]
pub struct Others {
    pub best_standby: Option<u64>,
    pub are_all_eligible: bool,
    /// This node leads them and isn't about to give that away.
    pub are_led: bool,
}

/// How the role is given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// In order, with the PBX stopped before.
    HandOver { why: String },
    /// The leadership alone, for nothing is served yet.
    Transfer { to: u64, why: String },
}

impl Sight<'_> {
    /// Nothing but its disk, in trouble or full, or what is on it, or a PBX that failed here before, may stand against it.
    fn could_serve(&self) -> bool {
        let agrees = |agent: &AgentFacts| agent.connected && (agent.eligible || agent.last_resort);
        self.halted.is_none() && self.agent.is_none_or(agrees)
    }

    fn is_at_its_best(&self) -> bool {
        let pbx_is_well = self.agent.is_none_or(|agent| agent.eligible);
        self.disk.is_none() && self.has_room && !self.differs && self.unapplied <= UNAPPLIED_MAX && pbx_is_well
    }

    pub fn is_eligible(&self) -> bool {
        self.could_serve() && self.is_at_its_best()
    }

    /// Only that its PBX failed here before stands against this node's agent.
    fn is_last_resort(&self) -> bool {
        self.agent.is_some_and(|agent| !agent.eligible && agent.last_resort)
    }

    /// A role that came here because the PBX didn't come up there, and it doesn't here either: what is wrong may be wrong on all of them,
    /// and each change stops whatever runs.
    fn came_for_that(&self) -> bool {
        let came = self.came.is_some_and(|(why, _)| why == AGENT_OBJECTS);
        came && self.agent.is_none_or(|agent| !agent.units_healthy)
    }

    fn came_from_a_slow_disk(&self) -> bool {
        self.came
            .is_some_and(|(why, at_ms)| why != PLANNED && self.now_ms < at_ms + SETTLE_MS)
    }
}

/// What has to last before it counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fitness {
    disk_well_at_ms: u64,
    agent_away_since_ms: Option<u64>,
    agent_objects_since_ms: Option<u64>,
    unwell_since_ms: Option<u64>,
    /// Elected, and no eligible node is there.
    alone_since_ms: Option<u64>,
    /// Not before does this node give the role away again by itself.
    leave_again_ms: u64,
}

fn lasts(since_ms: Option<u64>, so_long_ms: u64, now_ms: u64) -> bool {
    since_ms.is_some_and(|since| now_ms >= since + so_long_ms)
}

impl Fitness {
    /// What counts as the disk's trouble, when this was `found`.
    pub fn disk(&mut self, found: Option<DiskTrouble>, now_ms: u64) -> Option<DiskTrouble> {
        if found.is_some() {
            self.disk_well_at_ms = now_ms + MENDING_MS;
        }
        let mending = || {
            (now_ms < self.disk_well_at_ms).then(|| DiskTrouble {
                for_ms: now_ms + MENDING_MS - self.disk_well_at_ms,
                fault: Fault::Mending,
            })
        };
        found.or_else(mending)
    }

    /// Whether this node, once elected, takes the role: also with a disk in trouble, other data than the others or much to apply, if
    /// nobody better is there, and with a full disk, for what makes room is done through the mount; where its PBX failed, when nobody
    /// better has come for a while.
    pub fn may_serve(&self, sight: &Sight<'_>, somebody_else_could: impl FnOnce() -> bool) -> bool {
        let waits = sight.is_last_resort() && !lasts(self.alone_since_ms, LAST_RESORT_AFTER_MS, sight.now_ms);
        sight.could_serve() && !waits && (sight.is_at_its_best() || !somebody_else_could())
    }

    /// A planned switch didn't come about.
    pub fn stays(&mut self, now_ms: u64) {
        self.leave_again_ms = now_ms + LEAVE_AGAIN_MS;
    }

    /// At each tick: whether a leader that may not serve gives that to a standby that may. `is_leaving`: it does already.
    pub fn leaves(&mut self, sight: &Sight<'_>, others: &Others, is_leaving: bool) -> Option<Leave> {
        self.look_at_agent(sight);
        let alone = others.are_led && others.best_standby.is_none();
        self.alone_since_ms = alone.then(|| self.alone_since_ms.unwrap_or(sight.now_ms));
        if !matches!(sight.role, Role::Active { .. }) {
            self.unwell_since_ms = None;
        }
        match sight.role {
            Role::Active { .. } => {
                let why = self.leaves_unwell(sight, others, is_leaving)?;
                self.stays(sight.now_ms);
                Some(Leave::HandOver { why })
            }
            Role::None | Role::Promoting { .. } if others.are_led && !sight.is_eligible() => Some(Leave::Transfer {
                to: others.best_standby?,
                why: self.unwell(sight).unwrap_or_else(|| "it could not serve".into()),
            }),
            _ => None,
        }
    }

    fn look_at_agent(&mut self, sight: &Sight<'_>) {
        let now = sight.now_ms;
        let away = sight.agent.is_some_and(|agent| !agent.connected);
        self.agent_away_since_ms = away.then(|| self.agent_away_since_ms.unwrap_or(now));
        let objects = matches!(sight.role, Role::Active { .. }) && sight.agent.is_some_and(|agent| agent.gives_up);
        let objects = objects && !away;
        self.agent_objects_since_ms = objects.then(|| self.agent_objects_since_ms.unwrap_or(now));
    }

    fn agent_is_away(&self, now_ms: u64) -> bool {
        lasts(self.agent_away_since_ms, AGENT_AWAY_MAX_MS, now_ms)
    }

    fn agent_objects(&self, now_ms: u64) -> bool {
        lasts(self.agent_objects_since_ms, AGENT_OBJECTS_MAX_MS, now_ms)
    }

    /// Why this node can't do an active node's work, whatever its agent says.
    fn unwell(&self, sight: &Sight<'_>) -> Option<String> {
        // What mends is no reason by itself.
        let disk = sight.disk.filter(|fault| **fault != Fault::Mending);
        let agent = self
            .agent_is_away(sight.now_ms)
            .then(|| "vip-agent isn't there, so nobody holds the address".into());
        let objects = self.agent_objects(sight.now_ms).then(|| AGENT_OBJECTS.into());
        let mending = || sight.disk.map(ToString::to_string);
        let halted = sight.halted.map(ToOwned::to_owned);
        halted
            .or(disk.map(ToString::to_string))
            .or(agent)
            .or(objects)
            .or_else(mending)
    }

    /// A disk in trouble would soon hold up every request; without an agent nothing is served, for there is no address; and a
    /// PBX that doesn't run here, also after a restart, may run elsewhere. What serves in part stays: an operator decides.
    fn leaves_unwell(&mut self, sight: &Sight<'_>, others: &Others, is_leaving: bool) -> Option<String> {
        let now = sight.now_ms;
        let agent_is_well = !self.agent_is_away(now) && (!self.agent_objects(now) || sight.came_for_that());
        let disk_is_well = matches!(sight.disk, None | Some(Fault::Mending));
        let is_well = sight.halted.is_none() && agent_is_well && disk_is_well;
        let Some(why) = self.unwell(sight).filter(|_| !is_well) else {
            self.unwell_since_ms = None;
            return None;
        };
        let since = *self.unwell_since_ms.get_or_insert(now);
        let too_early = now < since + LEAVE_AFTER_MS || now < self.leave_again_ms;
        if too_early || is_leaving || others.best_standby.is_none() {
            return None;
        }
        // What is under way has to get onto two disks without this one.
        let needs_both = matches!(sight.disk, Some(Fault::Stalled | Fault::Slow(_)));
        if needs_both && !others.are_all_eligible {
            return None;
        }
        if sight.came_from_a_slow_disk() && matches!(sight.disk, Some(Fault::Slow(_))) {
            return None;
        }
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentFacts {
        AgentFacts {
            connected: true,
            eligible: true,
            units_healthy: true,
            ..AgentFacts::default()
        }
    }

    fn sight(agent: &AgentFacts, now_ms: u64) -> Sight<'_> {
        Sight {
            now_ms,
            role: Role::Active { term: 3 },
            agent: Some(agent),
            halted: None,
            disk: None,
            has_room: true,
            differs: false,
            unapplied: 0,
            came: None,
        }
    }

    const OTHERS: Others = Others {
        best_standby: Some(2),
        are_all_eligible: true,
        are_led: true,
    };

    /// When the role is given away, if that is what is seen in each tick of a minute.
    fn leaves_at(seen: Sight<'_>, others: Others) -> Option<u64> {
        let mut fitness = Fitness::default();
        let mut leaves = |now_ms| fitness.leaves(&Sight { now_ms, ..seen }, &others, false).is_some();
        (0..600).map(|tick| tick * 100).find(|now| leaves(*now))
    }

    #[test]
    fn what_is_wrong_moves_the_role_when_it_has_lasted_and_somebody_can_take_it() {
        let (well, away) = (agent(), AgentFacts::default());
        let objects = AgentFacts {
            gives_up: true,
            units_healthy: false,
            ..agent()
        };
        let slow = Sight {
            disk: Some(&Fault::Slow(80)),
            ..sight(&well, 0)
        };
        let halted = Sight {
            halted: Some("damaged"),
            ..sight(&well, 0)
        };
        let nobody = Others {
            best_standby: None,
            ..OTHERS
        };
        assert_eq!(leaves_at(sight(&well, 0), OTHERS), None);
        let cases = [
            (sight(&away, 0), 11_000),
            (sight(&objects, 0), 6_000),
            (slow, 1_000),
            (halted, 1_000),
        ];
        for (seen, at) in cases {
            assert_eq!(leaves_at(seen, OTHERS), Some(at), "{seen:?}");
            assert_eq!(leaves_at(seen, nobody), None, "{seen:?}");
        }
        let one_is_ill = Others {
            are_all_eligible: false,
            ..OTHERS
        };
        assert_eq!(leaves_at(slow, one_is_ill), None, "two disks are needed without it");
    }

    #[test]
    fn a_role_moves_once_for_a_pbx_that_starts_nowhere() {
        let objects = AgentFacts {
            gives_up: true,
            units_healthy: false,
            ..agent()
        };
        let came = |why| Sight {
            came: Some((why, 0)),
            ..sight(&objects, 0)
        };
        assert_eq!(leaves_at(came(AGENT_OBJECTS), OTHERS), None);
        assert_eq!(leaves_at(came(PLANNED), OTHERS), Some(6_000));
    }

    #[test]
    fn a_role_that_came_from_a_slow_disk_doesnt_go_on_for_one_at_once() {
        let well = agent();
        let came = |why| Sight {
            disk: Some(&Fault::Slow(80)),
            came: Some((why, 0)),
            ..sight(&well, 0)
        };
        assert_eq!(leaves_at(came("its disk is slow"), OTHERS), None);
        assert_eq!(leaves_at(came(PLANNED), OTHERS), Some(1_000));
    }

    #[test]
    fn a_leader_without_a_role_that_isnt_eligible_gives_the_leadership_away_at_once() {
        let well = agent();
        let ill = AgentFacts {
            eligible: false,
            ..agent()
        };
        let elected = |agent| Sight {
            role: Role::None,
            ..sight(agent, 0)
        };
        let mut fitness = Fitness::default();
        assert_eq!(fitness.leaves(&elected(&well), &OTHERS, false), None);
        let left = fitness.leaves(&elected(&ill), &OTHERS, false);
        assert!(matches!(left, Some(Leave::Transfer { to: 2, .. })), "{left:?}");
    }

    #[test]
    fn a_node_whose_pbx_failed_before_serves_where_nobody_else_can() {
        let failed = AgentFacts {
            eligible: false,
            last_resort: true,
            ..agent()
        };
        let stopping = AgentFacts {
            last_resort: false,
            ..failed.clone()
        };
        let nobody = Others {
            best_standby: None,
            ..OTHERS
        };
        let mut fitness = Fitness::default();
        let mut looks = |agent: &AgentFacts, now_ms, others| {
            let seen = Sight {
                role: Role::None,
                ..sight(agent, now_ms)
            };
            assert!(!seen.is_eligible());
            let _left = fitness.leaves(&seen, &others, false);
            fitness.may_serve(&seen, || others.best_standby.is_some())
        };
        assert!(!looks(&failed, 1_000, nobody), "somebody may only be starting");
        assert!(!looks(&failed, 5_900, nobody));
        assert!(!looks(&stopping, 6_000, nobody));
        assert!(looks(&failed, 6_000, nobody));
        assert!(!looks(&failed, 6_100, OTHERS));
        assert!(!looks(&failed, 6_200, nobody), "the waiting begins anew");
    }

    #[test]
    fn a_disk_is_trusted_again_after_half_a_minute() {
        let mut fitness = Fitness::default();
        let full = DiskTrouble {
            for_ms: 5,
            fault: Fault::Full,
        };
        let fault = |trouble: Option<DiskTrouble>| trouble.map(|trouble| trouble.fault);
        assert_eq!(fault(fitness.disk(None, 0)), None);
        assert_eq!(fault(fitness.disk(Some(full), 100)), Some(Fault::Full));
        assert_eq!(fault(fitness.disk(None, 30_099)), Some(Fault::Mending));
        assert_eq!(fault(fitness.disk(None, 30_100)), None);
    }
}
