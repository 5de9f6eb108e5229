//! The daemon's answer, with what is only last known kept apart from what is so.

use crate::words;
use holdfast_proto::control::{AgentReport, ClusterStatus, Failover, NodeStatus, PeerView, Role};

pub(super) struct Cluster<'a> {
    pub(super) status: &'a ClusterStatus,
    pub(super) nodes: Vec<Node<'a>>,
}

pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) address: &'a str,
    pub(super) reachable: bool,
    pub(super) removed: bool,
    /// 0: never.
    pub(super) last_heard_unix_ms: u64,
    /// `Role::Down` if it can't be reached.
    pub(super) role: Role,
    /// As last known, if it can't be reached.
    pub(super) status: NodeStatus,
}

impl<'a> Cluster<'a> {
    pub(super) fn of(status: &'a ClusterStatus) -> Self {
        Self {
            status,
            nodes: status.nodes.iter().map(Node::of).collect(),
        }
    }

    /// The active node, if there is one that can be reached.
    pub(super) fn active(&self) -> Option<&Node<'a>> {
        let named = self.nodes.iter().find(|node| node.name == self.status.active)?;
        (named.reachable && matches!(named.role, Role::Active | Role::Handover)).then_some(named)
    }

    pub(super) fn reachable(&self) -> usize {
        self.nodes.iter().filter(|node| node.reachable).count()
    }

    pub(super) fn vip_holders(&self) -> Vec<&str> {
        self.nodes
            .iter()
            .filter(|node| node.holds_vip())
            .map(|node| node.name)
            .collect()
    }

    /// The latest change of the active node that anybody remembers, and who took over.
    pub(super) fn last_failover(&self) -> Option<(&Node<'a>, &Failover)> {
        let known = self
            .nodes
            .iter()
            .filter_map(|node| node.failover().map(|failover| (node, failover)));
        known.max_by_key(|(_, failover)| failover.began_unix_ms)
    }
}

impl<'a> Node<'a> {
    fn of(peer: &'a PeerView) -> Self {
        let empty = || (NodeStatus::default(), "?");
        let (status, name) = peer
            .status
            .as_ref()
            .map_or_else(empty, |status| (status.clone(), status.name.as_str()));
        let role = if peer.reachable { status.role() } else { Role::Down };
        let (address, last_heard_unix_ms) = (peer.address.as_str(), peer.last_heard_unix_ms);
        Self {
            name,
            address,
            reachable: peer.reachable,
            removed: peer.removed,
            last_heard_unix_ms,
            role,
            status,
        }
    }

    /// As one word.
    pub(super) fn role_word(&self) -> &'static str {
        if self.removed {
            "removed"
        } else {
            words::role(self.role)
        }
    }

    /// What it was doing when last heard: what it did then tells it, where its role is given as down.
    pub(super) fn last_role(&self) -> Role {
        match self.status.role() {
            Role::Down | Role::Unspecified if self.last_heard_unix_ms == 0 => Role::Down,
            Role::Down | Role::Unspecified if self.status.writable => Role::Active,
            Role::Down | Role::Unspecified if self.status.lag_bytes > 0 => Role::CatchingUp,
            Role::Down | Role::Unspecified => Role::Standby,
            role => role,
        }
    }

    pub(super) fn agent(&self) -> Option<&AgentReport> {
        self.status.agent.as_ref()
    }

    /// Only ever said of a node that can be asked: who can't be asked isn't a second holder.
    pub(super) fn holds_vip(&self) -> bool {
        self.reachable && self.agent().is_some_and(|agent| agent.vip_held)
    }

    pub(super) fn could_take_over(&self) -> bool {
        self.reachable && self.status.could_take_over
    }

    pub(super) fn failover(&self) -> Option<&Failover> {
        self.status
            .last_failover
            .as_ref()
            .filter(|failover| failover.began_unix_ms > 0)
    }
}

/// The phases of a failover in their order, each with its end in milliseconds after the beginning, if it came.
pub(super) fn phases(failover: &Failover) -> [(&'static str, Option<u64>); 6] {
    let came = |ms: u64| (ms > 0).then_some(ms);
    [
        ("detected", came(failover.detected_ms)),
        ("lease", came(failover.lease_ms)),
        ("mounted", came(failover.mounted_ms)),
        ("vip", came(failover.vip_ms)),
        ("units", came(failover.units_ms)),
        ("first_write", came(failover.first_write_ms)),
    ]
}
