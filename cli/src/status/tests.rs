//! What is shown for a healthy cluster, and for each thing that can be wrong with one.

use holdfast_proto::control::{
    AgentReport, ClusterStatus, CopyProgress, Failover, NodeStatus, Notice, PeerView, Role, Scrub, ScrubResult,
    UnitStatus,
};

use super::{Clock, json, text};

const CLOCK: Clock = Clock {
    now_unix_ms: 1_700_000_000_000,
    offset_s: 0,
};

fn agent(vip_held: bool, state: &str) -> AgentReport {
    let unit = UnitStatus {
        name: "db".into(),
        state: state.into(),
        ..UnitStatus::default()
    };
    AgentReport {
        vip_held,
        eligible: true,
        units: vec![unit],
        ..AgentReport::default()
    }
}

fn node(id: u64, role: Role) -> PeerView {
    let active = role == Role::Active;
    let status = NodeStatus {
        name: format!("n{id}"),
        id,
        role: role.into(),
        term: 5,
        leader: "n1".into(),
        sequenced: 1042,
        durable: 1042,
        committed: 1041,
        applied: 1040,
        mounted: true,
        writable: active,
        mount_path: "/var/lib/portsip".into(),
        agent: Some(agent(active, if active { "healthy" } else { "stopped" })),
        could_take_over: role == Role::Standby,
        ..NodeStatus::default()
    };
    let last_heard_unix_ms = CLOCK.now_unix_ms;
    PeerView {
        status: Some(status),
        last_heard_unix_ms,
        reachable: true,
        address: format!("10.0.0.13{id}"),
        removed: false,
    }
}

fn healthy() -> ClusterStatus {
    let mut nodes = vec![node(1, Role::Active), node(2, Role::Standby), node(3, Role::Standby)];
    nodes[0].status.as_mut().unwrap().last_failover = Some(Failover {
        began_unix_ms: CLOCK.now_unix_ms - 60_000,
        detected_ms: 610,
        lease_ms: 950,
        mounted_ms: 1100,
        vip_ms: 1702,
        units_ms: 2900,
        first_write_ms: 0,
        from: "n3".into(),
        reason: "n3 not heard".into(),
    });
    ClusterStatus {
        needs_agent: true,
        cluster: "pbx".into(),
        cluster_id: "3f0d".into(),
        term: 5,
        active: "n1".into(),
        why: "elected in term 5".into(),
        vip: "10.0.0.130/24".into(),
        nodes,
        asked: "n2".into(),
    }
}

/// A healthy cluster of which one node is changed.
fn with(index: usize, change: impl FnOnce(&mut NodeStatus)) -> ClusterStatus {
    let mut cluster = healthy();
    change(cluster.nodes[index].status.as_mut().unwrap());
    cluster
}

fn unreachable(index: usize) -> ClusterStatus {
    let mut cluster = with(index, |status| status.role = Role::Down.into());
    cluster.nodes[index].reachable = false;
    cluster.nodes[index].last_heard_unix_ms -= 33_000;
    cluster
}

fn shows(cluster: &ClusterStatus, parts: &[&str]) -> String {
    let text = text(cluster, &CLOCK);
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert!(!text.contains("unknown"), "{text}");
    text
}

#[test]
fn it_says_when_each_node_was_verified() {
    let mut status = healthy();
    let scrub = |found| Scrub {
        began_unix_ms: CLOCK.now_unix_ms - 2000,
        ended_unix_ms: CLOCK.now_unix_ms - 1000,
        found,
        mended: found,
        ..Scrub::default()
    };
    for (node, found) in status.nodes.iter_mut().zip([0, 2, 0]) {
        node.status.as_mut().unwrap().scrub = Some(scrub(found));
    }
    status.nodes[2].status.as_mut().unwrap().scrub = Some(Scrub {
        running: true,
        keys: 1,
        keys_total: 4,
        last: Some(ScrubResult {
            found: 5,
            mended: 5,
            metadata_differ: true,
            ..ScrubResult::default()
        }),
        ..Scrub::default()
    });
    let text = text(&status, &CLOCK);
    let line = text
        .lines()
        .find(|line| line.starts_with("Data read and verified"))
        .unwrap();
    for part in [
        "nothing rotten;",
        "2 blocks rotten, 2 mended",
        "n3 25 %, nothing rotten so far (before at ",
        ", 5 blocks rotten, 5 mended, metadata not as applied)",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(json(&status)["nodes"][1]["scrub"]["mended"], 2);
}

#[test]
fn a_healthy_cluster() {
    let text = shows(
        &healthy(),
        &[
            "Cluster pbx, term 5, as n2 sees it",
            "n1 is active: elected in term 5",
            "VIP 10.0.0.130/24 on n1",
            "n2: yes",
            "n3: yes",
            "Last change from n3 to n1 at 22:12:20 (n3 not heard)",
            "detected 0.61 s, lease 0.95 s, mounted 1.10 s, VIP 1.70 s, PBX healthy 2.90 s\n",
            "Nothing needs attention.",
        ],
    );
    let row = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}  ")))
            .unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("NODE").len(), 11);
    let n1 = [
        "n1",
        "10.0.0.131",
        "active",
        "5",
        "1041",
        "1042",
        "1040",
        "-",
        "yes",
        "serving",
        "healthy",
    ];
    assert_eq!(row("n1"), n1);
    let n2 = [
        "n2",
        "10.0.0.132",
        "standby",
        "5",
        "1041",
        "1042",
        "1040",
        "0",
        "B",
        "no",
        "mounted",
        "stopped",
    ];
    assert_eq!(row("n2"), n2);
}

