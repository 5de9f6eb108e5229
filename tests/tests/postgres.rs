//! PostgreSQL on the mount, under vip-agent, through failovers without warning.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{PATIENCE, assert_same, lab, ready, seconds};
use holdfast_tests::clock::{pause, wait_for};
use holdfast_tests::demo::client::{Client, Place, psql};
use holdfast_tests::demo::{postgresql, service, verify};
use holdfast_tests::lab::{Lab, LabOptions, Node};
use holdfast_tests::process::{ProcessId, run_ok};
use rustix::process::Signal;

const FAILOVERS: u64 = 3;

/// PostgreSQL alone of the demo's units.
fn unit() -> String {
    let all = service::units(Path::new(env!("CARGO_BIN_EXE_holdfast-demo"))).unwrap();
    let mut table: toml::Table = all.parse().unwrap();
    let units = table["unit"].as_array_mut().unwrap();
    units.retain(|unit| unit["name"].as_str() == Some("postgresql"));
    toml::to_string(&table).unwrap()
}

fn sql(place: &Place, limit: Duration, statement: &str) -> String {
    let answer = wait_for("PostgreSQL to answer", limit, || {
        run_ok(
            psql(place)?.args(["-v", "ON_ERROR_STOP=1", "-c", statement]),
            seconds(20),
        )
        .map(Some)
    });
    answer.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Stops the server in order, with nobody to start it again, and has all pages' checksums verified.
fn verify_checksums(active: &Node) {
    let data = active.mnt().join("postgresql/data");
    let noted = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let server = ProcessId::of(noted.lines().next().unwrap().parse().unwrap()).expect("the server runs");
    active.signal_daemon("vip-agent", Signal::STOP).unwrap();
    server.signal(Signal::INT).unwrap();
    let stopped = wait_for("the server to stop", PATIENCE, || {
        Ok((!data.join("postmaster.pid").exists()).then_some(()))
    });
    stopped.unwrap();
    let mut checksums = Command::new("setpriv");
    checksums.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    checksums
        .arg(postgresql::programs().unwrap().join("pg_checksums"))
        .args(["--check", "-D"])
        .arg(&data)
        .current_dir("/");
    let said = run_ok(&mut checksums, seconds(60)).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(said.contains("Bad checksums:  0"), "{said}");
    active.signal_daemon("vip-agent", Signal::CONT).unwrap();
}

fn amcheck(lab: &Lab) {
    let mut command = lab
        .client_command(postgresql::programs().unwrap().join("pg_amcheck"))
        .unwrap();
    let host = lab.vip().to_string();
    command.args([
        "--host",
        &host,
        "--username",
        "postgres",
        "--install-missing",
        "--heapallindexed",
        "--all",
    ]);
    run_ok(&mut command, seconds(60)).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn every_acknowledged_row_survives_three_failovers() {
    let lab = lab(LabOptions {
        units: unit(),
        ..LabOptions::default()
    });
    let place = Place {
        netns: lab.client_netns(),
        vip: lab.vip(),
    };
    sql(
        &place,
        seconds(120),
        "CREATE TABLE demo (number bigint PRIMARY KEY, at timestamptz DEFAULT now())",
    );
    let client = Client::start(place.clone());
    let progress = |what: &str| {
        let from = client.last().map_or(0, |ack| ack.number);
        let committed = wait_for(what, seconds(60), || {
            Ok(client.last().filter(|ack| ack.number >= from + 20).map(drop))
        });
        committed.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(30)));
    };
    for failover in 0..FAILOVERS {
        let active = ready(&lab);
        progress("commits before a failover");
        pause(Duration::from_millis(rand::random_range(0..500)));
        active.kill().unwrap();
        lab.wait_active_other_than(active.name(), PATIENCE).unwrap();
        progress(&format!("commits after failover {failover}"));
        active.start().unwrap();
    }
    let acks = client.stop();
    let finding = verify::transactions(&place, &acks);
    assert!(finding.holds, "{}", finding.sentence);
    amcheck(&lab);
    verify_checksums(&ready(&lab));
    assert_same(&lab);
}
