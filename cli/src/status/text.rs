//! Status for people: a compact table, then sentences.

use holdfast_proto::control::{ClusterStatus, Role, Scrub};

use super::explain::{self, reached};
use super::table::table;
use super::view::{Cluster, Node, phases};
use crate::clock::Clock;
use crate::words;

pub fn text(status: &ClusterStatus, clock: &Clock) -> String {
    let cluster = Cluster::of(status);
    [
        head(&cluster),
        nodes(&cluster),
        readiness(&cluster, clock),
        last_failover(&cluster, clock),
        scrubs(&cluster, clock),
        attention(&cluster, clock),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join("\n")
}

fn head(cluster: &Cluster<'_>) -> String {
    let status = cluster.status;
    let active = match cluster.active() {
        Some(node) => format!("{} is active", node.name),
        None if status.active.is_empty() => "no node is active".to_owned(),
        None => format!("{} was active and isn't now, or can't be reached", status.active),
    };
    let why = if status.why.is_empty() {
        String::new()
    } else {
        format!(": {}", status.why)
    };
    let vip = match (status.vip.as_str(), cluster.vip_holders().as_slice()) {
        ("", _) => "no VIP is configured".to_owned(),
        (vip, []) => format!("VIP {vip} is on no node that can be reached"),
        (vip, holders) => format!("VIP {vip} on {}", holders.join(" and ")),
    };
    format!(
        "Cluster {}, term {}, as {} sees it\n{active}{why}\n{vip}\n",
        status.cluster, status.term, status.asked
    )
}

fn nodes(cluster: &Cluster<'_>) -> String {
    let head = [
        "NODE",
        "ADDRESS",
        "ROLE",
        "TERM",
        "COMMITTED",
        "DURABLE",
        "APPLIED",
        "BEHIND",
        "VIP",
        "MOUNT",
        "PBX",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(cluster.nodes.iter().map(row));
    table(&rows, &[3, 4, 5, 6])
}

fn row(node: &Node<'_>) -> Vec<String> {
    let status = &node.status;
    let heard = node.reachable || node.last_heard_unix_ms > 0;
    let number = |number: u64| if heard { number.to_string() } else { "-".to_owned() };
    // What is only last known isn't shown as if it were so.
    let now = |text: String| if node.reachable { text } else { "-".to_owned() };
    let behind = match node.role {
        Role::Active | Role::Handover => "-".to_owned(),
        _ => now(status.copy.as_ref().map_or_else(
            || words::behind(status.lag_bytes, status.lag_ms),
            |copy| {
                let share = copy.keys.saturating_mul(100) / copy.keys_total.max(copy.keys).max(1);
                format!("copy {share} %")
            },
        )),
    };
    let mount = match (status.mounted, status.writable) {
        (_, true) => "serving",
        (true, false) => "mounted",
        (false, false) => "no",
    };
    vec![
        node.name.to_owned(),
        node.address.to_owned(),
        node.role_word().to_owned(),
        number(status.term),
        number(status.committed),
        number(status.durable),
        number(status.applied),
        behind,
        now(if node.holds_vip() {
            "yes".to_owned()
        } else {
            "no".to_owned()
        }),
        now(mount.to_owned()),
        now(units(node)),
    ]
}

/// `healthy`, `stopped`, or each unit with its state where they differ.
fn units(node: &Node<'_>) -> String {
    let Some(agent) = node.agent() else {
        return "no vip-agent".to_owned();
    };
    let [first, others @ ..] = agent.units.as_slice() else {
        return "none".to_owned();
    };
    if others.iter().all(|unit| unit.state == first.state) {
        return first.state.clone();
    }
    agent
        .units
        .iter()
        .map(|unit| format!("{} {}", unit.name, unit.state))
        .collect::<Vec<_>>()
        .join(", ")
}

fn readiness(cluster: &Cluster<'_>, clock: &Clock) -> String {
    let active = cluster.active().map(|node| node.name);
    let mut text = String::from("Could take over\n");
    for node in cluster.nodes.iter().filter(|node| Some(node.name) != active) {
        text += &format!("  {}: {}\n", node.name, could_take_over(node, clock));
    }
    text
}

fn could_take_over(node: &Node<'_>, clock: &Clock) -> String {
    if node.removed {
        return "no: it was taken out of the cluster".to_owned();
    }
    if !node.reachable {
        return format!("no: {}", reached(node, clock));
    }
    if node.could_take_over() {
        return "yes".to_owned();
    }
    match node.status.cannot_because.as_slice() {
        [] => format!("no, because it is {}", words::role(node.role)),
        reasons => format!("no, because {}", reasons.join("; ")),
    }
}

fn last_failover(cluster: &Cluster<'_>, clock: &Clock) -> String {
    let Some((node, failover)) = cluster.last_failover() else {
        return String::new();
    };
    let from = if failover.from.is_empty() {
        String::new()
    } else {
        format!(" from {}", failover.from)
    };
    let reason = if failover.reason.is_empty() {
        String::new()
    } else {
        format!(" ({})", failover.reason)
    };
    // As they came: the file system doesn't wait for the PBX to be healthy.
    let mut passed: Vec<_> = phases(failover)
        .into_iter()
        .filter_map(|(phase, ms)| Some((ms?, phase)))
        .collect();
    passed.sort_by_key(|(ms, _)| *ms);
    let passed: Vec<String> = passed
        .into_iter()
        .map(|(ms, phase)| format!("{} {}", phase_for_people(phase), words::seconds(ms)))
        .collect();
    let passed = if passed.is_empty() {
        "no phase is over yet".to_owned()
    } else {
        passed.join(", ")
    };
    format!(
        "Last change{from} to {} at {}{reason}\n  {passed}\n",
        node.name,
        clock.at(failover.began_unix_ms)
    )
}

fn phase_for_people(phase: &str) -> &str {
    match phase {
        "vip" => "VIP",
        "units" => "PBX healthy",
        "first_write" => "first write",
        other => other,
    }
}

/// One line: what a reading of all that is stored has found, of each node that can be asked.
fn scrubs(cluster: &Cluster<'_>, clock: &Clock) -> String {
    let known = cluster.nodes.iter().filter(|node| node.reachable);
    let scrubs: Vec<String> = known
        .filter_map(|node| Some(format!("{} {}", node.name, scrub(node.status.scrub.as_ref()?, clock))))
        .collect();
    if scrubs.is_empty() {
        return String::new();
    }
    format!("Data read and verified: {}\n", scrubs.join("; "))
}

fn scrub_found(found: u64, mended: u64, metadata_differ: bool, unjudged: u64) -> String {
    let blocks = match found {
        0 if unjudged > 0 => format!("{} not judged", words::count(unjudged, "block")),
        0 => "nothing rotten".to_owned(),
        found => format!("{} rotten, {mended} mended", words::count(found, "block")),
    };
    if metadata_differ {
        return format!("{blocks}, metadata not as applied");
    }
    blocks
}

fn scrub(scrub: &Scrub, clock: &Clock) -> String {
    let found = scrub_found(scrub.found, scrub.mended, scrub.metadata_differ, scrub.unjudged);
    if scrub.running {
        let share = scrub.keys.saturating_mul(100) / scrub.keys_total.max(scrub.keys).max(1);
        let before = scrub.last.as_ref().map_or_else(String::new, |last| {
            let found = scrub_found(last.found, last.mended, last.metadata_differ, last.unjudged);
            format!(" (before at {}, {found})", clock.at(scrub.ended_unix_ms))
        });
        return format!("{share} %, {found} so far{before}");
    }
    match scrub.ended_unix_ms {
        0 if scrub.next_unix_ms == 0 => "not yet".to_owned(),
        0 => format!("not yet, begins at {}", clock.at(scrub.next_unix_ms)),
        ended => format!("at {}, {found}", clock.at(ended)),
    }
}

fn attention(cluster: &Cluster<'_>, clock: &Clock) -> String {
    let findings = explain::findings(cluster, clock);
    if findings.is_empty() {
        return "Nothing needs attention.\n".to_owned();
    }
    let mut text = String::from("Attention\n");
    for finding in findings {
        let mark = if finding.serious { '!' } else { '-' };
        text += &format!("  {mark} {}\n    {}\n", finding.what, finding.advice);
    }
    text
}
