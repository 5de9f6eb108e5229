//! Real programs beside PostgreSQL, with their data on the mount, through failovers without warning.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::nats::Nats;
use common::{PATIENCE, assert_same, lab, ready, seconds, start, wait_other};
use holdfast_tests::clock::{pause, wait_for};
use holdfast_tests::lab::{Lab, LabOptions};
use holdfast_tests::process::{run_ok, wait_child};

const FAILOVERS: u64 = 3;

/// As in a PBX: a program that keeps its data on the mount and runs where the address is.
fn nats_unit() -> String {
    r#"
[[unit]]
name = "nats"
start = ["/usr/sbin/nats-server", "-js", "-sd", "{mnt}/nats", "-a", "0.0.0.0", "-p", "4222", "-P", "{dir}/nats.pid"]
stop = ["/bin/sh", "-c", "kill -INT $(cat {dir}/nats.pid)"]
status = ["/bin/sh", "-c", "kill -0 $(cat {dir}/nats.pid)"]
"#
    .to_owned()
}

/// Publishes numbered messages one by one; one whose outcome isn't known is sent again under the same id.
struct Publisher {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    ended: common::Pending<Result<()>>,
}

impl Publisher {
    fn start(lab: &Lab) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, until) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        let (netns, vip) = (lab.client_netns(), lab.vip());
        let ended = start(move || {
            netns.enter_thread()?;
            let mut client = None;
            while !until.load(Ordering::SeqCst) {
                let Some(open) = client.as_mut() else {
                    client = Nats::connect(vip).ok();
                    pause(Duration::from_millis(50));
                    continue;
                };
                let number = count.load(Ordering::SeqCst) + 1;
                let sent = open.request("numbers", Some(&number.to_string()), &number.to_string());
                match sent {
                    Ok(answer) if answer.payload.contains(r#""seq":"#) => count.store(number, Ordering::SeqCst),
                    Ok(_) | Err(_) => client = None,
                }
            }
            Ok(())
        });
        Self {
            acknowledged,
            stop,
            ended,
        }
    }

    fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.ended.within(PATIENCE).expect("a request ends").unwrap();
        self.acknowledged.load(Ordering::SeqCst)
    }
}

/// In the client's network, on a thread of its own, since a namespace is a thread's.
fn with_nats<T: Send + 'static>(lab: &Lab, work: impl FnOnce(&mut Nats) -> Result<T> + Send + 'static) -> T {
    let (netns, vip) = (lab.client_netns(), lab.vip());
    let done = start(move || {
        netns.enter_thread()?;
        let mut client = wait_for("NATS to answer", seconds(30), || Nats::connect(vip).map(Some))?;
        work(&mut client)
    });
    done.within(seconds(90)).expect("NATS answers").unwrap()
}

fn make_stream(client: &mut Nats) -> Result<()> {
    let wanted = r#"{"name":"numbers","subjects":["numbers"],"storage":"file","allow_direct":true,"duplicate_window":120000000000}"#;
    let made = wait_for("the stream to be made", seconds(30), || {
        let answer = client.request("$JS.API.STREAM.CREATE.numbers", None, wanted)?;
        Ok((!answer.payload.contains("error") && answer.payload.contains("created")).then_some(answer.payload))
    })?;
    ensure!(made.contains("numbers"), "{made}");
    Ok(())
}

/// How often each number is in the stream.
fn stored(client: &mut Nats) -> Result<BTreeMap<u64, u64>> {
    let state = client.request("$JS.API.STREAM.INFO.numbers", None, "")?;
    let state: serde_json::Value = serde_json::from_str(&state.payload)?;
    let last = state["state"]["last_seq"].as_u64().context("the stream's state")?;
    let mut numbers = BTreeMap::new();
    for sequence in 1..=last {
        let asked = format!(r#"{{"seq":{sequence}}}"#);
        let found = client.request("$JS.API.DIRECT.GET.numbers", None, &asked)?;
        ensure!(
            found.headers.contains("Nats-Sequence"),
            "message {sequence}: {}",
            found.headers
        );
        *numbers.entry(found.payload.parse()?).or_default() += 1;
    }
    Ok(numbers)
}

#[test]
fn every_message_that_nats_acknowledged_is_there_once_after_three_failovers() {
    let lab = lab(LabOptions {
        units: nats_unit(),
        ..LabOptions::default()
    });
    ready(&lab);
    with_nats(&lab, make_stream);
    let publisher = Publisher::start(&lab);
    for failover in 0..FAILOVERS {
        let active = ready(&lab);
        let from = publisher.count();
        let more = wait_for("messages acknowledged", seconds(60), || {
            Ok((publisher.count() >= from + 100).then_some(()))
        });
        more.unwrap_or_else(|error| panic!("before failover {failover}: {error:#}\n{}", lab.log_tails(30)));
        active.kill().unwrap();
        wait_other(&lab, &active);
        active.start().unwrap();
    }
    let from = publisher.count();
    let more = wait_for("messages acknowledged at the end", seconds(60), || {
        Ok((publisher.count() >= from + 100).then_some(()))
    });
    more.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(30)));
    let acknowledged = publisher.finish();
    let numbers = with_nats(&lab, stored);
    for number in 1..=acknowledged {
        assert_eq!(
            numbers.get(&number),
            Some(&1),
            "message {number} of {acknowledged} acknowledged"
        );
    }
    // At most the one that was under way at the end.
    assert!(
        numbers.len() as u64 <= acknowledged + 1,
        "{} messages of {acknowledged}",
        numbers.len()
    );
    assert_same(&lab);
}

