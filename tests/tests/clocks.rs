//! Clocks that are wrong by hours, and jump: files carry the active node's time, and nothing else depends on any.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::sampler::Sampler;
use common::{Appender, PATIENCE, assert_records, assert_same, lab, ready, seconds, wait_other, write};
use holdfast_tests::clock::pause;
use holdfast_tests::lab::{Lab, LabOptions, Node, cluster_status};
use holdfast_tests::process::run_ok;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

/// The wall clock of each node, as its daemons see it.
struct Clocks(TempDir);

impl Clocks {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("holdfast-clocks-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let clocks = Self(folder);
        let (source, library) = (clocks.path("wrong_clock.c"), clocks.path("wrong_clock.so"));
        fs::write(&source, include_str!("clocks/wrong_clock.c")).unwrap();
        let mut compile = Command::new("cc");
        compile.args(["-O1", "-shared", "-fPIC", "-o"]).arg(library).arg(source);
        run_ok(&mut compile, seconds(60)).unwrap_or_else(|error| panic!("{error:#}"));
        for node in ["n1", "n2", "n3"] {
            clocks.set(node, 0);
        }
        clocks
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Hours before or after the true time, from this moment on.
    fn set(&self, node: &str, hours: i64) {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path(node));
        file.unwrap().write_all_at(&(hours * 3600).to_ne_bytes(), 0).unwrap();
    }

    fn options(&self) -> LabOptions {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        LabOptions::default()
            .env("LD_PRELOAD", &text(self.path("wrong_clock.so")))
            .env("WRONG_CLOCK", &text(self.path("{node}")))
    }
}

/// How many hours the file's time is after the true time, to the nearest.
fn hours_ahead(path: &Path) -> i64 {
    let modified = fs::metadata(path).unwrap().mtime();
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    (modified - now + 1800).div_euclid(3600)
}

fn hours_of_a_new_file(node: &Node, name: &str) -> i64 {
    let path = node.mnt().join(name);
    write(path.clone(), "x").within(PATIENCE).unwrap().unwrap();
    hours_ahead(&path)
}

fn term(lab: &Lab) -> u64 {
    let view = lab.status().unwrap();
    let active = cluster_status::active(&view).expect("an active node").to_owned();
    cluster_status::entry(&view, &active)["term"].as_u64().unwrap()
}

#[test]
fn clocks_that_jump_by_hours_move_no_role_and_lose_nothing() {
    let clocks = Clocks::new();
    let lab = lab(clocks.options());
    let old = ready(&lab);
    let sampler = Sampler::start(&lab);
    assert_eq!(hours_of_a_new_file(&old, "before"), 0);
    let term_before = term(&lab);
    let durable = Appender::start(old.mnt().join("durable"), true);
    durable.wait_for(20);
    for (round, hours) in [5, -7, 0, 9, -3].into_iter().enumerate() {
        for (node, hours) in [("n1", hours), ("n2", -hours), ("n3", 2 * hours)] {
            clocks.set(node, hours);
        }
        pause(Duration::from_millis(700));
        let own = match old.name() {
            "n1" => hours,
            "n2" => -hours,
            _ => 2 * hours,
        };
        assert_eq!(
            hours_of_a_new_file(&old, &format!("jump-{round}")),
            own,
            "round {round}"
        );
    }
    durable.wait_for(durable.acknowledged() + 20);
    assert_eq!(term(&lab), term_before, "a jump of a clock moved the role");
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), old.name());

    old.kill().unwrap();
    let new = wait_other(&lab, &old);
    let (acknowledged, _error) = durable.finish();
    assert_records(&new.mnt().join("durable"), acknowledged);
    let own = match new.name() {
        "n1" => -3,
        "n2" => 3,
        _ => -6,
    };
    assert_eq!(hours_of_a_new_file(&new, "after"), own);
    old.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    pause(seconds(1));
    sampler.finish();
    assert_same(&lab);
}
