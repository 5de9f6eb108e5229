//! Messages of control, copies and mending, as they were recorded: this software reads them as what they meant, and writes the same.

use holdfast_proto::{control, copy, repair};
use prost::Message;

#[path = "../../tests/recorded.rs"]
mod recorded;

const FILE: &str = "control-2.txt";

fn notice() -> control::Notice {
    control::Notice {
        what: "what".into(),
        advice: "advice".into(),
        since_unix_ms: 1_700_000_000_000,
        serious: true,
    }
}

fn report() -> control::AgentReport {
    control::AgentReport {
        vip_held: true,
        released_term: 6,
        units: vec![control::UnitStatus {
            name: "db".into(),
            state: "healthy".into(),
            detail: "detail".into(),
            since_unix_ms: 5,
        }],
        eligible: true,
        not_eligible_because: vec!["because".into()],
        gives_up: false,
        last_resort: false,
        phase: "phase".into(),
        vip_since_unix_ms: 6,
        units_healthy_unix_ms: 7,
        vip: "10.0.0.9/24".into(),
        interface: "eth0".into(),
        pid: 8,
        notices: vec![notice()],
    }
}

fn scrub() -> control::Scrub {
    control::Scrub {
        running: true,
        began_unix_ms: 1,
        ended_unix_ms: 2,
        keys: 3,
        keys_total: 4,
        bytes: 5,
        found: 6,
        mended: 7,
        next_unix_ms: 8,
        trouble: "trouble".into(),
        metadata_differ: false,
        last: None,
        unjudged: 0,
    }
}

fn status() -> control::NodeStatus {
    control::NodeStatus {
        name: "n2".into(),
        id: 2,
        role: control::Role::CatchingUp.into(),
        term: 3,
        leader: "n1".into(),
        sequenced: 4,
        durable: 5,
        committed: 6,
        applied: 7,
        checkpointed: 8,
        first_index: 9,
        lag_bytes: 10,
        lag_ms: 11,
        lag_left_ms: 0,
        lag_still_ms: 0,
        lease_left_ms: 12,
        mounted: true,
        writable: true,
        mount_path: "/var/lib/pbx".into(),
        agent: Some(report()),
        last_failover: Some(control::Failover {
            began_unix_ms: 1,
            detected_ms: 2,
            lease_ms: 3,
            mounted_ms: 4,
            vip_ms: 5,
            units_ms: 6,
            first_write_ms: 7,
            from: "n3".into(),
            reason: "planned".into(),
        }),
        notices: vec![notice()],
        could_take_over: true,
        cannot_because: vec!["because".into()],
        uptime_ms: 13,
        version: "0.1.0".into(),
        store_free_bytes: 14,
        store_total_bytes: 15,
        resident_bytes: 16,
        forgetful: true,
        unix_ms: 17,
        needs_copy: vec![3],
        scrub: Some(scrub()),
        recovering: true,
        copy: Some(control::CopyProgress {
            source: "n1".into(),
            keys: 1,
            keys_total: 2,
            bytes: 3,
            left_ms: 4,
        }),
        // See `members`, which came later.
        members: None,
        settings: std::collections::HashMap::new(),
        odd_one_out: String::new(),
    }
}

fn member() -> control::Member {
    control::Member {
        name: "n2".into(),
        address: "10.0.0.2".into(),
        replication_port: 7400,
        control_port: 7401,
        removed: true,
    }
}

/// Whether bytes are read as what was meant.
type Meaning = Box<dyn Fn(&[u8]) -> bool>;

/// What recorded bytes are read as must be this, and this written must be those bytes.
struct Kind {
    name: &'static str,
    bytes: Vec<u8>,
    again: fn(&[u8]) -> Vec<u8>,
    means: Meaning,
}

fn kind<M: Message + Default + PartialEq + 'static>(name: &'static str, message: M) -> Kind {
    Kind {
        name,
        bytes: message.encode_to_vec(),
        again: |bytes| M::decode(bytes).expect("recorded").encode_to_vec(),
        means: Box::new(move |bytes| M::decode(bytes).is_ok_and(|read| read == message)),
    }
}

