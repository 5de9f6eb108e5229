//! `init`, `config validate` and what they refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{at, holdfast, told};

const NODES: [&str; 6] = [
    "--node",
    "n1=10.0.0.131",
    "--node",
    "n2=10.0.0.132",
    "--node",
    "n3=10.0.0.133:7500",
];

fn init(out: &Path, more: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["init", "--cluster", "pbx", "--out", at(out)];
    arguments.extend(more);
    told(&holdfast(&arguments))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A refused `init` says why and leaves nothing behind.
fn refused(more: &[&str], words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, complaint) = init(&folder.path().join("out"), more);
    assert_ne!(code, 0);
    for word in words {
        assert!(complaint.contains(word), "{word:?} is missing in: {complaint}");
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}

#[test]
fn three_ready_folders() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("deep/out");
    let mut more = NODES.to_vec();
    more.extend([
        "--vip",
        "10.0.0.130/24",
        "--store",
        "/srv/hf",
        "--mount",
        "/srv/pbx",
        "--log-mib",
        "64",
    ]);
    let (code, said, complaint) = init(&out, &more);
    assert_eq!((code, complaint.as_str()), (0, ""));
    for word in [
        "n3",
        "root@10.0.0.133:/etc/holdfast/",
        "systemctl enable --now holdfast vip-agent",
        "ca.key",
    ] {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    assert_eq!(
        (mode(&out), mode(&out.join("ca")), mode(&out.join("ca/ca.key"))),
        (0o700, 0o700, 0o600)
    );
    let mut ids = Vec::new();
    for (this, name) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let own = out.join(name);
        assert_eq!((mode(&own), mode(&own.join("node.key"))), (0o700, 0o600));
        let config = holdfast_config::load(&own.join("holdfast.toml")).unwrap();
        assert_eq!((config.this, config.cluster.nodes[this].name.as_str()), (this, name));
        assert_eq!(
            (config.store.path, config.mount.path),
            (PathBuf::from("/srv/hf"), PathBuf::from("/srv/pbx"))
        );
        assert_eq!(config.store.log_bytes, 64 << 20);
        assert_eq!(config.vip.unwrap().address.to_string(), "10.0.0.130");
        assert_eq!(
            (
                config.cluster.nodes[2].replication_port,
                config.cluster.nodes[2].control_port
            ),
            (7500, 7501)
        );
        ids.push(config.cluster.id);
        let (code, said, _) = told(&holdfast(&["config", "validate", at(&own.join("holdfast.toml"))]));
        assert_eq!(code, 0);
        assert!(
            said.contains(&format!("good: node {name} (10.0.0.13{})", this + 1)),
            "{said}"
        );
    }
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 32), "{ids:?}");
}

#[test]
fn a_folder_still_fits_together_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    assert_eq!(init(&out, &NODES).0, 0);
    let elsewhere = folder.path().join("etc");
    fs::rename(out.join("n2"), &elsewhere).unwrap();
    let config = holdfast_config::load(&elsewhere.join("holdfast.toml")).unwrap();
    assert!(config.vip.is_none());
    assert_eq!(config.tls.key, elsewhere.join("node.key"));
}

#[test]
fn the_certificate_of_one_cluster_is_none_in_another() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    assert_eq!((init(&one, &NODES).0, init(&other, &NODES).0), (0, 0));
    fs::copy(other.join("n1/ca.pem"), one.join("n1/ca.pem")).unwrap();
    let (code, _, complaint) = told(&holdfast(&["config", "validate", at(&one.join("n1/holdfast.toml"))]));
    assert_eq!(code, 1);
    assert!(
        complaint.contains("tls.cert") && complaint.contains("isn't accepted"),
        "{complaint}"
    );
}

#[test]
fn an_empty_directory_is_taken_and_a_full_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    assert_eq!(init(&out, &NODES).0, 0);
    let key = fs::read(out.join("ca/ca.key")).unwrap();
    let (code, _, complaint) = init(&out, &NODES);
    assert_eq!(code, 1);
    assert!(
        complaint.contains("isn't empty") && complaint.contains("--out"),
        "{complaint}"
    );
    assert_eq!(fs::read(out.join("ca/ca.key")).unwrap(), key);
}

#[test]
fn what_is_refused() {
    refused(&NODES[..4], &["cluster.nodes", "2 nodes are given", "exactly three"]);
    let four = [&NODES[..], &["--node", "n4=10.0.0.134"]].concat();
    refused(&four, &["4 nodes are given", "exactly three"]);
    let (n1, n2) = ("n1=10.0.0.131", "n2=10.0.0.132");
    refused(
        &["--node", n1, "--node", n2, "--node", "n2=10.0.0.133"],
        &["\"n2\"", "different names"],
    );
    refused(
        &["--node", n1, "--node", n2, "--node", "n3=10.0.0.132"],
        &["both n2 and n3", "different addresses"],
    );
    refused(
        &["--node", n1, "--node", n2, "--node", "../n3=10.0.0.133"],
        &["\"../n3\"", "lower-case"],
    );
    refused(&["--node", n1, "--node", n2, "--node", "ca=10.0.0.133"], &["\"ca\""]);
    refused(
        &["--node", n1, "--node", n2, "--node", "n3"],
        &["\"n3\"", "NAME=ADDRESS"],
    );
    refused(&["--node", n1, "--node", n2, "--node", "n3=fd00::3"], &["families"]);
    refused(
        &[&NODES[..], &["--vip", "10.1.0.130/24"]].concat(),
        &["vip.address", "outside the network of n1"],
    );
    refused(&[&NODES[..], &["--vip", "10.0.0.130"]].concat(), &["ADDRESS/PREFIX"]);
    refused(
        &[&NODES[..], &["--store", "data"]].concat(),
        &["store.path", "absolute"],
    );
    refused(
        &[&NODES[..], &["--log-mib", "1"]].concat(),
        &["store.log_mib", "64 to 65536"],
    );
}
