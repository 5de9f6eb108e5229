//! A disk that stops answering, gets slow, fails, can't be read or is full: the node says so and isn't active any more,
//! nobody waits for it, and nothing acknowledged is lost.

mod common;

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use common::disks::{Disk, Disks};
use common::{
    Appender, PATIENCE, SLACK, assert_all_run, assert_records, assert_same, content, lab, ready, seconds, wait_other,
};
use common::{write, write_synced};
use holdfast_tests::clock::{now, pause, wait_for};
use holdfast_tests::lab::{Lab, LabOptions, Node, cluster_status};
use rustix::process::Signal;

/// What the cluster says about a node: its role, and every notice.
fn said_of(lab: &Lab, node: &Node) -> anyhow::Result<(String, String)> {
    let view = lab.status()?;
    let entry = cluster_status::entry(&view, node.name());
    let role = entry["role"].as_str().context("a node without a role")?;
    Ok((role.to_owned(), entry.to_string()))
}

fn wait_said(lab: &Lab, node: &Node, words: &str) -> String {
    let role = wait_for(&format!("{} to say {words:?}", node.name()), PATIENCE, || {
        let (role, said) = said_of(lab, node)?;
        Ok(said.contains(words).then_some(role))
    });
    role.unwrap_or_else(|error| panic!("{error:#}\n{:?}\n{}", said_of(lab, node), lab.log_tails(30)))
}

/// Writes and syncs with no call longer than a healthy cluster takes.
fn assert_nobody_waits(active: &Node, tag: &str) {
    for number in 0..30 {
        let began = now();
        write_synced(active.mnt().join(format!("{tag}-{number}")), vec![7; 20_000])
            .within(PATIENCE)
            .unwrap()
            .unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "{tag}: {:?}",
            began.elapsed()
        );
    }
}

/// Records written and synced while `break_disk` takes the active node's disk away are all on the next active node.
fn assert_role_moves<T>(lab: &Lab, break_disk: impl FnOnce(&Node) -> T, why: &str) -> (Node, Node, T) {
    let old = ready(lab);
    let records = |node: &Node| node.mnt().join("records");
    let appender = Appender::start(records(&old), true);
    appender.wait_for(30);
    let broken = break_disk(&old);
    let new = wait_other(lab, &old);
    let (acknowledged, _error) = appender.finish();
    assert_records(&records(&new), acknowledged);
    wait_said(lab, &old, why);
    (old, new, broken)
}

#[test]
fn an_active_node_gives_the_role_away_when_its_disk_stops_answering() {
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options());
    let began = now();
    let (old, new, frozen) = assert_role_moves(&lab, |old| disks.of(old.name()).freeze(), "its disk doesn't answer");
    assert!(began.elapsed() < seconds(20) + SLACK, "it took {:?}", began.elapsed());
    let view = lab.status().unwrap();
    assert!(
        view.to_string()
            .contains(&format!("{} gave the role away: its disk doesn't answer", old.name())),
        "{view:#}"
    );
    // As a standby it delays nobody.
    assert_nobody_waits(&new, "stalled-standby");
    drop(frozen);
    assert_same(&lab);
    wait_said(&lab, &old, "was in trouble until a moment ago");
}

#[test]
fn a_slow_disk_moves_the_role_and_a_slow_standby_delays_nobody() {
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options());
    let slow = |node: &Node| Slow::start(disks.of(node.name()));
    let (old, new, slow) = assert_role_moves(&lab, slow, "its disk is slow");
    assert_nobody_waits(&new, "slow-standby");
    drop(slow);
    drop(old);
    assert_same(&lab);
}

/// A disk that writes only for a moment three times a second.
struct Slow {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Slow {
    fn start(disk: &Disk) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, freezer) = (Arc::clone(&stop), disk.freezer());
        let thread = thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                let frozen = freezer.freeze();
                pause(Duration::from_millis(350));
                drop(frozen);
                pause(Duration::from_millis(5));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

#[test]
fn a_node_whose_disk_fails_stops_by_itself_and_says_why() {
    let mut disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options());
    let fail = |node: &Node| disks.of(node.name()).fail();
    let (old, new, ()) = assert_role_moves(&lab, fail, "Input/output error");
    let (role, _) = said_of(&lab, &old).unwrap();
    assert_eq!(role, "halted");
    assert!(old.daemon("holdfast").is_some(), "it stays, to be asked");
    assert_nobody_waits(&new, "failed");
    // The disk was only loose.
    old.kill().unwrap();
    disks.again(old.name());
    assert_same(&lab);
    // And on a standby.
    let standby = lab.others(new.name())[0].clone();
    disks.of(standby.name()).fail();
    assert_nobody_waits(&new, "failed-standby");
    assert_eq!(wait_said(&lab, &standby, "Input/output error"), "halted");
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), new.name());
    standby.kill().unwrap();
    disks.again(standby.name());
    assert_same(&lab);
}

