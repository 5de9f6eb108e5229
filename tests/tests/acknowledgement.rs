//! What write and fsync wait for: one more machine, and one more disk; and that they wait for the faster of the two.

mod common;

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::disks::Disks;
use common::{Held, PATIENCE, SLACK, assert_same, lab, ready, seconds, write, write_synced};
use holdfast_tests::clock::now;
use holdfast_tests::lab::{Lab, LabOptions, Node};

/// One at a time: `apart` may close copies of another test's files, and waits for that where their mount stands still.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_write_is_not_acknowledged_while_both_standbys_are_stopped() {
    let _turn = turn();
    let lab = lab(LabOptions::default().set("mount.request_deadline_ms", 6000));
    let active = ready(&lab);
    let file = Held::new(File::create(active.mnt().join("open")).unwrap());
    for standby in lab.others(active.name()) {
        standby.pause().unwrap();
    }
    // At once: the lease still runs, only the acknowledgement is missing.
    let writes = [
        file.write_at(b"not on two machines", 0),
        file.write_at(b"neither", 4096),
    ];
    let created = write(active.mnt().join("new"), "x");
    let synced = file.sync();
    assert!(
        writes[0].within(seconds(2)).is_none(),
        "a write returned that nobody else has"
    );
    for pending in &writes[1..] {
        let outcome = pending
            .within(seconds(6) + SLACK)
            .expect("a write ends by its deadline");
        outcome.expect_err("it wasn't acknowledged");
    }
    created
        .within(seconds(6) + SLACK)
        .expect("create ends by its deadline")
        .expect_err("nobody else has it");
    synced
        .within(seconds(6) + SLACK)
        .expect("fsync ends by its deadline")
        .expect_err("what it waits for is on one disk");
    for standby in lab.others(active.name()) {
        standby.resume().unwrap();
    }
    lab.wait_ready(PATIENCE).unwrap();
    assert_same(&lab);
}

/// Writes and syncs small files; how long the slowest took.
fn slowest(active: &Node, tag: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 0..30 {
        let (path, began) = (active.mnt().join(format!("{tag}-{number}")), now());
        write_synced(path, "x")
            .within(PATIENCE)
            .expect("it returns")
            .unwrap_or_else(|error| panic!("{tag}: {error}"));
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

fn assert_nobody_waits(lab: &Lab, active: &Node, tag: &str) {
    let took = slowest(active, tag);
    assert!(
        took < Duration::from_millis(900),
        "{tag}: the slowest write and fsync took {took:?}\n{}",
        lab.log_tails(10)
    );
}

#[test]
fn a_stopped_or_dead_standby_delays_nobody() {
    let _turn = turn();
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let standby = lab.others(active.name())[0].clone();
    standby.pause().unwrap();
    assert_nobody_waits(&lab, &active, "stopped");
    standby.resume().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    standby.kill().unwrap();
    assert_nobody_waits(&lab, &active, "dead");
    standby.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    lab.cut(standby.name()).unwrap();
    assert_nobody_waits(&lab, &active, "cut");
    lab.heal().unwrap();
    assert_same(&lab);
}

#[test]
fn a_write_waits_for_memory_and_an_fsync_for_the_disk() {
    let _turn = turn();
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options());
    let active = ready(&lab);
    let file = Held::new(File::create(active.mnt().join("open")).unwrap());
    write_synced(active.mnt().join("before"), "x")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    let other = Held::new(File::create(active.mnt().join("other")).unwrap());
    let standbys: Vec<_> = lab.others(active.name()).into_iter().cloned().collect();
    let first = disks.of(standbys[0].name()).freeze();
    assert_nobody_waits(&lab, &active, "one-disk-held");
    let second = disks.of(standbys[1].name()).freeze();
    let written = file.write_at(b"on two machines", 0).within(seconds(3));
    let created = write(active.mnt().join("created"), "x").within(seconds(3));
    let synced = file.sync();
    let early = synced.within(Duration::from_millis(1500));
    // Into another file: the kernel itself holds a write back while it waits for an fsync of the same one.
    let more = other.write_at(b"more", 0).within(seconds(3));
    drop((first, second));
    assert!(
        matches!(written, Some(Ok(_))),
        "a write waits for memory alone: {written:?}"
    );
    assert!(
        matches!(created, Some(Ok(()))),
        "a create waits for memory alone: {created:?}"
    );
    assert!(
        matches!(more, Some(Ok(_))),
        "a write doesn't wait behind an fsync: {more:?}"
    );
    assert!(
        early.is_none(),
        "an fsync returned while only one disk had it: {early:?}"
    );
    let synced = synced.within(PATIENCE).expect("the fsync returns");
    synced.expect("the disks go on, so it succeeds");
    assert_same(&lab);
}

/// The kernel reports a failed sync once; what isn't on two disks stays so, however often one asks.
#[test]
fn no_fsync_says_yes_after_one_that_failed_until_two_disks_have_it() {
    let _turn = turn();
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options().set("mount.request_deadline_ms", 4000));
    let active = ready(&lab);
    let file = Held::new(File::create(active.mnt().join("open")).unwrap());
    file.sync().within(PATIENCE).unwrap().unwrap();
    let standbys: Vec<_> = lab.others(active.name()).into_iter().cloned().collect();
    let frozen = [0, 1].map(|at| disks.of(standbys[at].name()).freeze());
    let written = file.write_at(b"in memory alone", 0).within(seconds(3));
    assert!(matches!(written, Some(Ok(_))), "{written:?}");
    for attempt in 1..=3 {
        let synced = file.sync().within(seconds(4) + SLACK);
        let error = synced.expect("it ends by its deadline").expect_err("it is on one disk");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "attempt {attempt}");
    }
    drop(frozen);
    lab.wait_ready(PATIENCE).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    file.sync().within(PATIENCE).unwrap().unwrap();
    assert_same(&lab);
}
