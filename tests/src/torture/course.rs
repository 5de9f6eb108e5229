//! Workers of all kinds at once, on a cluster under faults or on a folder of any file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum as _;

use super::work::Kind;
use crate::clock::{Deadline, pause};
use crate::faults::Faults;
use crate::lab::{CheckVerdict, Lab};
use crate::process::wait_child;

const BACK_LIMIT: Duration = Duration::from_secs(60);
const UP_TO_DATE_LIMIT: Duration = Duration::from_secs(120);
/// A worker ends with its operation, after a failover at the latest.
const END_LIMIT: Duration = Duration::from_secs(180);
/// Each has a place of its own in what they share.
const MOST_WORKERS: u64 = 64;
/// Below the mount's root.
const FOLDER: &str = "torture";

pub struct Course {
    /// The program that has the hidden command `work`.
    pub program: PathBuf,
    pub seed: u64,
    pub workers: u64,
    pub length: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    pub operations: u64,
    /// Operations whose outcome a fault left open.
    pub open: u64,
    pub faults: u64,
}

impl Course {
    /// On a folder that must behave as the model does, without excuse: how the model itself is tested.
    ///
    /// # Errors
    /// What was wrong, with the last operations of the worker that saw it.
    pub fn on_folder(&self, folder: &Path) -> Result<Figures> {
        let workers = self.start(&[folder.to_owned()])?;
        let end = Deadline::after(self.length);
        while !end.passed() && workers.all_run() {
            pause(Duration::from_millis(100).min(end.left()));
        }
        workers.finish()
    }

    /// On a cluster, under random faults.
    ///
    /// # Errors
    /// As of `on_folder`, or the cluster doesn't come back, or its replicas differ.
    pub fn on_lab(&self, lab: &Lab, say: impl Fn(&str)) -> Result<Figures> {
        let roots: Vec<PathBuf> = lab.nodes().iter().map(|node| node.mnt()).collect();
        let active = lab.wait_ready(BACK_LIMIT)?;
        fs::create_dir(lab.node(&active).mnt().join(FOLDER)).context("making the workers' folder")?;
        let workers = self.start(&roots)?;
        let count = self.strike(lab, &workers, say);
        // What a worker has found comes first: that the lab is unwell may follow from it.
        let figures = workers.finish()?;
        let count = count?;
        lab.wait_all_up_to_date(UP_TO_DATE_LIMIT)?;
        let checked = lab.check()?;
        ensure!(
            checked.verdict == CheckVerdict::Same,
            "`holdfast check`: {}",
            checked.said
        );
        Ok(Figures {
            faults: count,
            ..figures
        })
    }

    /// Faults until the time is over or a worker ends; returns how many.
    fn strike(&self, lab: &Lab, workers: &Workers, say: impl Fn(&str)) -> Result<u64> {
        let mut faults = Faults::new(lab, self.seed);
        let mut count = 0;
        let end = Deadline::after(self.length);
        while !end.passed() && workers.all_run() {
            lab.wait_all_up_to_date(UP_TO_DATE_LIMIT)?;
            let active = lab.wait_active(BACK_LIMIT)?;
            faults.pause(500, 4000);
            let acts = faults.round(&active)?;
            count += acts.len() as u64;
            let told: Vec<String> = acts.iter().map(|act| act.told(&active)).collect();
            say(&told.join(", then "));
        }
        lab.wait_all_up_to_date(UP_TO_DATE_LIMIT)?;
        Ok(count)
    }

    fn start(&self, roots: &[PathBuf]) -> Result<Workers> {
        ensure!(
            self.workers <= MOST_WORKERS,
            "at most {MOST_WORKERS} workers share a file"
        );
        let mut workers = Workers(Vec::new());
        for number in 0..self.workers {
            // Half of them alone, on bytes most of the time: that is where most of the code is.
            let (kind, folder) = match number % 6 {
                0 | 2 => (Kind::Data, format!("{FOLDER}/{number}")),
                4 => (Kind::Names, format!("{FOLDER}/{number}")),
                _ => (Kind::Shared, format!("{FOLDER}/shared")),
            };
            fs::create_dir_all(existing(roots)?.join(&folder)).context("making a worker's folder")?;
            let kind = kind.to_possible_value().expect("no kind is hidden");
            let mut command = Command::new(&self.program);
            command.args(["work", kind.get_name(), "--folder", &folder]);
            command.args(["--seed", &(self.seed * 1000 + number).to_string()]);
            command
                .args(roots)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let child = command
                .spawn()
                .with_context(|| format!("starting {}", self.program.display()))?;
            workers.0.push(child);
        }
        Ok(workers)
    }
}

/// The root that can be written to: before any fault.
fn existing(roots: &[PathBuf]) -> Result<&PathBuf> {
    match roots {
        [one] => Ok(one),
        several => several
            .iter()
            .find(|root| root.join(FOLDER).is_dir())
            .context("no node is active"),
    }
}

/// Killed when dropped.
struct Workers(Vec<Child>);

impl Workers {
    fn all_run(&self) -> bool {
        self.0
            .iter()
            .all(|child| crate::process::ProcessInfo::read(child.id().cast_signed()).is_some())
    }

    fn finish(mut self) -> Result<Figures> {
        let mut figures = Figures::default();
        for child in &mut self.0 {
            drop(child.stdin.take());
        }
        let mut findings = Vec::new();
        for child in std::mem::take(&mut self.0) {
            match result(child) {
                Ok((operations, open)) => {
                    figures.operations += operations;
                    figures.open += open;
                }
                Err(finding) => findings.push(format!("{finding:#}")),
            }
        }
        ensure!(findings.is_empty(), "{}", findings.join("\n"));
        Ok(figures)
    }
}

/// What a worker says at its end; one that doesn't end is killed.
fn result(mut child: Child) -> Result<(u64, u64)> {
    if !wait_child(&mut child, END_LIMIT)? {
        drop(child.kill());
        bail!("a worker hangs");
    }
    let output = child.wait_with_output().context("reading what a worker says")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let mut numbers = said.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(operations)), Some(Ok(open))) => Ok((operations, open)),
        _ => bail!("a worker says {said:?}"),
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that hangs in a system call ends with the mount.
            drop(child.kill());
            drop(wait_child(child, Duration::from_secs(1)));
            crate::process::collect(child.id().cast_signed());
        }
    }
}
