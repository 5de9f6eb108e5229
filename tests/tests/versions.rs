//! A rolling upgrade: nodes one release apart work together in any role, those further apart refuse each other in words.

mod common;

use std::path::Path;

use common::{PATIENCE, assert_same, content, lab, log, ready, seconds, wait_logged, write_synced};
use holdfast_replicator::net::PROTOCOL;
use holdfast_tests::clock::wait_for;
use holdfast_tests::lab::{Lab, LabOptions, Node};
use rustix::process::Signal;

fn stop(node: &Node) {
    node.signal_daemon("holdfast", Signal::TERM).unwrap();
    wait_for("the daemon's end", PATIENCE, || {
        Ok(node.daemon("holdfast").is_none().then_some(()))
    })
    .unwrap();
}

/// The node goes on as one of another release.
fn restart_as(node: &Node, protocol: u32) {
    stop(node);
    node.start_release(protocol).unwrap();
}

fn put(node: &Node, name: &str) {
    let written = write_synced(node.mnt().join(name), name).within(PATIENCE);
    written.expect("a write ends").unwrap();
}

fn switch_to(lab: &Lab, to: &Node) {
    wait_for("a switchover", PATIENCE, || {
        let output = lab.exec(to.name(), &["holdfast", "switchover", "--to", to.name()])?;
        Ok(output.status.success().then_some(()))
    })
    .unwrap();
    lab.wait_writable(to.name(), PATIENCE).unwrap();
}

fn works_as(protocol: u32) {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let [other, third] = lab.others(active.name())[..] else {
        panic!("three nodes");
    };
    restart_as(other, protocol);
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    wait_logged(
        &active,
        "holdfast",
        &["connected to a node of another release", other.name()],
    );
    // It alone makes the majority: what is synced is synced there.
    stop(third);
    put(&active, "received-there");
    third.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    // And it alone is what this node writes to.
    switch_to(&lab, other);
    stop(third);
    put(other, "written-there");
    third.start().unwrap();
    assert_same(&lab);
    for name in ["received-there", "written-there"] {
        assert_eq!(content(&other.mnt().join(name)), name.as_bytes());
    }
    // The upgrade's end: this release again, on all of them.
    restart_as(other, PROTOCOL);
    assert_same(&lab);
}

#[test]
fn the_release_after_works_with_this_one() {
    works_as(PROTOCOL + 1);
}

#[test]
fn the_release_before_works_with_this_one() {
    works_as(PROTOCOL - 1);
}

fn status(node: &Node) -> String {
    let output = node.exec_within(&["holdfast", "status"], seconds(10)).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_status(node: &Node, words: &[&str]) {
    let shown = wait_for("a sentence in status", PATIENCE, || {
        let text = status(node);
        Ok(words.iter().all(|word| text.contains(word)).then_some(()))
    });
    shown.unwrap_or_else(|error| panic!("{error:#} with {words:?}:\n{}", status(node)));
}

#[test]
fn two_releases_apart_is_refused_in_words_and_the_others_go_on() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let [far, _] = lab.others(active.name())[..] else {
        panic!("three nodes");
    };
    let theirs = PROTOCOL + 2;
    restart_as(far, theirs);
    let speaks = |node: &Node, version| format!("{} speaks version {version} of the stream", node.name());
    let (theirs, own) = (speaks(far, theirs), speaks(&active, PROTOCOL));
    let way = format!(
        "upgrade {} to a release that speaks version {}",
        active.name(),
        PROTOCOL + 1
    );
    wait_status(
        &active,
        &[&format!("no replication to {}", far.name()), &theirs, &own, &way],
    );
    wait_logged(&active, "holdfast", &[&theirs, &own, &way]);
    // It hears the same from them.
    wait_status(far, &["the other side refuses", &theirs, &own, &way]);
    put(&active, "without-it");
    assert!(!log(far, "holdfast").contains("panicked"));
    assert!(!Path::new(&far.mnt().join("without-it")).exists());
    restart_as(far, PROTOCOL);
    assert_same(&lab);
}
