//! The course: a cluster with a disk for each node, a PBX's load on it, and power cuts, each followed by a reckoning.
//!
//! What was synced or closed must be there after any cut, and all that was acknowledged before it in any way: changes form one
//! order. What a write alone was acknowledged for since then must be there if one node was cut and all three were up to
//! date. Without a majority nothing may be acknowledged.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::cut::Cut;
use super::figures::Figures;
use super::ledger::Ledger;
use super::load::{UNITS, units};
use super::look::Seen;
use crate::clock::{now, pause, wait_for};
use crate::demo::client::{Client, Place, psql};
use crate::demo::postgresql::programs;
use crate::demo::run::{prepare_database, say};
use crate::demo::sampler::Watcher;
use crate::demo::verify;
use crate::lab::disk::FileSystem;
use crate::lab::{Lab, LabOptions};
use crate::process::{run, run_ok, run_with_input};
use crate::signals::Interrupt;

/// Service must be back so soon after power is.
const BACK_LIMIT: Duration = Duration::from_secs(60);
const UP_TO_DATE_LIMIT: Duration = Duration::from_secs(120);
/// Reading all of the load's files.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
const CHECK_EVERY: u32 = 5;
/// Files of each kind that stay; what is older is removed once it was found right.
const KEPT_FILES: usize = 60;
/// An acknowledgement on its way when the power went is read so soon.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// Cuts that a failure tells of.
const STORY: usize = 8;

pub struct Course {
    pub cuts: u32,
    pub seed: u64,
    /// The program that has the hidden commands `unit`, `load`, `look`, `remove` and `watch`.
    pub program: PathBuf,
    /// Folder of the daemons, if not the program's own.
    pub binaries: Option<PathBuf>,
}

impl Course {
    /// In `dir`, which becomes the lab's. Prints each cut, and the figures at the end. After an
    /// interrupt someone else takes the lab down.
    ///
    /// # Errors
    /// A broken promise, with the cuts before it; or the cluster doesn't come back.
    pub fn run(&self, dir: &Path, interrupt: &Interrupt) -> Result<()> {
        let began = now();
        let mut random = StdRng::seed_from_u64(self.seed);
        let disks = file_systems(&mut random);
        say(
            began,
            &format!(
                "{} power cuts, drawn from seed {}; three nodes in {}, their stores on {}",
                self.cuts,
                self.seed,
                dir.display(),
                disks.map(FileSystem::name).join(", ")
            ),
        );
        let options = LabOptions {
            dir: Some(dir.to_owned()),
            units: units(&self.program)?,
            binaries: self.binaries.clone(),
            ..LabOptions::default()
        };
        let step = interrupt.step()?;
        let lab = Lab::up_without_waiting(&options.with_disks(disks))?;
        drop(step);
        let outcome = self.on(&lab, random, began, interrupt);
        let Ok(_step) = interrupt.step() else {
            std::mem::forget(lab);
            return outcome;
        };
        if outcome.is_err() {
            eprintln!("{}", lab.log_tails(40));
        }
        let down = lab.down(false);
        outcome?;
        down.context("taking the lab down")
    }

    fn on(&self, lab: &Lab, random: StdRng, began: Instant, interrupt: &Interrupt) -> Result<()> {
        lab.wait_ready(BACK_LIMIT)?;
        let place = Place {
            netns: lab.client_netns(),
            vip: lab.vip(),
        };
        prepare_database(lab, &place)?;
        let watcher = Watcher::start(&self.program, lab.dir())?;
        let mut run = Run {
            course: self,
            interrupt,
            lab,
            random,
            client: Client::start(place.clone()),
            place,
            began,
            ledger: Ledger::default(),
            figures: Figures::default(),
            story: Vec::new(),
        };
        say(
            began,
            "a client commits through the address; calls, synced records and a setting are written",
        );
        run.all().map_err(|error| error.context(run.told()))?;
        let seen = watcher.finish()?;
        ensure!(
            seen.violations.is_empty(),
            "{}\n{}",
            run.told(),
            seen.violations.join("\n")
        );
        run.amcheck()?;
        let transactions = run.client.acks().len();
        let summary = run.figures.summary(self.seed, transactions, run.ledger.totals());
        println!(
            "\nIn {} looks never two nodes with the address, and never two that accepted writes.\n{summary}",
            seen.looks
        );
        Ok(())
    }
}

/// Two of one kind and one of the other, or so.
fn file_systems(random: &mut StdRng) -> [FileSystem; 3] {
    let mut kinds = [FileSystem::Ext4, FileSystem::Xfs, FileSystem::Ext4];
    if random.random_bool(0.5) {
        kinds[2] = FileSystem::Xfs;
    }
    kinds.shuffle(random);
    kinds
}