#[test]
fn an_active_node_that_cannot_read_its_disk_gives_the_role_away() {
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options());
    let first = ready(&lab);
    write_synced(first.mnt().join("file"), vec![9; 3_000_000])
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    // Neither the daemon nor the kernel of the next active node has it in memory.
    let second = lab.others(first.name())[0].clone();
    // A check is an entry of the log: all before it is carried out, so nothing is written to the file later on.
    assert_same(&lab);
    let daemon = second.daemon("holdfast").unwrap().id;
    daemon.signal(Signal::TERM).unwrap();
    wait_for("the daemon to end", PATIENCE, || Ok((!daemon.alive()).then_some(()))).unwrap();
    spoil_largest(&disks.of(second.name()).point().join("store/data"));
    second.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    switch(&lab, &second);
    let failed = common::read(second.mnt().join("file"))
        .within(PATIENCE)
        .expect("a read ends");
    failed.expect_err("it can't be read there");
    let next = wait_other(&lab, &second);
    assert_eq!(content(&next.mnt().join("file")), vec![9; 3_000_000]);
    wait_said(&lab, &second, "its disk can't be read");
}

fn switch(lab: &Lab, to: &Node) {
    wait_for("the switch", PATIENCE, || {
        let output = lab.exec(to.name(), &["holdfast", "switchover", "--to", to.name()])?;
        Ok(output.status.success().then_some(()))
    })
    .unwrap();
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), to.name());
}

fn spoil_largest(folder: &Path) {
    let folders = fs::read_dir(folder).unwrap().flatten();
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten());
    let largest = files.max_by_key(|file| file.metadata().unwrap().len()).expect("a file");
    // Whoever opens it for reading is refused, as by a disk that can't find the sector.
    fs::remove_file(largest.path()).unwrap();
    fs::create_dir(largest.path()).unwrap();
}

