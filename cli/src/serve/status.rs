//! This node's state in the words of the control protocol.

use super::shared::{MountKind, Shared};
use super::{alike, notices};
use holdfast_proto::control::{ClusterStatus, Failover, NodeStatus, PeerView, Role};
use holdfast_replicator::clock::{boottime_ms, unix_ms};
use holdfast_replicator::fitness::PLANNED;
use holdfast_replicator::roles;
use holdfast_replicator::view::{self, View};

/// A peer's answer older than this doesn't count as reachable.
const FRESH_MS: u64 = 3_500;

pub(super) fn node(shared: &Shared) -> NodeStatus {
    let view = shared.view();
    let now = boottime_ms();
    let space = shared.handle.store().space().unwrap_or_default();
    let inner = shared.inner();
    let mount = inner
        .mount
        .as_ref()
        .filter(|(_, mount)| mount.is_alive())
        .map(|(kind, _)| *kind);
    let agent = inner.agent.clone();
    let (mount_fault, agent_gone) = (inner.mount_fault.clone(), inner.agent_gone_since);
    drop(inner);
    let offer = shared
        .offers_of_copies()
        .into_iter()
        .next()
        .map(|id| shared.name_of(id));
    let role = role(&view);
    let cannot_because = notices::cannot_take_over(shared, &view, agent.as_ref(), mount_fault.as_ref(), offer);
    NodeStatus {
        name: shared.node().name.clone(),
        id: shared.config.this as u64 + 1,
        role: role.into(),
        term: view.term,
        leader: view.leader.map(|id| shared.name_of(id)).unwrap_or_default(),
        sequenced: view.sequenced,
        durable: view.durable,
        committed: view.committed,
        applied: view.applied,
        checkpointed: view.checkpointed,
        first_index: view.first,
        lag_bytes: view.lag.bytes,
        lag_ms: view.lag.since_ms.map_or(0, |since| now.saturating_sub(since)),
        lag_left_ms: view.lag.left_ms(now),
        lag_still_ms: view.lag.still_ms(now),
        lease_left_ms: view.lease_until_ms.saturating_sub(now),
        mounted: mount.is_some(),
        writable: mount == Some(MountKind::Active) && shared.handle.gate().may_answer(now),
        mount_path: shared.config.mount.path.display().to_string(),
        last_failover: view
            .failover
            .as_ref()
            .map(|failover| failover_of(shared, failover, now)),
        notices: notices::of(shared, &view, agent.as_ref(), mount_fault, agent_gone, now),
        could_take_over: cannot_because.is_empty() && role != Role::Active,
        cannot_because,
        uptime_ms: unix_ms().saturating_sub(shared.started_ms),
        version: env!("CARGO_PKG_VERSION").into(),
        store_free_bytes: space.free,
        store_total_bytes: space.total,
        resident_bytes: resident_bytes(),
        forgetful: view.forgetful,
        unix_ms: unix_ms(),
        needs_copy: (1..=shared.config.cluster.nodes.len() as u64)
            .filter(|id| *id != shared.config.this as u64 + 1 && shared.handle.needs_copy(&view, *id))
            .collect(),
        copy: None,
        members: Some(shared.live.now().members()),
        settings: alike::settings(&shared.config),
        odd_one_out: shared.odd_one_out().unwrap_or_default(),
        recovering: shared.handle.is_recovering(),
        scrub: Some(shared.scrubber.message()),
        agent,
    }
}

fn role(view: &View) -> Role {
    match view.role {
        roles::Role::Promoting { .. } => Role::Promoting,
        roles::Role::Active { .. } => Role::Active,
        roles::Role::Suspended { .. } => Role::Suspended,
        roles::Role::Lost { .. } => Role::Lost,
        roles::Role::HandOver { .. } => Role::Handover,
        roles::Role::None if view.halted.is_some() => Role::Halted,
        roles::Role::None if view.at_ms == 0 => Role::Starting,
        roles::Role::None if view.candidate => Role::Candidate,
        roles::Role::None if view.forgetful || view.lag.bytes > CATCHING_UP => Role::CatchingUp,
        roles::Role::None => Role::Standby,
    }
}

/// Behind by more than a busy moment.
pub(super) const CATCHING_UP: u64 = 4 << 20;

