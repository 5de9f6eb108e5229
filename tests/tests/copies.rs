//! Nodes that can't come back by the log get a copy of the active node's store, by differences, while it is in use.

mod common;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use common::{
    Appender, PATIENCE, apart::apart, assert_records, assert_same, content, lab, log, ready, seconds, start,
    wait_logged, wait_other,
};
use holdfast_tests::clock::wait_for;
use holdfast_tests::lab::{Lab, LabOptions, Node};

const MIB: usize = 1 << 20;
/// More than the log of a lab holds.
const LOG: usize = 64;

/// Bytes that look random, the same for the same seed.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A large file, many small ones, holes, links, modes.
fn make_tree(mnt: PathBuf) {
    let made = apart(move || {
        fs::write(mnt.join("large"), bytes(1, 40 * MIB))?;
        fs::create_dir(mnt.join("small"))?;
        for number in 0..400_u64 {
            fs::write(
                mnt.join(format!("small/{number}")),
                bytes(number, 100 + 40 * number as usize),
            )?;
        }
        File::create(mnt.join("sparse"))?.write_all_at(b"far", 3 << 40)?;
        fs::hard_link(mnt.join("large"), mnt.join("link"))?;
        std::os::unix::fs::symlink("large", mnt.join("symbolic"))?;
        fs::set_permissions(mnt.join("small/7"), PermissionsExt::from_mode(0o4710))?;
        File::open(mnt.join("large"))?.sync_all()
    });
    made.within(seconds(120)).expect("making the tree ends").unwrap();
}

/// A lab, its active node with the tree, and a standby.
fn with_tree() -> (Lab, Node, Node) {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    make_tree(active.mnt());
    let standby = lab.others(active.name())[0].clone();
    (lab, active, standby)
}

/// Overwrites one file until no log of the lab reaches back to where it began.
fn outrun_the_log(mnt: PathBuf) {
    let made = apart(move || {
        let file = File::create(mnt.join("churned"))?;
        for round in 0..(3 * LOG as u64 / 8) {
            file.write_all_at(&bytes(round, 8 * MIB), 0)?;
            file.sync_all()?;
        }
        io::Result::Ok(())
    });
    made.within(seconds(200)).expect("churning ends").unwrap();
}

fn lose_store(node: &Node) {
    node.kill().unwrap();
    fs::remove_dir_all(node.dir().join("store")).unwrap();
}

/// What the node's daemon said at the end of its last copy: bytes of data that came.
fn bytes_copied(node: &Node) -> usize {
    let text = log(node, "holdfast");
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("what differed has been copied"));
    let line = line.unwrap_or_else(|| panic!("{} made no copy:\n{}", node.name(), node.log_tails(30)));
    let (_, rest) = line.split_once(" bytes=").expect("it says how many bytes");
    rest.split(' ').next().expect("a word").parse().expect("a number")
}