struct Run<'a> {
    course: &'a Course,
    interrupt: &'a Interrupt,
    lab: &'a Lab,
    random: StdRng,
    client: Client,
    place: Place,
    began: Instant,
    ledger: Ledger,
    figures: Figures,
    story: Vec<String>,
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        for number in 1..=self.course.cuts {
            self.cut(number).with_context(|| format!("cut {number}"))?;
        }
        self.check()
    }

    fn cut(&mut self, number: u32) -> Result<()> {
        self.lab.wait_all_up_to_date(UP_TO_DATE_LIMIT)?;
        pause(Duration::from_millis(self.random.random_range(500..3000)));
        let active = self.lab.wait_active(BACK_LIMIT)?;
        let names: Vec<String> = self.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
        // However short a run is, all three fall together in it, and two.
        let cut = match number {
            2 => Cut::of(3, &mut self.random, &names, &active),
            4 => Cut::of(2, &mut self.random, &names, &active),
            _ => Cut::draw(&mut self.random, &names, &active),
        };
        self.story.push(format!("cut {number}: {}", cut.told()));
        self.put_in_order()?;
        pause(Duration::from_millis(self.random.random_range(0..100)));
        let (transactions, totals) = (self.client.acks().len(), self.ledger.totals());
        let (struck, gone) = {
            let _step = self.interrupt.step()?;
            cut.strike(self.lab, &mut self.random)?
        };
        pause(cut.off);
        let back = if cut.leaves_a_majority() {
            let first = self.first_commit_after(gone)? + (gone - struck);
            cut.end(self.lab, self.interrupt)?;
            self.figures.note(&cut, first);
            first
        } else {
            // Before anything new is written: what the dead have noted is all that they were told.
            self.read_notes()?;
            self.ledger.excuse_received();
            let back = now();
            self.nothing_acknowledged(gone, back)?;
            let returned = cut.end(self.lab, self.interrupt)?;
            let first = self.first_commit_after(returned)?;
            self.figures.note(&cut, first);
            first
        };
        self.reckon(number)?;
        say(
            self.began,
            &format!(
                "cut {number}: {}; acknowledged before: {transactions} transactions, {:.1} MB of recordings ({} closed), {} \
                 records; first commit {:.1} s after {}; all there",
                cut.told(),
                totals.recorded_bytes as f64 / 1e6,
                totals.recordings,
                totals.records,
                back.as_secs_f64(),
                if cut.leaves_a_majority() {
                    "it"
                } else {
                    "power was back"
                },
            ),
        );
        Ok(())
    }

    fn first_commit_after(&self, moment: Instant) -> Result<Duration> {
        // The first, not the last at the time of the look.
        wait_for("a commit after the power cut", BACK_LIMIT, || {
            let acks = self.client.acks();
            let first = acks.get(acks.partition_point(|ack| ack.at <= moment));
            Ok(first.map(|ack| ack.at - moment))
        })
    }

    fn nothing_acknowledged(&self, gone: Instant, back: Instant) -> Result<()> {
        let acks = self.client.acks();
        let lie = acks.iter().find(|ack| ack.at > gone + ON_ITS_WAY && ack.at < back);
        match lie {
            Some(ack) => bail!(
                "transaction {} was acknowledged {:.1} s after a majority had lost power",
                ack.number,
                (ack.at - gone).as_secs_f64()
            ),
            None => Ok(()),
        }
    }

    /// What is noted now lies before a transaction that is committed when this returns.
    fn put_in_order(&mut self) -> Result<()> {
        self.read_notes()?;
        let noted = now();
        // The second one after it began after it.
        wait_for("two commits", BACK_LIMIT, || {
            let acks = self.client.acks();
            let after = acks.len() - acks.partition_point(|ack| ack.at <= noted);
            Ok((after >= 2).then_some(()))
        })?;
        self.ledger.order();
        Ok(())
    }

    fn read_notes(&mut self) -> Result<()> {
        for node in self.lab.nodes() {
            for unit in UNITS {
                self.ledger.read(&node.dir().join(format!("{unit}.notes")))?;
            }
        }
        Ok(())
    }

    /// All that was acknowledged against all that is there, on the node that is active now.
    fn reckon(&mut self, number: u32) -> Result<()> {
        self.lab.wait_all_up_to_date(UP_TO_DATE_LIMIT)?;
        let active = self.lab.wait_active(BACK_LIMIT)?;
        let mount = self.lab.node(&active).mnt();
        self.read_notes()?;
        let acks = self.client.acks();
        let mut look = Command::new(&self.course.program);
        let said = run_ok(look.arg("look").arg(&mount), LOOK_LIMIT)?;
        let seen: Seen = serde_json::from_str(&said).context("what was looked at")?;
        let mut broken = self.ledger.judge(&seen);
        let transactions = verify::transactions(&self.place, &acks);
        if !transactions.holds {
            broken.push(transactions.sentence);
        }
        ensure!(broken.is_empty(), "as {active} shows it:\n  {}", broken.join("\n  "));
        self.remove_old(&mount)?;
        if number.is_multiple_of(CHECK_EVERY) {
            self.check()?;
        }
        Ok(())
    }

    fn remove_old(&mut self, mount: &Path) -> Result<()> {
        let old = self.ledger.old(KEPT_FILES);
        let names: String = old.iter().map(|name| format!("{name}\n")).collect();
        let mut remove = Command::new(&self.course.program);
        let output = run_with_input(remove.arg("remove").arg(mount), names.as_bytes(), LOOK_LIMIT)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "removing old files: {}", said.trim());
        self.ledger.removed(old);
        Ok(())
    }

    /// The three replicas are the same.
    fn check(&self) -> Result<()> {
        let replicas = verify::replicas(self.lab);
        ensure!(replicas.holds, "{}", replicas.sentence);
        Ok(())
    }

    /// PostgreSQL's own look at its tables and indexes.
    fn amcheck(&self) -> Result<()> {
        let mut extension = psql(&self.place)?;
        extension.args(["-c", "CREATE EXTENSION IF NOT EXISTS amcheck"]);
        run_ok(&mut extension, LOOK_LIMIT)?;
        let mut amcheck = self.lab.client_command(programs()?.join("pg_amcheck"))?;
        let host = self.place.vip.to_string();
        amcheck.args(["--heapallindexed", "-h", &host, "-U", "postgres", "-d", "postgres"]);
        let output = run(&mut amcheck, LOOK_LIMIT)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "pg_amcheck: {}", said.trim());
        Ok(())
    }

    fn told(&self) -> String {
        let mut told = format!("power cuts drawn from seed {}, the last of them:\n", self.course.seed);
        for line in &self.story[self.story.len().saturating_sub(STORY)..] {
            let _ = writeln!(told, "  {line}");
        }
        told
    }
}
