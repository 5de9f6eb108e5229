//! `status`, `check` and `switchover`: their exit codes, and daemons that don't answer.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::daemon::{Answers, Daemon};
use super::{at, holdfast, told};

fn ask(daemon: &Daemon, command: &[&str]) -> (i32, String, String) {
    told(&holdfast(&[command, &["--socket", at(&daemon.socket())]].concat()))
}

#[test]
fn status_of_an_active_cluster() {
    let daemon = Daemon::with(Answers {
        active: Some("n2"),
        ..Answers::default()
    });
    let (code, said, complaint) = ask(&daemon, &["status"]);
    assert_eq!((code, complaint.as_str()), (0, ""));
    assert!(said.contains("n2 is active"), "{said}");
    let (code, said, _) = ask(&daemon, &["status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &document["active"]), (0, &"n2".into()));
}

#[test]
fn status_without_an_active_node() {
    let daemon = Daemon::with(Answers::default());
    assert_eq!(ask(&daemon, &["status"]).0, 1);
    assert_eq!(ask(&daemon, &["status", "--json"]).0, 1);
}

#[test]
fn the_environment_names_the_socket() {
    let daemon = Daemon::with(Answers {
        active: Some("n1"),
        ..Answers::default()
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output = command
        .arg("status")
        .env("HOLDFAST_SOCKET", daemon.socket())
        .output()
        .unwrap();
    assert_eq!(told(&output).0, 0);
}

#[test]
fn no_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let complaint_of = |command: &str| {
        let (code, said, complaint) = told(&holdfast(&[command, "--socket", at(&socket)]));
        assert_eq!(said, "");
        assert!(complaint.contains(at(&socket)), "{complaint}");
        (code, complaint)
    };
    let (code, complaint) = complaint_of("status");
    assert_eq!(code, 2);
    assert!(
        complaint.contains("doesn't exist") && complaint.contains("systemctl start holdfast"),
        "{complaint}"
    );
    assert_eq!(complaint_of("check").0, 2);
    assert_eq!(complaint_of("switchover").0, 1);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (code, complaint) = complaint_of("status");
    assert_eq!(code, 2);
    assert!(
        complaint.contains("left over") && complaint.contains("journalctl"),
        "{complaint}"
    );
}

#[test]
fn a_daemon_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    // Connections are taken by the kernel, and nobody speaks.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (code, _, complaint) = told(&holdfast(&["status", "--socket", at(&socket)]));
    assert_eq!(code, 2);
    assert!(complaint.contains("didn't answer within 3 s"), "{complaint}");
}

#[test]
fn a_check_says_same_different_or_incomplete() {
    let of = |answers| ask(&Daemon::with(answers), &["check"]);
    let (code, said, complaint) = of(Answers::default());
    assert_eq!((code, complaint.as_str()), (0, ""));
    assert!(said.starts_with("same: "), "{said}");
    let (code, said, _) = of(Answers {
        differences: 1,
        ..Answers::default()
    });
    assert_eq!(code, 1);
    assert!(
        said.contains("differs: inode 17 (a.wav): n2 is the odd one out") && said.contains("different: 1"),
        "{said}"
    );
    let (code, said, _) = of(Answers {
        not_checked: vec!["n3: down".into()],
        ..Answers::default()
    });
    assert_eq!(code, 2);
    assert!(said.contains("not checked: n3: down"), "{said}");
    let (code, _, complaint) = of(Answers {
        cut_short: true,
        ..Answers::default()
    });
    assert_eq!(code, 2);
    assert!(complaint.contains("too early"), "{complaint}");
    let (code, said, _) = ask(
        &Daemon::with(Answers {
            differences: 2,
            ..Answers::default()
        }),
        &["check", "--json"],
    );
    let document: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, document["differences"].as_array().unwrap().len()), (1, 2));
}

#[test]
fn a_switchover_tells_its_steps() {
    let daemon = Daemon::with(Answers::default());
    let (code, said, _) = ask(&daemon, &["switchover", "--to", "n3"]);
    assert_eq!((code, said.as_str()), (0, "stopping the PBX\nn3 is active.\n"));
    let (code, _, complaint) = ask(&daemon, &["switchover", "--to", "n9"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("choose one of n1, n2, n3"), "{complaint}");
}

#[test]
fn a_reader_that_leaves_ends_the_watching() {
    let daemon = Daemon::with(Answers {
        active: Some("n1"),
        ..Answers::default()
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command
        .args(["status", "--watch", "--json", "--socket", at(&daemon.socket())])
        .stdout(Stdio::piped());
    let mut watch = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.starts_with('{') && line.ends_with("}\n"), "{line}");
    let output = watch.wait_with_output().unwrap();
    assert_eq!(told(&output), (0, String::new(), String::new()));
}
