//! Whether this node is fit to be active. If it isn't, it gives the role away to one that is; if its disk has
//! failed, it takes no part in anything any more and stays reachable for status.

use super::{State, Task};
use crate::clock::boottime_ms;
use crate::disk_health::{DiskTrouble, Fault};
use crate::roles::Role;
use holdfast_proto::stream;
use tokio::sync::oneshot;

/// A disk that was in trouble is trusted again after so long without.
const MENDING_MS: u64 = 30_000;
/// Between two attempts to give the role away.
pub(super) const LEAVE_AGAIN_MS: u64 = 30_000;
/// Without vip-agent nobody holds the address. One that is started anew is back within a second.
const AGENT_AWAY_MAX_MS: u64 = 10_000;
/// A PBX, or an address, that doesn't come up here may do so elsewhere.
const AGENT_OBJECTS_MAX_MS: u64 = 5_000;
const AGENT_OBJECTS: &str = "its PBX or its address doesn't come up";
/// Twice what an active node lets gather. A slower disk may leave as much as the log holds, and all of it would have to be applied
/// before anything is served.
pub const UNAPPLIED_MAX: u64 = 128 << 20;
/// By then the others' states say whether their disks are in the same trouble.
const LEAVE_AFTER_MS: u64 = 1_000;
/// A role that came here from a slow disk doesn't go on for a slow disk before that.
const SETTLE_MS: u64 = 300_000;

impl State {
    /// Why this node can't do an active node's work, whatever its agent says.
    fn unwell(&self) -> Option<String> {
        let fault = self.disk.as_ref().map(|trouble| &trouble.fault);
        // What mends is no reason by itself.
        let disk = fault.filter(|fault| **fault != Fault::Mending).map(ToString::to_string);
        let agent = self
            .agent_is_away
            .then(|| "vip-agent isn't there, so nobody holds the address".into());
        let objects = self.agent_objects.then(|| AGENT_OBJECTS.into());
        let mending = || fault.map(ToString::to_string);
        self.halted.clone().or(disk).or(agent).or(objects).or_else(mending)
    }
}

impl Task {
    /// Nothing but its disk, in trouble or full, or what is on it, may stand against it.
    fn could_serve(&self) -> bool {
        self.agent_agrees() && self.state.halted.is_none()
    }

    fn agent_agrees(&self) -> bool {
        !self.settings.needs_agent || (self.state.agent.connected && self.state.agent.eligible)
    }

    /// As far as this is known.
    pub(super) fn has_room(&self) -> bool {
        self.state.space.total == 0 || self.core.store_free > 0
    }

    pub(super) fn eligible(&self) -> bool {
        self.could_serve() && self.is_at_its_best()
    }

    fn is_at_its_best(&self) -> bool {
        let differs = self.state.odd_one_out == Some(self.settings.id);
        self.state.disk.is_none() && self.has_room() && !differs && self.core.unapplied() <= UNAPPLIED_MAX
    }

    /// Whether this node, once elected, takes the role: also with a disk in trouble, other data than the others or much to apply, if
    /// nobody better is there, and with a full one, for what makes room is done through the mount.
    pub(super) fn may_serve(&self) -> bool {
        self.could_serve() && (self.is_at_its_best() || self.best_standby().is_none())
    }

    pub(super) fn look_at_disk(&mut self, now: u64) {
        self.channels
            .health
            .tick(self.state.ticks * self.settings.tick.as_millis() as u64);
        let found = self.channels.health.trouble(self.settings.disk_stall_ms);
        let known = self.state.disk.as_ref().map(|trouble| &trouble.fault);
        if let Some(trouble) = &found {
            if known.map(std::mem::discriminant) != Some(std::mem::discriminant(&trouble.fault)) {
                tracing::warn!("{}", trouble.fault);
            }
            self.state.disk_well_at_ms = now + MENDING_MS;
        }
        let mending = || {
            (now < self.state.disk_well_at_ms).then(|| DiskTrouble {
                for_ms: now + MENDING_MS - self.state.disk_well_at_ms,
                fault: Fault::Mending,
            })
        };
        self.state.disk = found.or_else(mending);
    }

    /// A leader that may not serve gives the leadership to a standby that may.
    pub(super) fn leave_if_unfit(&mut self, now: u64) {
        if !matches!(self.role(), Role::Active { .. }) {
            self.state.unwell_since_ms = None;
        }
        self.look_at_agent(now);
        match self.role() {
            Role::Active { .. } => self.leave_if_unwell(now),
            Role::None | Role::Promoting { .. } => self.leave_if_ineligible(),
            _ => {}
        }
    }