#[test]
fn a_standby_with_a_smaller_disk_delays_nobody_and_goes_on_when_it_has_room() {
    let disks = Disks::ext4([1400, 1400, 700]);
    let ballast = disks.of("n3").point().join("ballast");
    let lab = lab(disks.options());
    let active = ready(&lab);
    let active = if active.name() == "n3" {
        switch(&lab, lab.node("n1"));
        lab.node("n1").clone()
    } else {
        active
    };
    fs::write(&ballast, vec![1; 360 << 20]).unwrap();
    let small = lab.node("n3").clone();
    for number in 0..120_u8 {
        let began = now();
        write_synced(active.mnt().join(format!("file-{number}")), vec![number; 2_500_000])
            .within(PATIENCE)
            .unwrap()
            .unwrap_or_else(|error| panic!("file {number}: {error}\n{}", lab.log_tails(20)));
        assert!(began.elapsed() < seconds(5), "file {number} took {:?}", began.elapsed());
        if said_of(&lab, &small).unwrap().1.contains("applying waits for room") && number > 100 {
            break;
        }
    }
    wait_said(&lab, &small, "applying waits for room");
    assert!(small.daemon("holdfast").is_some());
    assert_nobody_waits(&active, "full-standby");
    fs::remove_file(&ballast).unwrap();
    lab.wait_all_up_to_date(PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    write(active.mnt().join("after"), "x")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    assert_same(&lab);
}

/// Its log can't be trimmed while nothing is applied, and fills up; votes must not wait behind what doesn't fit.
#[test]
fn a_standby_whose_disk_and_log_are_full_still_votes() {
    let disks = Disks::ext4([1400, 1400, 700]);
    let ballast = disks.of("n3").point().join("ballast");
    let lab = lab(disks.options());
    if ready(&lab).name() != "n1" {
        switch(&lab, lab.node("n1"));
    }
    let (active, small) = (lab.node("n1").clone(), lab.node("n3").clone());
    fs::write(&ballast, vec![1; 550 << 20]).unwrap();
    let mut beyond = 0;
    for number in 0..160_u8 {
        let file = active.mnt().join(format!("file-{}", number % 20));
        write_synced(file, vec![number; 2_500_000])
            .within(PATIENCE)
            .unwrap()
            .unwrap_or_else(|error| panic!("write {number}: {error}\n{}", lab.log_tails(20)));
        // A log of 64 MiB and half of one more.
        beyond += usize::from(said_of(&lab, &small).unwrap().1.contains("applying waits for room"));
        if beyond > 40 {
            break;
        }
    }
    assert!(beyond > 40, "n3 took all of it\n{}", lab.log_tails(20));
    active.kill().unwrap();
    let follows = wait_for("n3 to vote for n2 and follow it", PATIENCE, || {
        let answer = lab.exec("n3", &["holdfast", "status", "--json"])?;
        let status: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let own = nodes.into_iter().find(|node| node["name"] == "n3");
        Ok(own.filter(|own| own["leader"] == "n2").map(drop))
    });
    follows.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    // What n2 sequences n3 can't take: nothing is served before another node is back.
    active.start().unwrap();
    lab.wait_ready(PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    fs::remove_file(&ballast).unwrap();
    lab.wait_all_up_to_date(PATIENCE * 3)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    assert_same(&lab);
}

/// Writes and syncs until there is no room, and that has to be the reason.
fn fill_until_refused(lab: &Lab, active: &Node) {
    let refused = (0..150_u8).find_map(|number| {
        let file = active.mnt().join(format!("file-{number}"));
        let outcome = write_synced(file, vec![number; 2_500_000]).within(PATIENCE);
        outcome.expect("a write ends").err()
    });
    let refused = refused.unwrap_or_else(|| panic!("375 MB were taken\n{}", lab.log_tails(10)));
    assert_eq!(
        refused.raw_os_error(),
        Some(libc::ENOSPC),
        "{refused}\n{}",
        lab.log_tails(20)
    );
    wait_said(lab, active, "below its reserve");
}

fn wait_room(lab: &Lab, active: &Node) {
    let written = wait_for("room for writing", PATIENCE, || {
        let written = write_synced(active.mnt().join("again"), vec![1; 1 << 20]).within(PATIENCE);
        Ok(written.and_then(Result::ok))
    });
    written.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
}

#[test]
fn two_standbys_that_are_full_refuse_what_needs_room_before_anything_stops() {
    let disks = Disks::ext4([1400, 700, 700]);
    let lab = lab(disks.options());
    let active = ready(&lab);
    if active.name() != "n1" {
        switch(&lab, lab.node("n1"));
    }
    let active = lab.node("n1").clone();
    let ballast = ["n2", "n3"].map(|node| disks.of(node).point().join("ballast"));
    for file in &ballast {
        fs::write(file, vec![1; 420 << 20]).unwrap();
    }
    fill_until_refused(&lab, &active);
    // What needs no room goes on, and so do the nodes.
    let removed = active.mnt().join("file-0");
    common::start(move || fs::remove_file(removed))
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    assert_all_run(&lab);
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), "n1");
    // One of them that has room again is enough.
    fs::remove_file(&ballast[0]).unwrap();
    wait_room(&lab, &active);
    fs::remove_file(&ballast[1]).unwrap();
    lab.wait_all_up_to_date(PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    assert_same(&lab);
}

/// So that so many MiB are left there.
fn leave_free(disk: &Disk, name: &str, mib: u64) {
    let space = rustix::fs::statvfs(disk.point()).unwrap();
    let taken = (space.f_bavail * space.f_frsize).saturating_sub(mib << 20);
    let file = fs::File::create(disk.point().join(name)).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, taken).unwrap();
}

/// A database that may not write over what it has can't even be brought to its end. With a log of 512 MiB that goes on from the
/// reserve of as much down to 384 MiB.
#[test]
fn a_full_store_lets_what_is_there_be_written_over() {
    let disks = Disks::ext4([2400; 3]);
    let lab = lab(LabOptions {
        log_mib: 512,
        ..disks.options()
    });
    let active = ready(&lab);
    let path = active.mnt().join("wal");
    write_synced(path.clone(), vec![1; 4_000_000])
        .within(PATIENCE)
        .expect("a write ends")
        .unwrap();
    let over = |offset: u64, len: usize| {
        let path = path.clone();
        let written = common::start(move || {
            let file = fs::OpenOptions::new().write(true).open(path)?;
            file.write_all_at(&vec![7; len], offset)?;
            file.sync_all()
        });
        let outcome = written.within(PATIENCE).expect("a write ends");
        outcome.map_err(|error| error.raw_os_error())
    };
    for node in lab.nodes() {
        leave_free(disks.of(node.name()), "ballast", 460);
    }
    wait_said(&lab, &active, "below its reserve");
    assert_eq!(over(1_000_000, 100_000), Ok(()));
    assert_eq!(over(3_999_999, 2), Err(Some(libc::ENOSPC)), "it would be longer");
    for node in lab.nodes() {
        leave_free(disks.of(node.name()), "more", 340);
    }
    wait_for("the end of that", PATIENCE, || {
        Ok((over(0, 4096) == Err(Some(libc::ENOSPC))).then_some(()))
    })
    .unwrap();
    // What makes room goes on.
    let removed = path.clone();
    common::start(move || fs::remove_file(removed))
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    assert_all_run(&lab);
}