fn failover_of(shared: &Shared, moments: &view::Failover, now: u64) -> Failover {
    let began = if moments.began_ms == 0 || moments.began_ms > moments.lease_ms {
        moments.lease_ms
    } else {
        moments.began_ms
    };
    let since = |moment: u64| {
        if moment == 0 {
            0
        } else {
            moment.saturating_sub(began).max(1)
        }
    };
    let from = moments.from.map(|id| shared.name_of(id)).unwrap_or_default();
    Failover {
        began_unix_ms: unix_ms().saturating_sub(now.saturating_sub(began)),
        detected_ms: if moments.detected_ms < began {
            0
        } else {
            since(moments.detected_ms)
        },
        lease_ms: since(moments.lease_ms),
        mounted_ms: since(moments.mounted_ms),
        vip_ms: since(moments.vip_ms),
        units_ms: since(moments.units_ms),
        first_write_ms: since(moments.first_write_ms),
        reason: match moments.given_away.as_deref() {
            Some(PLANNED) => format!("planned, from {from}"),
            Some(why) => format!("{from} gave the role away: {why}"),
            None => "the former active node was not heard".into(),
        },
        from,
    }
}

pub(super) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .map_or(0, |pages| pages * rustix::param::page_size() as u64)
}

/// All three nodes as this one knows them.
pub(super) fn cluster(shared: &Shared) -> ClusterStatus {
    let own = node(shared);
    let now = unix_ms();
    let inner = shared.inner();
    let mut nodes = Vec::new();
    let current = shared.live.now();
    for (id, peer) in (1..).zip(&current.config.cluster.nodes) {
        let view = if peer.name == own.name {
            PeerView {
                status: Some(own.clone()),
                last_heard_unix_ms: now,
                reachable: true,
                address: peer.address.to_string(),
                removed: false,
            }
        } else {
            let known = inner.peers.get(&peer.name).cloned();
            let heard = known.as_ref().map_or(0, |heard| heard.unix_ms);
            let fresh = known
                .as_ref()
                .is_some_and(|heard| heard.at_ms + FRESH_MS > boottime_ms());
            let reachable = fresh && !inner.silent.contains_key(&peer.name);
            let unheard = NodeStatus {
                name: peer.name.clone(),
                id,
                role: Role::Unspecified.into(),
                ..NodeStatus::default()
            };
            let status = known.map_or(unheard, |heard| heard.status);
            PeerView {
                status: Some(status),
                last_heard_unix_ms: heard,
                reachable,
                address: peer.address.to_string(),
                removed: peer.removed,
            }
        };
        nodes.push(view);
    }
    drop(inner);
    let of = |view: &PeerView| view.status.clone().unwrap_or_default();
    let here = || nodes.iter().filter(|view| view.reachable).map(of);
    // A node that hasn't heard yet of a later leader may still call itself active; its lease has run out.
    let led = here().filter(|status| !status.leader.is_empty());
    let newest = led.map(|status| status.term).max().unwrap_or(0);
    let active = here().find(|status| matches!(status.role(), Role::Active | Role::Handover) && status.term >= newest);
    let vip = shared
        .config
        .vip
        .as_ref()
        .map(|vip| format!("{}/{}", vip.address, vip.prefix))
        .unwrap_or_default();
    ClusterStatus {
        cluster: shared.config.cluster.name.clone(),
        cluster_id: shared.config.cluster.id.clone(),
        term: own.term,
        why: why(&nodes, active.as_ref()),
        active: active.map(|status| status.name).unwrap_or_default(),
        vip,
        nodes,
        asked: own.name,
        needs_agent: shared.needs_agent(),
    }
}

/// Why this node is active, or why none is.
fn why(nodes: &[PeerView], active: Option<&NodeStatus>) -> String {
    let here = nodes.iter().filter(|view| view.reachable).count();
    match active {
        Some(active) => {
            let how = match &active.last_failover {
                Some(failover) if failover.reason.starts_with("planned") => format!("took over as {}", failover.reason),
                Some(failover) if !failover.from.is_empty() => format!("took over, for {},", failover.reason),
                _ => "was elected with the most complete log".into(),
            };
            format!("{} {how} in term {} and holds the lease", active.name, active.term)
        }
        None if here < 2 => "no majority of the three nodes is reachable from here".into(),
        None => {
            let busy = nodes
                .iter()
                .filter(|view| view.reachable)
                .filter_map(|view| view.status.as_ref());
            let promoting = busy.clone().find(|status| status.role() == Role::Promoting);
            match promoting {
                Some(status) => format!("{} was elected and is bringing the file system up", status.name),
                None => "an election is under way or no reachable node is able to serve".into(),
            }
        }
    }
}