    fn look_at_agent(&mut self, now: u64) {
        let away = self.settings.needs_agent && !self.state.agent.connected;
        let since = away.then(|| self.state.agent_away_since_ms.unwrap_or(now));
        self.state.agent_away_since_ms = since;
        self.state.agent_is_away = since.is_some_and(|since| now >= since + AGENT_AWAY_MAX_MS);
        let objects = matches!(self.role(), Role::Active { .. }) && !away && self.state.agent.gives_up;
        let since = objects.then(|| self.state.agent_objects_since_ms.unwrap_or(now));
        self.state.agent_objects_since_ms = since;
        self.state.agent_objects = since.is_some_and(|since| now >= since + AGENT_OBJECTS_MAX_MS);
    }

    /// A disk in trouble would soon hold up every request; without an agent nothing is served, for there is no address; and a
    /// PBX that doesn't run here, also after a restart, may run elsewhere. What serves in part stays: an operator decides.
    fn leave_if_unwell(&mut self, now: u64) {
        let fault = self.state.disk.as_ref().map(|trouble| trouble.fault.clone());
        let agent_is_well = !self.state.agent_is_away && (!self.state.agent_objects || self.came_for_that());
        let well = self.state.halted.is_none() && agent_is_well && matches!(fault, None | Some(Fault::Mending));
        let Some(why) = self.state.unwell().filter(|_| !well) else {
            self.state.unwell_since_ms = None;
            return;
        };
        let since = *self.state.unwell_since_ms.get_or_insert(now);
        let too_early = now < since + LEAVE_AFTER_MS || now < self.state.leave_again_ms;
        if too_early || self.state.handover.is_some() || self.best_standby().is_none() {
            return;
        }
        // What is under way has to get onto two disks without this one.
        let needs_both = matches!(fault, Some(Fault::Stalled | Fault::Slow(_)));
        if needs_both && !self.both_peers_are_fit(now) {
            return;
        }
        let came_from_a_slow_disk = self.state.failover.as_ref().is_some_and(|failover| {
            failover.given_away.as_deref().is_some_and(|why| why != "planned") && now < failover.lease_ms + SETTLE_MS
        });
        if came_from_a_slow_disk && matches!(fault, Some(Fault::Slow(_))) {
            return;
        }
        self.state.leave_again_ms = now + LEAVE_AGAIN_MS;
        tracing::warn!(why, "this node isn't fit to be active");
        let (outcome, _nobody_asked) = oneshot::channel();
        self.begin_handover(None, why, outcome);
    }

    /// A role that came here because the PBX didn't come up there, and it doesn't here either: what is wrong may be wrong on all of them,
    /// and each change stops whatever runs.
    fn came_for_that(&self) -> bool {
        let failover = self.state.failover.as_ref();
        let came = failover.is_some_and(|failover| failover.given_away.as_deref() == Some(AGENT_OBJECTS));
        came && !self.state.agent.units_healthy
    }

    fn both_peers_are_fit(&self, now: u64) -> bool {
        let fit = |id: &u64| {
            let peer = self.core.peer(*id);
            peer.is_some_and(|peer| peer.heard_ms + 1500 > now && peer.state.is_some_and(|state| state.eligible))
        };
        self.settings
            .names
            .keys()
            .filter(|id| **id != self.settings.id)
            .all(fit)
    }

    fn leave_if_ineligible(&mut self) {
        if self.eligible() || !self.core.is_leader() || self.core.is_transferring() {
            return;
        }
        if let Some(to) = self.best_standby() {
            let why = self.state.unwell().unwrap_or_else(|| "it could not serve".into());
            self.transfer(to, why);
            if let Role::Promoting { term } = self.role() {
                self.state.role = Some(Role::Lost { term });
                self.end_role();
            }
        }
    }

    fn transfer(&mut self, to: u64, reason: String) {
        let handover = stream::Handover {
            term: self.core.term(),
            vip_released: false,
            reason,
        };
        let send = self.core.transfer(to, &handover);
        self.send_all(send);
    }

    /// The disk has refused what it mustn't. From here on this node says nothing to its peers: to them it is dead, and what
    /// it promised before is all that it ever promises.
    pub(super) fn fail(&mut self, why: String) {
        if self.state.out {
            return;
        }
        tracing::error!(why, "this node takes no part any more; the other nodes go on");
        if self.core.is_leader()
            && let Some(to) = self.best_standby()
        {
            // Spares the others the time that it takes to miss this node.
            self.transfer(to, why.clone());
            let last_words = self.core.output().send;
            self.send_all(last_words);
        }
        self.state.out = true;
        if let Some(handover) = self.state.handover.take() {
            handover.finish(Err(why.clone()));
        }
        self.state.halted = Some(why);
        self.gate.set_lease(0);
        let term = self.role().term();
        self.state.role = Some(if term > 0 { Role::Lost { term } } else { Role::None });
        self.end_role();
    }

    /// What is left of a round for a node whose disk has failed.
    pub(super) fn tick_out(&mut self) {
        self.channels
            .alive
            .store(self.state.ticks, std::sync::atomic::Ordering::Relaxed);
        self.publish(boottime_ms());
    }
}