/// Inserts numbers in transactions of their own and prints each when its commit has returned.
const INSERT: &str = r"
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
print('mode', database.execute('PRAGMA journal_mode=' + sys.argv[2]).fetchone()[0], flush=True)
database.execute('PRAGMA synchronous=FULL')
database.execute('CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, filler TEXT)')
number = database.execute('SELECT coalesce(max(number), 0) FROM numbers').fetchone()[0]
while True:
    number += 1
    database.execute('BEGIN IMMEDIATE')
    database.execute('INSERT INTO numbers VALUES (?, ?)', (number, 'x' * (number % 3000)))
    database.execute('COMMIT')
    print(number, flush=True)
";

const EXAMINE: &str = r"
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=30)
print(database.execute('PRAGMA integrity_check').fetchone()[0])
print(*database.execute('SELECT count(*), coalesce(max(number), 0) FROM numbers').fetchone())
";

/// A program that is killed when it is dropped; its output is read to its end.
struct Inserter {
    child: Child,
    acknowledged: Arc<AtomicU64>,
}

impl Inserter {
    fn start(database: PathBuf, mode: &'static str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", INSERT])
            .arg(database)
            .arg(mode)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&acknowledged);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            assert_eq!(lines.next().as_deref(), Some(format!("mode {mode}").as_str()));
            for line in lines {
                count.store(line.parse().expect("a number"), Ordering::SeqCst);
            }
        });
        Self { child, acknowledged }
    }
}

impl Drop for Inserter {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(wait_child(&mut self.child, PATIENCE));
    }
}

#[test]
fn sqlite_loses_no_commit_in_wal_or_rollback_mode() {
    let lab = lab(LabOptions::default());
    for mode in ["wal", "delete"] {
        let name = format!("{mode}.db");
        for _ in 0..2 {
            let active = ready(&lab);
            let inserter = Inserter::start(active.mnt().join(&name), mode);
            let acknowledged = || match inserter.acknowledged.load(Ordering::SeqCst) {
                0 => None,
                last => Some(last),
            };
            let more = wait_for("the first commit", seconds(60), || Ok(acknowledged())).and_then(|first| {
                wait_for("commits", seconds(60), || {
                    Ok(acknowledged().filter(|last| *last >= first + 50))
                })
            });
            more.unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", lab.log_tails(20)));
            active.kill().unwrap();
            let next = wait_other(&lab, &active);
            let acknowledged = inserter.acknowledged.load(Ordering::SeqCst);
            drop(inserter);
            let database = next.mnt().join(&name);
            let examined = start(move || run_ok(Command::new("python3").args(["-c", EXAMINE]).arg(database), PATIENCE));
            let said = examined.within(PATIENCE).expect("SQLite answers").unwrap();
            let words: Vec<&str> = said.split_whitespace().collect();
            let [integrity, count, last] = words[..] else {
                panic!("{mode}: {said}");
            };
            let (count, last): (u64, u64) = (count.parse().unwrap(), last.parse().unwrap());
            assert_eq!((integrity, count), ("ok", last), "{mode}, {acknowledged} acknowledged");
            assert!(
                last >= acknowledged,
                "{mode}: {last} rows of {acknowledged} acknowledged"
            );
            active.start().unwrap();
        }
    }
    assert_same(&lab);
}

/// Rotated by renaming, under a program that goes on writing.
#[test]
fn logrotate_keeps_every_line() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let folder = active.mnt().join("log");
    let script = r#"
        cd "$0"; umask 022
        (n=0; while [ $n -lt 600 ]; do n=$((n+1)); echo "line $n" >> moved.log; done) &
        writer=$!
        printf '"%s/moved.log" {\n rotate 1000\n nocreate\n missingok\n size 1\n nodateext\n su root root\n}\n' "$0" > rotate.conf
        while kill -0 $writer 2>/dev/null; do logrotate -s "$0/state" -f rotate.conf; done
        wait $writer; cat moved.log* | sort -u | wc -l; ls moved.log.* | wc -l
    "#;
    let rotated = start(move || {
        fs::create_dir(&folder)?;
        run_ok(Command::new("sh").args(["-euc", script]).arg(&folder), PATIENCE)
    });
    let said = rotated.within(PATIENCE).expect("logrotate ends").unwrap();
    let numbers: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(numbers[0], 600, "lines are missing: {said}");
    assert!(numbers[1] > 1, "nothing was rotated: {said}");
    assert_same(&lab);
}

/// What a container has: a bind mount of a folder. It is of one role, and says so when that is over.
#[test]
fn a_bind_mount_of_a_folder_ends_with_the_role() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let folder = active.mnt().join("container");
    let script = r#"
        mkdir "$0"; echo before > "$0/file"; mkdir "$1"; mount --bind "$0" "$1"
        cat "$1/file"; echo more >> "$1/file"; cat "$0/file" | wc -l; echo ready
        read go_on
        cat "$1/file" 2>&1; umount "$1"
    "#;
    let place = active.dir().join("bound");
    let mut child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .args([&folder, &place])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for right in ["before", "2", "ready"] {
        assert_eq!(lines.next().unwrap().unwrap(), right);
    }
    active.kill().unwrap();
    let next = wait_other(&lab, &active);
    drop(child.stdin.take());
    let said = start(move || lines.next().unwrap().unwrap());
    let said = said
        .within(PATIENCE)
        .expect("a bind mount of a role that is over answers");
    assert!(said.contains("not connected") || said.contains("aborted"), "{said}");
    assert!(wait_child(&mut child, PATIENCE).unwrap());
    drop(child.wait());
    assert_eq!(common::content(&next.mnt().join("container/file")), b"before\nmore\n");
    fs::remove_dir(active.dir().join("bound")).unwrap();
    assert_same(&lab);
}