#[test]
fn an_active_node_that_is_full_alone_says_so_and_another_has_room() {
    let disks = Disks::ext4([700, 1400, 1400]);
    let lab = lab(disks.options());
    let active = ready(&lab);
    if active.name() != "n1" {
        switch(&lab, lab.node("n1"));
    }
    let active = lab.node("n1").clone();
    let ballast = disks.of("n1").point().join("ballast");
    fs::write(&ballast, vec![1; 420 << 20]).unwrap();
    fill_until_refused(&lab, &active);
    assert_all_run(&lab);
    // Nothing is moved by itself: what makes room is done here.
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), "n1");
    switch(&lab, lab.node("n2"));
    wait_room(&lab, lab.node("n2"));
    fs::remove_file(&ballast).unwrap();
    lab.wait_all_up_to_date(PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    assert_same(&lab);
}

#[test]
fn stores_without_free_inodes_refuse_new_files_and_go_on_when_some_are_removed() {
    // 2048 of them are kept free.
    let disks = Disks::of_few_inodes(900, 8_000);
    let lab = lab(disks.options());
    let active = ready(&lab);
    let mount = active.mnt();
    let fill = move || {
        let file = |number: u32| fs::write(mount.join(format!("file-{number}")), "x");
        (0..10_000).find_map(|number| file(number).err().map(|error| (number, error)))
    };
    let refused = common::start(fill).within(seconds(120)).expect("writing ends");
    let (count, error) = refused.unwrap_or_else(|| panic!("no node has 10,000 inodes\n{}", lab.log_tails(10)));
    assert_eq!(
        error.raw_os_error(),
        Some(libc::ENOSPC),
        "file {count}: {error}\n{}",
        lab.log_tails(20)
    );
    assert!(count > 1000, "only {count} files");
    wait_said(&lab, &active, "of bytes or of inodes");
    assert_all_run(&lab);
    // A node that is as full takes over: what makes room is done through its mount.
    active.kill().unwrap();
    let next = lab.wait_active_other_than(active.name(), PATIENCE).unwrap();
    let next = lab.node(&next).clone();
    active.start().unwrap();
    let first = wait_for("a mount that lets a file be removed", PATIENCE, || {
        let file = next.mnt().join("file-0");
        Ok(common::start(move || fs::remove_file(file))
            .within(PATIENCE)
            .and_then(Result::ok))
    });
    first.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    let mount = next.mnt();
    let clear = move || (1..count).try_for_each(|number| fs::remove_file(mount.join(format!("file-{number}"))));
    common::start(clear)
        .within(seconds(120))
        .expect("removing ends")
        .unwrap();
    let again = wait_for("room for writing", PATIENCE, || {
        let written = write_synced(next.mnt().join("again"), vec![1; 1 << 20]).within(PATIENCE);
        Ok(written.and_then(Result::ok))
    });
    again.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    assert_same(&lab);
}

#[test]
fn memory_stays_bounded_on_all_nodes_while_a_standby_takes_nothing() {
    let disks = Disks::ext4([2400; 3]);
    let options = LabOptions {
        log_mib: 512,
        wait: seconds(90),
        ..disks.options()
    };
    let lab = lab(options);
    let active = ready(&lab);
    let standby = lab.others(active.name())[0].clone();
    let frozen = disks.of(standby.name()).freeze();
    let mount = active.mnt();
    let storm = move || {
        let block: Vec<u8> = (0..1 << 18).flat_map(|at: u32| at.to_le_bytes()).collect();
        let mut file = fs::File::create(mount.join("storm"))?;
        (0..300).try_for_each(|_| io::Write::write_all(&mut file, &block))?;
        file.sync_all()
    };
    let done = common::start(storm).within(seconds(120)).expect("the storm ends");
    done.unwrap_or_else(|error| panic!("{error}\n{}", lab.log_tails(20)));
    let resident = |node: &Node| {
        let process = node.daemon("holdfast").expect("it runs").id.pid;
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        // Its greatest moment.
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")).unwrap();
        kib.parse::<u64>().unwrap() >> 10
    };
    for node in lab.nodes() {
        let most = if node.name() == active.name() { 256 } else { 160 };
        let mib = resident(node);
        println!("{}: {mib} MiB at most", node.name());
        assert!(mib < most, "{} had {mib} MiB", node.name());
    }
    drop(frozen);
    lab.wait_all_up_to_date(PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    assert_same(&lab);
}