#[test]
fn a_node_out_of_reach() {
    let last = "not reached since 22:12:47 (last known: standby, 0 B behind)";
    let text = shows(
        &unreachable(2),
        &["down", &format!("n3: no: {last}"), "systemctl start holdfast"],
    );
    assert!(text.contains(&format!("! n3: {last}")), "{text}");
    let mut never = unreachable(2);
    never.nodes[2].last_heard_unix_ms = 0;
    shows(&never, &["n3: never reached since this daemon started"]);
    shows(
        &unreachable(0),
        &[
            "n1 was active and isn't now, or can't be reached",
            "(last known: active)",
            "no node that can",
        ],
    );
}

#[test]
fn no_majority() {
    let mut cluster = unreachable(0);
    cluster.nodes[2].reachable = false;
    cluster.active.clear();
    shows(
        &cluster,
        &[
            "no node is active",
            "n2 sees no majority",
            "it reaches 1",
            "Start it, or mend the network",
        ],
    );
}

#[test]
fn every_role_is_explained() {
    let cases = [
        (Role::Starting, "recovers its own store"),
        (Role::CatchingUp, "is catching up"),
        (Role::Promoting, "is taking over"),
        (Role::Suspended, "the VIP is dropped, requests wait"),
        (Role::Lost, "is being killed"),
        (Role::Handover, "giving the active role away"),
        (Role::Candidate, "knows no leader"),
        (Role::Halted, "stopped itself"),
        (Role::Unspecified, "is starting"),
    ];
    for (role, sentence) in cases {
        let cluster = with(1, |status| {
            status.role = role.into();
            status.could_take_over = false;
        });
        shows(&cluster, &["n2 ", sentence, "n2: no, because it is "]);
    }
}

#[test]
fn catching_up_says_how_long_and_whether_it_stands_still() {
    let behind = |left_ms, still_ms| {
        with(1, |status| {
            status.role = Role::CatchingUp.into();
            (status.lag_bytes, status.lag_ms) = (300 << 20, 9000);
            (status.lag_left_ms, status.lag_still_ms) = (left_ms, still_ms);
        })
    };
    shows(
        &behind(2500, 0),
        &["- n2 is catching up: 300.0 MiB, 9.00 s behind, about 2.50 s left"],
    );
    shows(
        &behind(0, 7000),
        &["! n2 is catching up: 300.0 MiB, 9.00 s behind, and for 7.00 s that hasn't become less"],
    );
}

#[test]
fn duties_not_done() {
    shows(
        &with(0, |n| n.writable = false),
        &["n1 is active and its file system doesn't serve yet"],
    );
    shows(
        &with(1, |n| n.mounted = false),
        &["/var/lib/portsip isn't mounted on n2"],
    );
    shows(
        &with(1, |n| n.agent = None),
        &["vip-agent isn't connected on n2", "systemctl start vip-agent"],
    );
    let copied = with(1, |n| {
        (n.agent, n.copy, n.role) = (None, Some(CopyProgress::default()), Role::CatchingUp.into());
    });
    let shown = text(&copied, &CLOCK);
    assert!(!shown.contains("vip-agent isn't connected"), "{shown}");
    shows(
        &with(0, |n| n.agent = Some(agent(false, "healthy"))),
        &["n1 is active and doesn't hold the VIP"],
    );
    let both = with(1, |n| n.agent = Some(agent(true, "stopped")));
    shows(
        &both,
        &[
            "n1 and n2 each say that they hold the VIP",
            "n2 holds the VIP and is standby",
        ],
    );
    shows(
        &with(1, |n| n.role = Role::Active.into()),
        &["n1 and n2 each say that they are active"],
    );
    shows(
        &with(1, |n| n.forgetful = true),
        &["n2 ended without a clean stop", "doesn't vote yet"],
    );
    let ill = with(1, |n| {
        let agent = n.agent.as_mut().unwrap();
        agent.eligible = false;
        agent.not_eligible_because = vec!["no image of db".into()];
    });
    shows(&ill, &["n2 may not become active: no image of db"]);
}

