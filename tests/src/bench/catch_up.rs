//! How fast a node comes back, how much of the store crosses the network for it, and what those notice who go on meanwhile.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use holdfast_storage::disk::aligned::AlignedBuf;
use rustix::fs::{Mode, OFlags, XattrFlags, setxattr};

use super::figures::{Figure, Laps, megabytes};
use super::files::Recorders;
use super::report::{HOLDFAST, Report};
use super::run::say;
use crate::clock::{now, pause};
use crate::lab::{CheckVerdict, Lab, LabOptions, Node};

const MIB: usize = 1 << 20;
const CHANGED_MIB: usize = 64;
/// Of the second lab: changes soon outrun it.
const SHORT_LOG_MIB: u64 = 64;
const LIMIT: Duration = Duration::from_secs(300);
/// As a check reads.
const READ_AT_ONCE: usize = 4 * MIB;
/// Recordings go on for so long without a copy.
const QUIET: Duration = Duration::from_secs(12);

#[derive(Debug, Args)]
pub struct CatchUp {
    /// Size of the store that is copied.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Each measurement so often; the table has medians.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

struct Measured(Report);

impl Measured {
    fn add(&mut self, figure: Figure) {
        say(HOLDFAST, &figure);
        self.0.add(HOLDFAST, figure);
    }
}

/// Bytes that no compression shortens and no two blocks share.
fn noise(seed: u64) -> Vec<u8> {
    let mut out = vec![0; MIB];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

fn write(path: &Path, mib: usize, seed: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    for number in 0..mib {
        file.write_all(&noise(seed << 32 | number as u64))?;
    }
    file.sync_all().with_context(|| format!("syncing {}", path.display()))
}

/// What the node has heard so far, in bytes.
fn received(lab: &Lab, node: &Node) -> Result<u64> {
    let said = lab.exec(node.name(), &["cat", "/proc/net/dev"])?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let bytes = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() != "lo")
        .filter_map(|(_, counts)| counts.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    ensure!(
        bytes > 0,
        "{} has no network interface that has heard anything",
        node.name()
    );
    Ok(bytes)
}

fn lose_store(node: &Node) -> Result<()> {
    node.kill()?;
    let store = node.dir().join("store");
    fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))
}

fn back(lab: &Lab, node: &Node) -> Result<f64> {
    let began = now();
    node.start()?;
    lab.wait_all_up_to_date(LIMIT)?;
    Ok(began.elapsed().as_secs_f64())
}

impl CatchUp {
    /// # Errors
    /// A node doesn't come back, or the replicas differ.
    pub fn run(&self, dir: &Path) -> Result<Report> {
        println!("three nodes in network namespaces of this machine");
        let mut measured = Measured(Report::default());
        let lab = Lab::up(LabOptions {
            dir: Some(dir.join("lab")),
            log_mib: 1024,
            ..LabOptions::default()
        })?;
        lab.wait_ready(LIMIT)?;
        for round in 0..u64::from(self.rounds) {
            by_the_log(&lab, round, &mut measured)?;
        }
        same(&lab)?;
        lab.down(false)?;

        println!("a log of {SHORT_LOG_MIB} MiB, a store of {} MiB", self.mib);
        let lab = Lab::up(LabOptions {
            dir: Some(dir.join("lab")),
            log_mib: SHORT_LOG_MIB,
            ..LabOptions::default()
        })?;
        let active = lab.wait_ready(LIMIT)?;
        write(&lab.node(&active).mnt().join("large"), self.mib, 1 << 20)?;
        lab.wait_all_up_to_date(LIMIT)?;
        for round in 0..u64::from(self.rounds) {
            self.by_differences(&lab, &active, round, &mut measured)?;
        }
        self.under_load(&lab, &active, &mut measured)?;
        self.compared(&lab, &mut measured)?;
        lab.down(false)?;
        Ok(measured.0)
    }

    /// `holdfast check` beside the rate at which the disk gives the same bytes to three readers at once.
    fn compared(&self, lab: &Lab, measured: &mut Measured) -> Result<()> {
        println!("the replicas are compared, nothing else goes on");
        let stores = lab.nodes().iter().map(|node| files(&node.dir().join("store/data")));
        let stores = stores.collect::<Result<Vec<_>>>()?;
        for _ in 0..self.rounds {
            let began = now();
            let read = std::thread::scope(|scope| {
                let readers: Vec<_> = stores
                    .iter()
                    .map(|files| scope.spawn(|| read_directly(files)))
                    .collect();
                let read = readers
                    .into_iter()
                    .map(|reader| reader.join().expect("a reader doesn't panic"));
                read.sum::<Result<u64>>()
            })?;
            measured.add(Figure::more(
                "three replicas read, no check",
                "MB/s",
                megabytes(read, began.elapsed()),
            ));
            let began = now();
            same(lab)?;
            measured.add(Figure::more(
                "three replicas checked",
                "MB/s",
                megabytes(read, began.elapsed()),
            ));
        }
        Ok(())
    }