/// The copied node can be the only one that is left of the two that had the data, and serves it.
fn serves_alone_with(lab: &Lab, copied: &Node) {
    // To a node that has just started nobody hands the role over.
    wait_for("a switch to the copied node", PATIENCE, || {
        let words = ["holdfast", "switchover", "--to", copied.name()];
        Ok(lab.exec(copied.name(), &words)?.status.success().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    lab.wait_writable(copied.name(), PATIENCE).unwrap();
    assert_eq!(content(&copied.mnt().join("large")), bytes(1, 40 * MIB));
    assert_eq!(content(&copied.mnt().join("small/399")), bytes(399, 100 + 40 * 399));
}

#[test]
fn a_node_whose_disk_is_new_gets_a_whole_copy() {
    let (lab, active, lost) = with_tree();
    lose_store(&lost);
    let writer = Appender::start(active.mnt().join("records"), true);
    writer.wait_for(100);
    lost.start().unwrap();
    wait_logged(&lost, "holdfast", &["the copy is whole"]);
    let (acknowledged, error) = writer.finish();
    assert!(error.is_none(), "{error:?}");
    assert_same(&lab);
    assert_records(&active.mnt().join("records"), acknowledged);
    // It is a member like any other: with its help alone another node may be lost.
    lab.others(active.name())
        .into_iter()
        .find(|node| node.name() != lost.name())
        .expect("a third")
        .kill()
        .unwrap();
    serves_alone_with(&lab, &lost);
    assert_same(&lab);
}

#[test]
fn a_node_that_was_away_too_long_gets_what_differs() {
    let (lab, active, away) = with_tree();
    away.kill().unwrap();
    outrun_the_log(active.mnt());
    away.start().unwrap();
    wait_logged(&away, "holdfast", &["what differed has been copied"]);
    assert_same(&lab);
    let came = bytes_copied(&away);
    assert!(
        (8 * MIB..20 * MIB).contains(&came),
        "8 MiB of some 60 have changed, and {came} bytes came"
    );
    serves_alone_with(&lab, &away);
}

/// How many copies the daemon says that it has begun to give.
fn begun(source: &Node) -> usize {
    log(source, "holdfast").matches("a copy of this store begins").count()
}

/// Killed in the middle, and its source killed in the middle; under a load that goes on.
#[test]
fn a_copy_that_is_broken_off_goes_on() {
    let (lab, active, lost) = with_tree();
    lose_store(&lost);
    let writer = Appender::start(active.mnt().join("records"), true);
    // The first time it asks beforehand whether a copy would be given.
    for asks in [2, 1, 1] {
        lost.kill().unwrap();
        let before = begun(&active);
        lost.start().unwrap();
        wait_for("a copy under way", PATIENCE, || {
            let whole = log(&lost, "holdfast").contains("the copy is whole");
            Ok((whole || begun(&active) >= before + asks).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lost.log_tails(20)));
    }
    // Nobody but the source and a third node have all: the copy waits until both are back.
    active.kill().unwrap();
    let (acknowledged, _) = writer.finish();
    let goes_on = start({
        let active = active.clone();
        move || active.start().map(drop)
    });
    goes_on.within(PATIENCE).expect("starting ends").unwrap();
    lab.wait_active(PATIENCE).unwrap();
    assert_same(&lab);
    let now_active = lab.wait_ready(PATIENCE).unwrap();
    assert_records(&lab.node(&now_active).mnt().join("records"), acknowledged);
    assert_eq!(content(&lab.node(&now_active).mnt().join("large")), bytes(1, 40 * MIB));
}

/// A disk that was lost comes back with an old store: nobody listens to it.
#[test]
fn an_old_store_that_comes_back_after_a_copy_is_copied_over() {
    let (lab, active, node) = with_tree();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    node.kill().unwrap();
    let (store, old) = (node.dir().join("store"), node.dir().join("old-store"));
    fs::rename(&store, &old).unwrap();
    node.start().unwrap();
    wait_logged(&node, "holdfast", &["the copy is whole"]);
    assert_same(&lab);
    node.kill().unwrap();
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&old, &store).unwrap();
    node.start().unwrap();
    wait_for("the second copy", PATIENCE, || {
        Ok((log(&node, "holdfast").matches("the copy is whole").count() == 2).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", node.log_tails(20)));
    assert!(bytes_copied(&node) < MIB, "it had all of the files");
    assert_same(&lab);
    // And a failover to it works.
    active.kill().unwrap();
    let next = wait_other(&lab, &active);
    assert_eq!(content(&next.mnt().join("large")), bytes(1, 40 * MIB));
}

/// Two nodes that lost their disks begin nothing beside the third, which has the data; and where they did, because it wasn't
/// there, its data stays.
#[test]
fn the_last_node_with_the_data_is_not_copied_over() {
    let (lab, active, _) = with_tree();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let emptied: Vec<Node> = lab.others(active.name()).into_iter().cloned().collect();
    for node in lab.nodes() {
        node.kill().unwrap();
    }
    for node in &emptied {
        fs::remove_dir_all(node.dir().join("store")).unwrap();
    }
    active.start().unwrap();
    for node in &emptied {
        node.start().unwrap();
        wait_logged(node, "holdfast", &["connected peer", active.name()]);
    }
    let elected = lab.wait_active(seconds(8));
    assert!(elected.is_err(), "{elected:?} begins an empty file system");

    active.kill().unwrap();
    for node in &emptied {
        node.kill().unwrap();
        fs::remove_dir_all(node.dir().join("store")).unwrap();
        node.start().unwrap();
    }
    lab.wait_active(PATIENCE).unwrap();
    active.start().unwrap();
    wait_logged(&active, "holdfast", &["they were made at different times"]);
    holdfast_tests::clock::pause(seconds(4));
    assert!(!active.dir().join("store/copying").exists());
    active.kill().unwrap();
    let out = active.dir().join("out");
    let config = active.files().config().display().to_string();
    let exported = active
        .exec_within(
            &[
                "holdfast",
                "export",
                "--config",
                &config,
                "--out",
                &out.display().to_string(),
            ],
            PATIENCE,
        )
        .unwrap();
    assert!(
        exported.status.success(),
        "{}",
        String::from_utf8_lossy(&exported.stderr)
    );
    assert_eq!(fs::read(out.join("large")).unwrap(), bytes(1, 40 * MIB));
}
