//! Every abnormal state in a sentence, and what to do about it in another.

use holdfast_proto::control::{Notice, Role};

use super::view::{Cluster, Node};
use crate::clock::Clock;
use crate::words;

pub(super) struct Finding {
    pub(super) what: String,
    pub(super) advice: String,
    /// Someone should act.
    pub(super) serious: bool,
}

/// The serious ones first; otherwise the cluster's before the nodes', in their order.
pub(super) fn findings(cluster: &Cluster<'_>, clock: &Clock) -> Vec<Finding> {
    let mut findings = Vec::new();
    of_cluster(cluster, &mut findings);
    for node in &cluster.nodes {
        if node.reachable {
            of_role(node, &mut findings);
            of_duties(cluster, node, &mut findings);
            of_units(node, &mut findings);
            of_notices(node, clock, &mut findings);
        } else if node.removed {
            findings.push(taken_out(node));
        } else {
            findings.push(out_of_reach(node, clock));
        }
    }
    findings.sort_by_key(|finding| !finding.serious);
    findings
}

/// `not reached since 12:03:07 (last known: standby, 0 B behind)`.
pub(super) fn reached(node: &Node<'_>, clock: &Clock) -> String {
    if node.last_heard_unix_ms == 0 {
        return "never reached since this daemon started".to_owned();
    }
    let behind = match node.last_role() {
        Role::Active | Role::Handover => String::new(),
        _ => format!(", {} behind", words::bytes(node.status.lag_bytes)),
    };
    let since = clock.at(node.last_heard_unix_ms);
    format!(
        "not reached since {since} (last known: {}{behind})",
        words::role(node.last_role())
    )
}

fn serious(what: String, advice: impl Into<String>) -> Finding {
    Finding {
        what,
        advice: advice.into(),
        serious: true,
    }
}

fn passing(what: String, advice: impl Into<String>) -> Finding {
    Finding {
        what,
        advice: advice.into(),
        serious: false,
    }
}

fn of_cluster(cluster: &Cluster<'_>, findings: &mut Vec<Finding>) {
    let reachable = cluster.reachable();
    if reachable < 2 {
        let what = format!(
            "{} sees no majority: of three nodes it reaches {reachable}, itself included",
            cluster.status.asked
        );
        findings.push(serious(
            what,
            "Nothing is accepted here until a second node is back. Start it, or mend the network.",
        ));
    } else if cluster.active().is_none() {
        let what = "No node is active, so nobody serves the PBX's files".to_owned();
        findings.push(serious(
            what,
            "An election takes about two seconds. If this stays, see the nodes below.",
        ));
    }
    let actives: Vec<&str> = cluster
        .nodes
        .iter()
        .filter(|n| n.role == Role::Active)
        .map(|n| n.name)
        .collect();
    if actives.len() > 1 {
        let what = format!("{} each say that they are active", actives.join(" and "));
        let advice = "One answer is older than the other: ask again. If it stays, cut the one with the lower term off.";
        findings.push(serious(what, advice));
    }
    let holders = cluster.vip_holders();
    if holders.len() > 1 {
        let what = format!("{} each say that they hold the VIP", holders.join(" and "));
        let advice =
            "One answer is older than the other: ask again. If it stays, stop vip-agent where the role isn't active.";
        findings.push(serious(what, advice));
    }
}

fn taken_out(node: &Node<'_>) -> Finding {
    passing(
        format!(
            "{} was taken out of the cluster: two nodes are left, and both are needed",
            node.name
        ),
        format!(
            "`holdfast node replace {}` on one of them takes a machine in for it.",
            node.name
        ),
    )
}

fn out_of_reach(node: &Node<'_>, clock: &Clock) -> Finding {
    let what = format!("{}: {}", node.name, reached(node, clock));
    let advice = format!(
        "While the other two are up, the service goes on. If the machine runs, `systemctl start holdfast` on it; else \
         start it, or mend its network ({}). It catches up by itself.",
        node.address
    );
    serious(what, advice)
}

