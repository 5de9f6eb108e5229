//! Two nodes are gone for good. The third goes on by `holdfast recover`, on two disks again before anything is acknowledged,
//! and the old stores of the lost nodes are refused for ever.

mod common;

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use common::{PATIENCE, assert_same, content, lab, ready, seconds, start, write_synced};
use holdfast_tests::clock::{pause, wait_for};
use holdfast_tests::lab::{Lab, LabOptions, Node};

fn recover(node: &Node, words: &[&str], typed: &str) -> (bool, String) {
    let mut command = node.command("holdfast").unwrap();
    command
        .arg("recover")
        .arg("--config")
        .arg(node.files().config())
        .args(words);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    (output.status.success(), said.concat())
}

fn status(node: &Node) -> String {
    let output = node.exec_within(&["holdfast", "status"], seconds(10)).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes more than the log holds, so that nobody can come back by it.
fn beyond_the_log(active: &Node) {
    let path = active.mnt().join("large");
    let written = start(move || {
        let mut file = fs::File::create(path)?;
        for number in 0..110u8 {
            file.write_all(&vec![number; 1 << 20])?;
        }
        file.sync_all()
    });
    written.within(PATIENCE).expect("writing ends").unwrap();
}

fn put_aside(lab: &Lab, node: &Node) -> std::path::PathBuf {
    node.kill().unwrap();
    let aside = lab.dir().join(format!("old-{}", node.name()));
    fs::rename(node.dir().join("store"), &aside).unwrap();
    aside
}

fn goes_on_alone(beyond: bool) {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    write_synced(active.mnt().join("before"), "what was there")
        .within(PATIENCE)
        .expect("ends")
        .unwrap();
    if beyond {
        beyond_the_log(&active);
    }
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    // The active one is among the lost.
    let lost = [active.clone(), lab.others(active.name())[0].clone()];
    let last = lab.others(active.name())[1].clone();
    let (ok, said) = recover(&last, &["--force"], "lab\n");
    assert!(!ok && said.contains("is in use"), "{said}");
    let aside = lost.each_ref().map(|node| put_aside(&lab, node));
    last.kill().unwrap();

    let (ok, said) = recover(&last, &[], "");
    assert!(
        ok && said.contains("Nothing was changed") && said.contains("ends at log entry"),
        "{said}"
    );
    let (ok, said) = recover(&last, &["--force"], "another\n");
    assert!(!ok && said.contains("nothing was changed"), "{said}");
    let (ok, said) = recover(&last, &["--force"], "lab\n");
    assert!(
        ok && said.contains("done: ") && said.contains("recovered.jsonl"),
        "{said}"
    );

    let record = fs::read_to_string(last.dir().join("store/recovered.jsonl")).unwrap();
    let (begun, done) = record.trim_end().split_once('\n').expect("a line for each end");
    assert!(begun.contains("begun") && begun.contains("epoch"), "{record}");
    assert!(done.contains("done") && done.contains("last_index"), "{record}");

    // Alone it serves nobody, and says what it waits for.
    last.start().unwrap();
    let waits = wait_for("the notice", PATIENCE, || {
        Ok(status(&last)
            .contains("waits for the first of its new peers")
            .then_some(()))
    });
    waits.unwrap();
    pause(seconds(2));
    assert!(status(&last).contains("no node is active"), "{}", status(&last));

    // A lost node's old store is refused: it doesn't help it to a majority.
    fs::rename(&aside[0], lost[0].dir().join("store")).unwrap();
    lost[0].start().unwrap();
    wait_refused(&lab, 0);
    pause(seconds(3));
    assert!(status(&last).contains("no node is active"), "{}", status(&last));
    lost[0].kill().unwrap();
    fs::remove_dir_all(lost[0].dir().join("store")).unwrap();

    // One new node is enough; before anything is acknowledged it has all.
    lost[1].start().unwrap();
    let serving = lab.wait_ready(seconds(60)).unwrap();
    let serving = lab.node(&serving).clone();
    assert_eq!(content(&serving.mnt().join("before")), b"what was there");
    if beyond {
        assert_eq!(content(&serving.mnt().join("large")).len(), 110 << 20);
    }
    write_synced(serving.mnt().join("after"), "goes on")
        .within(PATIENCE)
        .expect("ends")
        .unwrap();
    let over = wait_for("the end of the recovery", PATIENCE, || {
        Ok((!last.dir().join("store/recovering").exists()).then_some(()))
    });
    over.unwrap();

    // And the third.
    lost[0].start().unwrap();
    lab.wait_all_up_to_date(seconds(60)).unwrap();
    assert_same(&lab);
    let switched = wait_for("the switch", PATIENCE, || {
        let output = serving.exec_within(&["holdfast", "switchover", "--to", lost[0].name()], seconds(60))?;
        Ok(output.status.success().then_some(()))
    });
    switched.unwrap();
    assert_eq!(content(&lost[0].mnt().join("before")), b"what was there");
    assert_eq!(content(&lost[0].mnt().join("after")), b"goes on");

    // The other old store, long after.
    lost[1].kill().unwrap();
    fs::remove_dir_all(lost[1].dir().join("store")).unwrap();
    fs::rename(&aside[1], lost[1].dir().join("store")).unwrap();
    let before = refusals(&lab);
    lost[1].start().unwrap();
    wait_refused(&lab, before);
    assert_eq!(content(&lost[0].mnt().join("after")), b"goes on");
}

/// How often any node has said that another one's file system isn't its own.
fn refusals(lab: &Lab) -> usize {
    let words = "were made at different times";
    let counts = lab
        .nodes()
        .iter()
        .map(|node| common::log(node, "holdfast").matches(words).count());
    counts.sum()
}

fn wait_refused(lab: &Lab, before: usize) {
    let refused = wait_for("the refusal", PATIENCE, || Ok((refusals(lab) > before).then_some(())));
    refused.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(30)));
}

#[test]
fn the_last_node_goes_on_and_its_new_peers_get_a_copy() {
    goes_on_alone(true);
}

#[test]
fn the_last_node_goes_on_with_a_young_store() {
    goes_on_alone(false);
}
