//! Power cuts: of all three machines at once, in every class, and of one, two and all three again and again under a
//! load (`holdfast_tests::power`; more of them in `make power`).

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use common::classes::{CLASSES, directory_of};
use common::disks::{Disk, command, folder, in_folder};
use common::replace::{replace, version, version_in};
use common::{Appender, PATIENCE, assert_records, assert_same, content, lab, ready, seconds, write};
use holdfast_tests::clock::{pause, wait_for};
use holdfast_tests::lab::LabOptions;
use holdfast_tests::process::{ProcessId, run, wait_child};
use rustix::process::Signal;

/// Every disk is an image on an XFS that can copy a file in one moment.
struct Machine {
    // In this order: what lies on another one goes first.
    disks: Vec<Disk>,
    _ground: Disk,
    folder: tempfile::TempDir,
}

impl Machine {
    fn make() -> Self {
        let folder = folder();
        let mkfs = ["mkfs.xfs", "-q", "-m", "reflink=1"];
        let ground = Disk::make(
            folder.path().join("ground.img"),
            folder.path().join("ground"),
            4096,
            &mkfs,
        );
        let disks = in_folder(folder.path(), ground.point(), [700; 3]);
        Self {
            disks,
            _ground: ground,
            folder,
        }
    }

    /// The disks as they are now.
    fn snapshot(&self) -> Vec<std::path::PathBuf> {
        let copies = self.disks.iter().map(|disk| {
            let copy = disk.image().with_extension("cut");
            command(&[
                "cp",
                "--reflink=always",
                disk.image().to_str().unwrap(),
                copy.to_str().unwrap(),
            ]);
            copy
        });
        copies.collect()
    }

    /// Turns the machines on again with those disks.
    fn restore(&mut self, copies: Vec<std::path::PathBuf>) {
        for (disk, copy) in self.disks.iter_mut().zip(copies) {
            disk.swap(copy);
        }
    }
}

#[test]
fn what_was_synced_survives_a_power_cut_of_all_three() {
    let mut machine = Machine::make();
    let store = machine.folder.path().join("{node}/store");
    let lab = lab(LabOptions::default().set("store.path", store.to_str().unwrap()));
    let active = ready(&lab);
    let path = |name: &str| active.mnt().join(name);
    // Old content that is written over, so that a lost write would show what was there before.
    write(path("received"), vec![0xEE; 1 << 20])
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    let received = Appender::start(path("received.records"), false);
    let durable = [
        Appender::start(path("durable-0"), true),
        Appender::start(path("durable-1"), true),
    ];
    let replaced = CLASSES.map(|class| {
        let root = directory_of(class, &active.mnt());
        fs::write(root.join("file"), version(0)).unwrap();
        fs::File::open(&root).unwrap().sync_all().unwrap();
        replace(root)
    });
    durable[0].wait_for(60);
    pause(Duration::from_millis(rand::random_range(0..1500)));
    let acknowledged: Vec<u64> = durable.iter().map(Appender::acknowledged).collect();
    let copies = machine.snapshot();
    for node in lab.nodes() {
        node.kill().unwrap();
    }
    for appender in durable {
        appender.finish();
    }
    received.finish();
    for replaced in replaced {
        replaced.within(PATIENCE).expect("it ends with its mount");
    }
    machine.restore(copies);
    for node in lab.nodes() {
        node.start().unwrap();
    }
    let active = lab
        .wait_ready(PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(30)));
    for (at, acknowledged) in acknowledged.into_iter().enumerate() {
        assert_records(&lab.node(&active).mnt().join(format!("durable-{at}")), acknowledged);
    }
    for class in CLASSES {
        let found = content(&lab.node(&active).mnt().join(class).join("file"));
        let number = version_in(&found).unwrap_or_else(|| panic!("{class}: empty, or a mixture of versions"));
        println!("{class}: version {number}");
    }
    // Records that were only received may be fewer, but what is there is right.
    assert_records(&lab.node(&active).mnt().join("received.records"), 0);
    assert_same(&lab);
}

fn power(cuts: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-power"));
    command.args(["--cuts", cuts]);
    command
}

#[test]
fn what_was_acknowledged_survives_power_cuts_of_one_two_and_all_three_nodes() {
    let output = run(&mut power("7"), seconds(600)).unwrap();
    let (said, problem) = (output.stdout, output.stderr);
    let (said, problem) = (String::from_utf8_lossy(&said), String::from_utf8_lossy(&problem));
    println!("{said}");
    assert!(output.status.success(), "{problem}");
    for kind in ["all three", "two nodes", "lost: 0"] {
        assert!(said.contains(kind), "no word of {kind}");
    }
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    let mut child = power("1000").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let first = lines.next().expect("it says what it does");
    let dir = first
        .split("three nodes in ")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let dir = Path::new(dir.expect("it says where")).to_owned();
    // In the midst of a cut, perhaps, or of the load.
    lines.find(|line| line.contains("cut 1: ")).expect("it cuts");
    pause(Duration::from_millis(rand::random_range(0..6000)));
    let process = ProcessId::of(child.id().cast_signed()).unwrap();
    process.signal(Signal::TERM).unwrap();
    assert!(wait_child(&mut child, seconds(120)).unwrap(), "it ends");
    let name = dir.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    assert!(!dir.exists(), "{name} is still there");
    // The kernel lets them go by itself, each a moment after the file system on it is gone.
    wait_for("its loop devices to go", PATIENCE, || {
        let list = ["--list", "--noheadings", "--output", "BACK-FILE"];
        let said = run(Command::new("losetup").args(list), PATIENCE)?.stdout;
        let loops = String::from_utf8_lossy(&said).into_owned();
        ensure!(!loops.contains(name), "{loops}");
        Ok(Some(()))
    })
    .unwrap();
}