#[test]
fn units_not_as_they_should_be() {
    let state = |index, state: &str| with(index, |n| n.agent.as_mut().unwrap().units[0].state = state.into());
    shows(&state(0, "unhealthy"), &["db on n1 is unhealthy", "journalctl"]);
    shows(&state(0, "stopped"), &["db on n1 is stopped", "should run here"]);
    shows(
        &state(1, "healthy"),
        &["db on n2 is healthy", "A standby's PBX must not run"],
    );
    let mixed = with(0, |n| {
        let unit = UnitStatus {
            name: "pbx".into(),
            state: "starting".into(),
            ..UnitStatus::default()
        };
        n.agent.as_mut().unwrap().units.push(unit);
    });
    shows(&mixed, &["db healthy, pbx starting", "- pbx on n1 is starting"]);
}

#[test]
fn notices_and_reasons() {
    let cluster = with(1, |status| {
        status.could_take_over = false;
        status.cannot_because = vec!["its disk is full".into(), "port 5060 is taken".into()];
        let (what, advice) = ("the store is below its reserve.".into(), "Make room.".into());
        status.notices = vec![Notice {
            what,
            advice,
            since_unix_ms: CLOCK.now_unix_ms - 90_000_000,
            serious: true,
        }];
    });
    shows(
        &cluster,
        &[
            "n2: no, because its disk is full; port 5060 is taken",
            "! n2: the store is below its reserve (since 2023-11-13 21:13:20)\n    Make room.",
        ],
    );
}

#[test]
fn json_of_a_node_that_is_gone_claims_nothing_of_now() {
    let mut cluster = healthy();
    cluster.nodes[0].reachable = false;
    let n1 = &json(&cluster)["nodes"][0];
    assert_eq!(
        (&n1["units"], &n1["lease_left_ms"]),
        (&serde_json::json!([]), &0.into())
    );
    assert!(n1["agent_phase"].is_null() && n1["eligible"].is_null());
    assert_eq!((&n1["vip"], &n1["writable"]), (&false.into(), &false.into()));
}

#[test]
fn json_has_its_keys() {
    let document = json(&healthy());
    for key in [
        "cluster",
        "cluster_id",
        "asked",
        "term",
        "active",
        "why",
        "vip",
        "nodes",
        "last_failover",
    ] {
        assert!(!document[key].is_null(), "{key}");
    }
    assert_eq!(document["nodes"].as_array().unwrap().len(), 3);
    let keys = [
        "name",
        "id",
        "address",
        "role",
        "reachable",
        "committed",
        "durable",
        "applied",
        "sequenced",
        "lag_bytes",
        "lag_ms",
        "lag_left_ms",
        "lag_still_ms",
        "vip",
        "mounted",
        "writable",
        "units",
        "could_take_over",
        "cannot_because",
        "notices",
    ];
    for key in keys {
        assert!(!document["nodes"][1][key].is_null(), "{key}");
    }
    let n1 = &document["nodes"][0];
    assert_eq!(
        (&n1["role"], &n1["vip"], &n1["committed"]),
        (&"active".into(), &true.into(), &1041.into())
    );
    assert_eq!(
        (&n1["units"][0]["name"], &n1["units"][0]["state"]),
        (&"db".into(), &"healthy".into())
    );
    assert_eq!(n1["last_failover"]["detected_ms"], 610);
    assert!(
        n1["last_failover"]["first_write_ms"].is_null(),
        "a phase that hasn't come has no time"
    );
    assert_eq!(document["last_failover"]["to"], "n1");
    assert_eq!(document["nodes"][1]["role"], "standby");
}

#[test]
fn json_says_nothing_that_is_only_last_known_as_if_it_were_so() {
    let document = json(&unreachable(0));
    let n1 = &document["nodes"][0];
    assert!(document["active"].is_null());
    assert_eq!(
        (&n1["role"], &n1["last_known_role"]),
        (&"down".into(), &"active".into())
    );
    for key in ["vip", "writable", "mounted", "could_take_over", "reachable"] {
        assert_eq!(n1[key], false, "{key}");
    }
    assert_eq!(n1["committed"], 1041);
}

#[test]
fn an_empty_answer_is_shown_too() {
    let mut cluster = ClusterStatus {
        nodes: vec![PeerView::default(); 3],
        ..ClusterStatus::default()
    };
    shows(&cluster, &["no node is active", "never reached"]);
    assert!(json(&cluster)["active"].is_null());
    cluster.nodes.clear();
    shows(&cluster, &["no node is active"]);
}