fn catching_up(node: &Node<'_>) -> Finding {
    let (name, status) = (node.name, &node.status);
    let behind = words::behind(status.lag_bytes, status.lag_ms);
    if status.lag_still_ms > 0 {
        return serious(
            format!(
                "{name} is catching up: {behind} behind, and for {} that hasn't become less",
                words::seconds(status.lag_still_ms)
            ),
            format!(
                "It is tried again all the time. Either nothing reaches it, or more is written than its disk and network take: look at \
                 both, and at `journalctl -u holdfast` on {name} and on the active node."
            ),
        );
    }
    let left = match status.lag_left_ms {
        0 => String::new(),
        ms => format!(", about {} left", words::seconds(ms)),
    };
    passing(
        format!("{name} is catching up: {behind} behind{left}"),
        "It goes on by itself. If it falls further behind, look at its disk and network.",
    )
}

fn of_role(node: &Node<'_>, findings: &mut Vec<Finding>) {
    let name = node.name;
    let status = &node.status;
    findings.extend(match node.role {
        Role::Unspecified | Role::Starting => Some(passing(
            format!("{name} is starting: it recovers its own store"),
            format!("It joins by itself. If this lasts, see `journalctl -u holdfast` on {name}."),
        )),
        Role::CatchingUp => Some(catching_up(node)),
        Role::Promoting => Some(passing(
            format!("{name} won the election and is taking over"),
            format!("It serves in a moment. If this lasts, see `journalctl -u holdfast -u vip-agent` on {name}."),
        )),
        Role::Suspended => Some(serious(
            format!("{name} was active and lost its lease, for no majority answers it: the VIP is dropped, requests wait"),
            "If the others answer before the grace ends, it goes on with the same calls; otherwise its PBX is killed. \
             Look at the network between the nodes.",
        )),
        Role::Lost => Some(serious(
            format!("{name} lost the active role: everything that used it there is being killed"),
            format!("It becomes a standby by itself within seconds. If it doesn't, reboot {name}."),
        )),
        Role::Handover => Some(passing(
            format!("{name} is giving the active role away, as was asked"),
            "Wait for it: the PBX is stopped in order first.",
        )),
        Role::Candidate => Some(serious(
            format!("{name} knows no leader"),
            format!("It needs one other node. Look at the network between the nodes and at `journalctl -u holdfast` on {name}."),
        )),
        Role::Halted => Some(serious(
            format!("{name} stopped itself to keep its data safe"),
            format!("The reason is given with its notices and in `journalctl -u holdfast` on {name}. Mend it, then restart."),
        )),
        Role::Standby | Role::Active | Role::Down => None,
    });
    if status.forgetful {
        findings.push(passing(
            format!(
                "{name} ended without a clean stop and may have lost entries that it had received: it doesn't vote yet"
            ),
            "It catches up with the leader by itself and votes again. With no leader it waits for all three, or for ten seconds with one other: then the durable logs decide.",
        ));
    }
}

