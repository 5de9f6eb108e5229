//! What other nodes say over control, for `fuzz/`: whatever it is, it can be shown and compared. Not there in any other build.

use crate::clock::Clock;
use crate::node::token;
use crate::serve::fuzzing as daemon;
pub use crate::serve::fuzzing::{answers, scrub_record};
use crate::status;
use holdfast_proto::control::{ClusterStatus, JoinToken, NodeStatus, PeerView, Role};
use prost::Message as _;

/// What one input is given to.
pub type Target = fn(&[u8]);

/// With the names that they have in `fuzz/`.
pub const TARGETS: [(&str, Target); 4] = [
    ("answers", answers),
    ("scrub_record", scrub_record),
    ("status", status),
    ("token", token),
];

/// A peer's status reaches whoever asks for the cluster's.
pub fn status(data: &[u8]) {
    let Ok(mut cluster) = ClusterStatus::decode(data) else {
        return;
    };
    assert_eq!(ClusterStatus::decode(&cluster.encode_to_vec()[..]), Ok(cluster.clone()));
    // The daemon gives no more.
    cluster.nodes.truncate(3);
    let clock = Clock {
        now_unix_ms: 1_700_000_000_000,
        offset_s: 3600,
    };
    assert!(!status::text(&cluster, &clock).is_empty());
    assert!(status::json(&cluster).is_object());
}

/// What somebody pasted as a join token.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(read) = token::decode(text) {
        assert_eq!(
            token::decode(&token::encode(&read)).expect("what this software writes"),
            read
        );
    }
}

/// Real encodings to begin with, each with the target that it is for.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let node = |name: &str, role: Role| NodeStatus {
        name: name.into(),
        role: role.into(),
        term: 5,
        sequenced: 1042,
        durable: 1042,
        committed: 1041,
        applied: 1040,
        lag_bytes: 77,
        mounted: true,
        mount_path: "/var/lib/pbx".into(),
        ..NodeStatus::default()
    };
    let view = |status| PeerView {
        status: Some(status),
        last_heard_unix_ms: 1_700_000_000_000,
        reachable: true,
        address: "10.0.0.1".into(),
        removed: false,
    };
    let cluster = ClusterStatus {
        cluster: "pbx".into(),
        term: 5,
        active: "n1".into(),
        vip: "10.0.0.9/24".into(),
        nodes: vec![
            view(node("n1", Role::Active)),
            view(node("n2", Role::Standby)),
            view(node("n3", Role::CatchingUp)),
        ],
        asked: "n2".into(),
        ..ClusterStatus::default()
    };
    let pasted = token::encode(&JoinToken {
        cluster: "pbx".into(),
        node: "n2".into(),
        key: vec![7; 40],
        ..JoinToken::default()
    });
    let mut all = vec![("status", cluster.encode_to_vec())];
    all.extend(daemon::seeds());
    all.push(("token", pasted.into_bytes()));
    all
}

#[cfg(test)]
#[path = "../../fuzz/src/kept.rs"]
mod kept;

#[cfg(test)]
#[test]
fn every_kept_answer_is_shown_or_refused() {
    kept::run(&TARGETS, &seeds());
}

#[cfg(test)]
#[test]
#[ignore = "writes fuzz/corpus: for a format that has changed"]
fn real_encodings_are_written() {
    kept::write(&seeds());
}
