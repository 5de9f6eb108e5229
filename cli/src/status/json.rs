//! Status for programs. Keys are only ever added; a number that isn't known is null.

use holdfast_proto::control::{ClusterStatus, Failover, Notice, UnitStatus};
use serde_json::{Value, json};

use super::view::{Cluster, Node, phases};
use crate::words;

pub fn json(status: &ClusterStatus) -> Value {
    let cluster = Cluster::of(status);
    json!({
        "cluster": status.cluster,
        "cluster_id": status.cluster_id,
        "asked": status.asked,
        "term": status.term,
        "active": cluster.active().map(|node| node.name),
        "why": status.why,
        "vip": (!status.vip.is_empty()).then_some(&status.vip),
        "vip_holders": cluster.vip_holders(),
        "nodes": cluster.nodes.iter().map(node).collect::<Vec<_>>(),
        "last_failover": cluster.last_failover().map(|(to, seen)| failover(to.name, seen)),
    })
}

fn node(node: &Node<'_>) -> Value {
    let status = &node.status;
    // What an agent said last holds no longer when nobody can ask it.
    let agent = node.agent().filter(|_| node.reachable);
    // Indices of a node that was never heard aren't 0: nobody knows them.
    let heard = node.reachable || node.last_heard_unix_ms > 0;
    let known = |number: u64| heard.then_some(number);
    let mut document = json!({
        "name": node.name,
        "id": status.id,
        "address": node.address,
        "role": node.role_word(),
        "last_known_role": heard.then(|| words::role(node.last_role())),
        "reachable": node.reachable,
        "last_heard_unix_ms": (node.last_heard_unix_ms > 0).then_some(node.last_heard_unix_ms),
        "term": known(status.term),
        "leader": (!status.leader.is_empty()).then_some(&status.leader),
        "sequenced": known(status.sequenced),
        "durable": known(status.durable),
        "committed": known(status.committed),
        "applied": known(status.applied),
        "checkpointed": known(status.checkpointed),
        "first_index": known(status.first_index),
        "lag_bytes": known(status.lag_bytes),
        "lag_ms": known(status.lag_ms),
        "lag_left_ms": known(status.lag_left_ms),
        "lag_still_ms": known(status.lag_still_ms),
        "lease_left_ms": if node.reachable { status.lease_left_ms } else { 0 },
        "forgetful": status.forgetful,
    });
    let rest = json!({
        "vip": node.holds_vip(),
        "mounted": node.reachable && status.mounted,
        "writable": node.reachable && status.writable,
        "mount_path": status.mount_path,
        "copy": status.copy.as_ref().filter(|_| node.reachable).map(|copy| json!({
            "source": copy.source,
            "keys": copy.keys,
            "keys_total": copy.keys_total,
            "bytes": copy.bytes,
            "left_ms": (copy.left_ms > 0).then_some(copy.left_ms),
        })),
        "scrub": status.scrub.as_ref().map(|scrub| json!({
            "running": scrub.running,
            "began_unix_ms": (scrub.began_unix_ms > 0).then_some(scrub.began_unix_ms),
            "ended_unix_ms": (scrub.ended_unix_ms > 0).then_some(scrub.ended_unix_ms),
            "next_unix_ms": (scrub.next_unix_ms > 0).then_some(scrub.next_unix_ms),
            "keys": scrub.keys,
            "keys_total": scrub.keys_total,
            "bytes": scrub.bytes,
            "found": scrub.found,
            "mended": scrub.mended,
            "metadata_differ": scrub.metadata_differ,
            "unjudged": scrub.unjudged,
            "last": scrub.last.as_ref().map(|last| json!({
                "keys": last.keys,
                "bytes": last.bytes,
                "found": last.found,
                "mended": last.mended,
                "metadata_differ": last.metadata_differ,
                "unjudged": last.unjudged,
            })),
            "trouble": (!scrub.trouble.is_empty()).then_some(&scrub.trouble),
        })),
        "agent_connected": agent.is_some(),
        "agent_phase": agent.map(|agent| &agent.phase),
        "eligible": agent.map(|agent| agent.eligible),
        "units": agent.map_or_else(Vec::new, |agent| agent.units.iter().map(unit).collect()),
        "could_take_over": node.could_take_over(),
        "cannot_because": cannot_because(node),
        "notices": notices(node),
        "last_failover": node.failover().map(|seen| failover(node.name, seen)),
        "uptime_ms": status.uptime_ms,
        "version": status.version,
        "store_free_bytes": status.store_free_bytes,
        "store_total_bytes": status.store_total_bytes,
        "resident_bytes": status.resident_bytes,
        "unix_ms": status.unix_ms,
    });
    if let (Value::Object(document), Value::Object(rest)) = (&mut document, rest) {
        document.extend(rest);
    }
    document
}

fn cannot_because(node: &Node<'_>) -> Vec<String> {
    if node.reachable {
        node.status.cannot_because.clone()
    } else {
        vec!["it can't be reached".to_owned()]
    }
}

fn unit(unit: &UnitStatus) -> Value {
    json!({ "name": unit.name, "state": unit.state, "detail": unit.detail, "since_unix_ms": unit.since_unix_ms })
}

fn notices(node: &Node<'_>) -> Vec<Value> {
    let agents = node.agent().map(|agent| agent.notices.as_slice()).unwrap_or_default();
    let notice = |Notice {
                      what,
                      advice,
                      since_unix_ms,
                      serious,
                  }: &Notice| {
        let since = (*since_unix_ms > 0).then_some(since_unix_ms);
        json!({ "what": what, "advice": advice, "since_unix_ms": since, "serious": serious })
    };
    node.status.notices.iter().chain(agents).map(notice).collect()
}

fn failover(to: &str, failover: &Failover) -> Value {
    let mut document = json!({
        "to": to,
        "from": (!failover.from.is_empty()).then_some(&failover.from),
        "reason": failover.reason,
        "began_unix_ms": failover.began_unix_ms,
    });
    for (phase, ms) in phases(failover) {
        document[format!("{phase}_ms")] = ms.into();
    }
    document
}