    /// One per cent of the store changes, again and again, until the log doesn't reach back.
    fn by_differences(&self, lab: &Lab, active: &str, round: u64, measured: &mut Measured) -> Result<()> {
        let away = lab.others(active)[0];
        away.kill()?;
        let part = (self.mib / 100).max(1);
        let file = File::options().write(true).open(lab.node(active).mnt().join("large"))?;
        for time in 0..=(4 * SHORT_LOG_MIB as usize / part) {
            for at in 0..part {
                let seed = round << 40 | (time as u64) << 20 | at as u64;
                file.write_all_at(&noise(seed), (at * 100 * MIB) as u64)?;
            }
            file.sync_all()?;
        }
        let before = received(lab, away)?;
        let took = back(lab, away)?;
        let crossed = received(lab, away)? - before;
        measured.add(Figure::less(
            "1 % of the store changed beyond the log: back after",
            "s",
            took,
        ));
        let share = crossed as f64 * 100.0 / (self.mib * MIB) as f64;
        measured.add(Figure::less(
            "1 % of the store changed beyond the log: crossed the network",
            "% of it",
            share,
        ));
        Ok(())
    }

    /// A new disk, then checks, while 200 calls are recorded at their own pace.
    fn under_load(&self, lab: &Lab, active: &str, measured: &mut Measured) -> Result<()> {
        println!("200 calls are recorded at their pace, without a copy, beside one, and beside a check");
        let calls = lab.node(active).mnt().join("calls");
        fs::create_dir(&calls)?;
        setxattr(&calls, "holdfast.class", b"recordings", XattrFlags::empty())?;
        let lost = lab.others(active)[0];
        let (phase, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let recorders = Recorders::new(&calls)?;
        let (laps, copies) = std::thread::scope(|scope| {
            let recording = scope.spawn(|| recorders.run(&phase, &stop));
            let beside = || -> Result<Vec<f64>> {
                let mut copies = Vec::new();
                for _ in 0..self.rounds {
                    pause(QUIET);
                    lose_store(lost)?;
                    phase.store(1, Ordering::Relaxed);
                    copies.push(back(lab, lost)?);
                    phase.store(0, Ordering::Relaxed);
                }
                pause(QUIET);
                for _ in 0..self.rounds {
                    phase.store(2, Ordering::Relaxed);
                    same(lab)?;
                    phase.store(0, Ordering::Relaxed);
                    pause(QUIET / 4);
                }
                Ok(copies)
            };
            let copies = beside();
            stop.store(true, Ordering::Relaxed);
            let laps = recording.join().expect("a recorder doesn't panic")?;
            anyhow::Ok((laps, copies?))
        })?;
        let [without, with, checked]: [Laps; 3] = laps;
        for took in copies {
            let speed = (self.mib * MIB) as f64 / 1e6 / took;
            measured.add(Figure::less("a new disk under recordings: back after", "s", took));
            measured.add(Figure::more("a new disk under recordings: copied", "MB/s", speed));
        }
        for (row, laps, part) in [
            ("a recording's write without a copy, median", &without, 0.5),
            ("a recording's write beside a copy, median", &with, 0.5),
            ("a recording's write without a copy, p99", &without, 0.99),
            ("a recording's write beside a copy, p99", &with, 0.99),
            ("a recording's write beside a check, p99", &checked, 0.99),
        ] {
            measured.add(Figure::less(row, "µs", laps.quantile(part)));
        }
        for (row, laps) in [
            ("p99 beside a copy to p99 without", &with),
            ("p99 beside a check to p99 without", &checked),
        ] {
            let ratio = laps.quantile(0.99) / without.quantile(0.99);
            measured.add(Figure::less(row, "×", ratio));
        }
        Ok(())
    }
}

/// A standby was away, then the active node crashed; what came meanwhile is in the log.
fn by_the_log(lab: &Lab, round: u64, measured: &mut Measured) -> Result<()> {
    let active = lab.wait_ready(LIMIT)?;
    lab.wait_all_up_to_date(LIMIT)?;
    let away = lab.others(&active)[0];
    away.kill()?;
    write(&lab.node(&active).mnt().join("changed"), CHANGED_MIB, round << 8)?;
    measured.add(Figure::less(
        "64 MiB changed while a standby was away: back after",
        "s",
        back(lab, away)?,
    ));
    let crashed = lab.node(&active);
    crashed.kill()?;
    let next = lab.wait_active_other_than(&active, LIMIT)?;
    lab.wait_writable(&next, LIMIT)?;
    write(&lab.node(&next).mnt().join("changed"), CHANGED_MIB, round << 8 | 1)?;
    measured.add(Figure::less(
        "the same, by the crashed active node",
        "s",
        back(lab, crashed)?,
    ));
    Ok(())
}

fn same(lab: &Lab) -> Result<()> {
    let checked = lab.check()?;
    ensure!(
        checked.verdict == CheckVerdict::Same,
        "the replicas aren't the same: {}",
        checked.said
    );
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in fs::read_dir(dir)? {
        for file in fs::read_dir(folder?.path())? {
            files.push(file?.path());
        }
    }
    Ok(files)
}

/// Around the page cache. Gives the bytes that were read.
fn read_directly(files: &[PathBuf]) -> Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let (mut block, mut read) = (AlignedBuf::zeroed(READ_AT_ONCE), 0);
    for path in files {
        let file =
            rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("opening {}", path.display()))?;
        let mut at = 0;
        loop {
            let len = rustix::io::pread(&file, &mut block[..], at)?;
            at += len as u64;
            if len < READ_AT_ONCE {
                break;
            }
        }
        read += at;
    }
    Ok(read)
}