fn of_duties(cluster: &Cluster<'_>, node: &Node<'_>, findings: &mut Vec<Finding>) {
    let (name, status) = (node.name, &node.status);
    let active = node.role == Role::Active;
    if active && !status.writable {
        let what = format!("{name} is active and its file system doesn't serve yet");
        findings.push(serious(
            what,
            format!("If this lasts, see `journalctl -u holdfast` on {name}."),
        ));
    }
    let should_be_mounted = matches!(
        node.role,
        Role::Active | Role::Standby | Role::CatchingUp | Role::Handover
    );
    if should_be_mounted && !status.mounted {
        let what = format!("{} isn't mounted on {name}", status.mount_path);
        let advice = format!(
            "Something could write underneath. See `journalctl -u holdfast` on {name}, then restart holdfast there."
        );
        findings.push(serious(what, advice));
    }
    let Some(agent) = node.agent() else {
        // While its store is copied it has no use for one.
        if !cluster.status.needs_agent || status.copy.is_some() {
            return;
        }
        let what = format!("vip-agent isn't connected on {name}: nobody looks after the VIP and the PBX there");
        findings.push(serious(
            what,
            format!("`systemctl start vip-agent` on {name}; if it fails, `journalctl -u vip-agent`."),
        ));
        return;
    };
    if active && !cluster.status.vip.is_empty() && !agent.vip_held {
        let what = format!("{name} is active and doesn't hold the VIP {}", cluster.status.vip);
        let phase = if agent.phase.is_empty() {
            String::new()
        } else {
            format!("Its agent: {}. ", agent.phase)
        };
        findings.push(serious(
            what,
            format!("{phase}If this lasts, see `journalctl -u vip-agent` on {name}."),
        ));
    }
    if agent.vip_held
        && matches!(
            node.role,
            Role::Standby | Role::CatchingUp | Role::Candidate | Role::Halted
        )
    {
        let what = format!("{name} holds the VIP and is {}", words::role(node.role));
        let advice = "The address expires by itself within two seconds. If it stays, remove it with `ip address del`.";
        findings.push(serious(what, advice));
    }
    if !agent.eligible {
        let why = agent.not_eligible_because.join("; ");
        let why = if why.is_empty() {
            "its agent doesn't say why".to_owned()
        } else {
            why
        };
        let has_a_role = matches!(
            node.role,
            Role::Promoting | Role::Active | Role::Suspended | Role::Handover
        );
        let (what, advice) = if has_a_role {
            (
                format!(
                    "{name} is {}, but would not be chosen now: {why}",
                    words::role(node.role)
                ),
                "Mend what is named: until then the others come first.",
            )
        } else {
            (
                format!("{name} may not become active: {why}"),
                "It replicates all the same. Mend what is named, and it is eligible again by itself.",
            )
        };
        findings.push(serious(what, advice));
    }
}

fn of_units(node: &Node<'_>, findings: &mut Vec<Finding>) {
    let (name, Some(agent)) = (node.name, node.agent()) else {
        return;
    };
    for unit in &agent.units {
        let detail = if unit.detail.is_empty() {
            String::new()
        } else {
            format!(": {}", unit.detail)
        };
        let says = format!("{} on {name} is {}{detail}", unit.name, unit.state);
        let running = matches!(unit.state.as_str(), "healthy" | "unhealthy" | "starting");
        if matches!(unit.state.as_str(), "unhealthy" | "failed") {
            findings.push(serious(
                says,
                format!("See the unit's own log and `journalctl -u vip-agent` on {name}."),
            ));
        } else if matches!(unit.state.as_str(), "starting" | "stopping") {
            findings.push(passing(says, "Wait for it; its timeout is in the configuration."));
        } else if node.role == Role::Active && unit.state == "stopped" {
            findings.push(serious(
                says,
                format!("It should run here. See `journalctl -u vip-agent` on {name}."),
            ));
        } else if running && matches!(node.role, Role::Standby | Role::CatchingUp) {
            let advice =
                "A standby's PBX must not run: vip-agent stops it. See what starts it, a restart policy perhaps.";
            findings.push(serious(says, advice));
        }
    }
}

fn of_notices(node: &Node<'_>, clock: &Clock, findings: &mut Vec<Finding>) {
    let agents = node.agent().map(|agent| agent.notices.as_slice()).unwrap_or_default();
    for Notice {
        what,
        advice,
        since_unix_ms,
        serious,
    } in node.status.notices.iter().chain(agents)
    {
        let since = if *since_unix_ms == 0 {
            String::new()
        } else {
            format!(" (since {})", clock.at(*since_unix_ms))
        };
        let what = format!("{}: {}{since}", node.name, what.trim_end_matches('.'));
        findings.push(Finding {
            what,
            advice: advice.clone(),
            serious: *serious,
        });
    }
}