fn cluster() -> control::ClusterStatus {
    control::ClusterStatus {
        cluster: "pbx".into(),
        cluster_id: "id".into(),
        term: 1,
        active: "n1".into(),
        why: "why".into(),
        vip: "10.0.0.9/24".into(),
        nodes: vec![control::PeerView {
            status: Some(status()),
            last_heard_unix_ms: 2,
            reachable: true,
            address: "10.0.0.1".into(),
            removed: true,
        }],
        asked: "n1".into(),
        needs_agent: true,
    }
}

fn check(event: control::check_event::Event) -> control::CheckEvent {
    control::CheckEvent { event: Some(event) }
}

fn classes() -> control::Classes {
    control::Classes {
        mount_path: "/mnt".into(),
        given: vec![control::GivenClass {
            path: "recordings".into(),
            class: "recordings".into(),
            by_hand: true,
            since_unix_ms: 1,
            inode: 2,
        }],
        configured: vec![control::ConfiguredClass {
            path: "logs".into(),
            class: "logs".into(),
            is: "default".into(),
        }],
        active: "n1".into(),
        asked: "n2".into(),
    }
}

/// All that crosses from node to node, from daemon to agent, and from a daemon to the command, which may be a node's of another version.
fn kinds() -> Vec<Kind> {
    vec![
        kind("node-status-request", control::NodeStatusRequest {}),
        kind("node-status", status()),
        kind(
            "node-status-members",
            control::NodeStatus {
                members: Some(control::Members {
                    revision: 3,
                    nodes: vec![member()],
                }),
                ..control::NodeStatus::default()
            },
        ),
        kind(
            "agent-report-gives-up",
            control::AgentReport {
                gives_up: true,
                last_resort: true,
                ..control::AgentReport::default()
            },
        ),
        kind("cluster-status-request", control::ClusterStatusRequest {}),
        kind("cluster-status", cluster()),
        kind(
            "check-progress",
            check(control::check_event::Event::Progress(control::CheckProgress {
                bytes: 1,
                bytes_total: 2,
                keys: 3,
            })),
        ),
        kind(
            "check-difference",
            check(control::check_event::Event::Difference(control::CheckDifference {
                what: "what".into(),
                path: "path".into(),
                groups: vec!["n1+n3".into(), "n2".into()],
                odd_one_out: "n2".into(),
                mended: "mended".into(),
            })),
        ),
        kind(
            "check-verdict",
            check(control::check_event::Event::Verdict(control::CheckVerdict {
                same: true,
                at_index: 1,
                bytes: 2,
                keys: 3,
                differences: 4,
                mended: 5,
                not_checked: vec!["n3: why".into()],
            })),
        ),
        kind("scrub-request", control::ScrubRequest {}),
        kind(
            "scrub-event",
            control::ScrubEvent {
                scrub: Some(scrub()),
                damaged: vec!["damaged".into()],
                done: true,
            },
        ),
        kind("list-classes-request", control::ListClassesRequest {}),
        kind("classes", classes()),
        kind("configuration-request", control::ConfigurationRequest {}),
        kind(
            "configuration",
            control::Configuration {
                text: "text".into(),
                revision: 0,
            },
        ),
        kind(
            "join-token",
            control::JoinToken {
                cluster: "pbx".into(),
                node: "n2".into(),
                ca: vec![vec![1; 8]],
                certificate: vec![2; 8],
                key: vec![3; 8],
                doors: vec![member()],
                ..control::JoinToken::default()
            },
        ),
        kind("agent-report", report()),
        kind(
            "lease-facts",
            control::LeaseFacts {
                node: "n1".into(),
                role: control::Role::Active.into(),
                term: 3,
                lease_until_ms: 4,
                vip_not_before_ms: 5,
                writable: true,
                active: "n1".into(),
                grace_until_ms: 6,
                mount_path: "/var/lib/pbx".into(),
            },
        ),
        kind(
            "check-request",
            control::CheckRequest {
                max_ranges: 1,
                repair: true,
                quick: true,
            },
        ),
        kind("switchover-request", control::SwitchoverRequest { to: "n2".into() }),
        kind(
            "switchover-event",
            control::SwitchoverEvent {
                step: "step".into(),
                done: true,
                active: "n2".into(),
            },
        ),
        kind(
            "copy-begin",
            copy::BeginRequest {
                node: "n3".into(),
                begun: true,
                protocol: 2,
                version: "0.1.0".into(),
            },
        ),
        kind(
            "copy-begun",
            copy::Begun {
                session: 1,
                source: "n1".into(),
                keys: 2,
                checkpoint: 3,
                history: 4,
            },
        ),
        kind("copy-pieces", copy::PiecesRequest { session: 1 }),
        kind(
            "copy-piece",
            copy::Piece {
                from: b"from".as_slice().into(),
                to: b"to".as_slice().into(),
                keys: 2,
                hash: vec![1; 32].into(),
            },
        ),
        kind(
            "copy-keys",
            copy::KeysRequest {
                session: 1,
                from: b"from".as_slice().into(),
                to: b"to".as_slice().into(),
            },
        ),
        kind(
            "copy-keys-answer",
            copy::KeysAnswer {
                pairs: vec![copy::Pair {
                    key: b"key".as_slice().into(),
                    value: b"value".as_slice().into(),
                }],
                next: b"next".as_slice().into(),
                more: true,
            },
        ),
        kind(
            "copy-blocks",
            copy::BlocksRequest {
                session: 1,
                ranges: vec![copy::Range {
                    ino: 2,
                    first: 3,
                    end: 4,
                }],
            },
        ),
        kind(
            "copy-blocks-answer",
            copy::BlocksAnswer {
                ino: 2,
                first: 3,
                sums: vec![1; 16].into(),
                data: b"data".as_slice().into(),
            },
        ),
        kind("copy-end", copy::EndRequest { session: 1 }),
        kind(
            "copy-ended",
            copy::Ended {
                again: true,
                checkpoint: 1,
                checkpoint_term: 2,
                joined: 3,
                term: 4,
                leader: 2,
            },
        ),
        kind(
            "repair-block",
            repair::BlockRequest {
                ino: 2,
                number: 3,
                sum: vec![1; 16].into(),
            },
        ),
        kind(
            "repair-block-answer",
            repair::BlockAnswer {
                found: true,
                data: b"data".as_slice().into(),
            },
        ),
        kind(
            "repair-value",
            repair::ValueRequest {
                key: b"key".as_slice().into(),
                hash: vec![1; 16].into(),
            },
        ),
        kind(
            "repair-value-answer",
            repair::ValueAnswer {
                found: true,
                value: b"value".as_slice().into(),
            },
        ),
        kind(
            "repair-examine",
            repair::ExamineRequest {
                blocks: vec![repair::BlockNumber { ino: 2, number: 3 }],
            },
        ),
        kind("repair-examine-answer", repair::ExamineAnswer {}),
        kind(
            "repair-mend",
            repair::MendRequest {
                as_of: 1,
                blocks: vec![repair::BlockChange {
                    ino: 2,
                    number: 3,
                    damaged: true,
                    is: vec![1; 16].into(),
                    from: vec!["n2".into()],
                }],
                keys: vec![repair::KeyChange {
                    key: b"key".as_slice().into(),
                    is: vec![2; 16].into(),
                    from: vec!["n3".into()],
                }],
                term: 4,
                verify: true,
            },
        ),
        kind(
            "repair-mend-answer",
            repair::MendAnswer {
                left: vec!["left".into()],
            },
        ),
    ]
}

#[test]
fn recorded_messages_mean_what_they_meant() {
    let recorded = recorded::read(FILE);
    recorded::same_names(&recorded, kinds().iter().map(|kind| kind.name));
    for kind in kinds() {
        let bytes = &recorded[kind.name];
        assert!((kind.means)(bytes), "{} is read as something else", kind.name);
        assert_eq!(kind.bytes, *bytes, "{} is written in another way", kind.name);
    }
}

/// A field that only a later version knows.
#[test]
fn what_a_later_version_adds_is_left_out() {
    for kind in kinds() {
        let later = [&kind.bytes[..], &[0xf8, 0x3e, 5]].concat();
        assert!((kind.means)(&later), "{}", kind.name);
        assert_eq!((kind.again)(&later), kind.bytes, "{}", kind.name);
    }
}

#[test]
#[ignore = "adds what is new to the recorded messages"]
fn new_messages_are_recorded() {
    let all: Vec<_> = kinds().into_iter().map(|kind| (kind.name, kind.bytes)).collect();
    recorded::add(FILE, &all);
}
