//! The demo's load under random faults for as long as one likes: crashes, cuts, pauses and switches of nodes, links and
//! single daemons, drawn from a seed; then the demo's reckoning of everything that was acknowledged.
//!
//! Only one node at a time loses its memory, and only when all three are up to date: then even bytes that nobody has
//! synced must survive. Pauses and cuts lose nothing, so they come as they like, two at once included.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;

use super::client::{Client, Place};
use super::report::verdict;
use super::run::{in_lab, prepare_database, reckoning, say};
use super::sampler::Watcher;
use crate::clock::{now, pause, wait_for};
use crate::lab::{CheckVerdict, Lab, cluster_status};
use crate::process::run_ok;

/// Service must be back so soon after the last fault of a round was mended.
const BACK_LIMIT: Duration = Duration::from_secs(60);
const UP_TO_DATE_LIMIT: Duration = Duration::from_secs(120);
const CHECK_EVERY: u32 = 10;
/// Minutes of this load: no node may fall behind the log here.
const LOG_MIB: u64 = 1024;

#[derive(Debug, Clone, PartialEq)]
enum Act {
    Kill(String),
    KillDaemon(String, &'static str),
    PauseDaemon(String, &'static str),
    Pause(String),
    Cut(String),
    CutBetween(String, String),
    CutAll,
    Switch(String),
}

impl Act {
    fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "node killed",
            Self::KillDaemon(..) => "daemon killed",
            Self::PauseDaemon(..) => "daemon paused",
            Self::Pause(_) => "node paused",
            Self::Cut(_) => "node cut off",
            Self::CutBetween(..) => "link between two cut",
            Self::CutAll => "all nodes cut off",
            Self::Switch(_) => "planned switch",
        }
    }

    fn loses_memory(&self) -> bool {
        matches!(self, Self::Kill(_) | Self::KillDaemon(..))
    }

    fn told(&self, active: &str) -> String {
        let role = |node: &str| if node == active { " (active)" } else { "" };
        match self {
            Self::Kill(node) => format!("{node}{} killed", role(node)),
            Self::KillDaemon(node, daemon) => format!("{daemon} of {node}{} killed", role(node)),
            Self::PauseDaemon(node, daemon) => format!("{daemon} of {node}{} paused", role(node)),
            Self::Pause(node) => format!("{node}{} paused", role(node)),
            Self::Cut(node) => format!("{node}{} cut off", role(node)),
            Self::CutBetween(one, other) => {
                format!("link {one}{} to {other}{} cut", role(one), role(other))
            }
            Self::CutAll => "all nodes cut off".into(),
            Self::Switch(node) => format!("switch away from {node}"),
        }
    }
}

struct Soak<'a> {
    lab: &'a Lab,
    began: Instant,
    random: StdRng,
    counts: BTreeMap<&'static str, u32>,
    outages: Vec<Duration>,
}

/// Runs it in `dir`; true if all holds. Once `interrupted` is set, someone else takes the lab down.
pub fn run(dir: &Path, length: Duration, seed: u64, interrupted: &AtomicBool) -> Result<bool> {
    let began = now();
    say(
        began,
        &format!("faults for {} min, drawn from seed {seed}", length.as_secs() / 60),
    );
    in_lab(dir, LOG_MIB, interrupted, |lab, place| {
        let soak = Soak {
            lab,
            began,
            random: StdRng::seed_from_u64(seed),
            counts: BTreeMap::new(),
            outages: Vec::new(),
        };
        soak.course(&place, length)
    })
}

impl Soak<'_> {
    fn course(mut self, place: &Place, length: Duration) -> Result<bool> {
        prepare_database(self.lab, place)?;
        let watcher = Watcher::start(self.lab.dir())?;
        let client = Client::start(place.clone());
        let mut round = 0;
        while self.began.elapsed() < length {
            round += 1;
            self.round(round, &client).with_context(|| format!("round {round}"))?;
            if round % CHECK_EVERY == 0 {
                self.check()?;
            }
        }
        pause(Duration::from_secs(2));
        let acks = client.stop();
        let seen = watcher.finish()?;
        say(self.began, "the reckoning");
        let findings = reckoning(self.lab, place, &acks, &seen)?;
        let (sentences, good) = verdict(&findings, "the faults above");
        println!("\n{}\n{sentences}", self.summary(round));
        Ok(good)
    }

    fn round(&mut self, round: u32, client: &Client) -> Result<()> {
        self.lab.wait_all_up_to_date(UP_TO_DATE_LIMIT)?;
        let active = self.lab.wait_active(BACK_LIMIT)?;
        self.pause(200, 4000);
        let first = self.draw(&active);
        let mut acts = vec![first.clone()];
        let began = now();
        self.strike(&first)?;
        if !first.loses_memory() && self.random.random_bool(0.3) {
            let second = self.draw(&active);
            if !second.loses_memory() && !matches!(second, Act::Switch(_)) && second != first {
                self.pause(0, 3000);
                self.strike(&second)?;
                acts.push(second);
            }
        }
        let longest = [300, 2000, 6000, 15_000][self.random.random_range(0..4)];
        self.pause(100, longest);
        let held = began.elapsed();
        self.mend(&acts)?;
        let mended = now();
        wait_for("a commit acknowledged after the round's faults", BACK_LIMIT, || {
            Ok(client.last().filter(|ack| ack.at > mended))
        })?;
        let outage = outage(client, began);
        self.outages.push(outage);
        let told: Vec<_> = acts.iter().map(|act| act.told(&active)).collect();
        for act in &acts {
            *self.counts.entry(act.kind()).or_default() += 1;
        }
        say(
            self.began,
            &format!(
                "round {round}: {}, for {:.1} s; longest time without a commit {:.1} s",
                told.join(", then "),
                held.as_secs_f64(),
                outage.as_secs_f64()
            ),
        );
        Ok(())
    }

    fn draw(&mut self, active: &str) -> Act {
        let names: Vec<String> = self.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
        // The active node is struck as often as both others together.
        let node = if self.random.random_bool(0.5) {
            active.to_owned()
        } else {
            names[self.random.random_range(0..names.len())].clone()
        };
        let other = names.iter().find(|name| **name != node).cloned();
        let other = other.expect("there are three nodes");
        let daemon = ["holdfast", "vip-agent"][self.random.random_range(0..2)];
        match self.random.random_range(0..100) {
            0..22 => Act::Kill(node),
            22..30 => Act::KillDaemon(node, daemon),
            30..38 => Act::PauseDaemon(node, daemon),
            38..53 => Act::Pause(node),
            53..70 => Act::Cut(node),
            70..79 => Act::CutBetween(node, other),
            79..83 => Act::CutAll,
            _ => Act::Switch(active.to_owned()),
        }
    }

    fn strike(&self, act: &Act) -> Result<()> {
        match act {
            Act::Kill(node) => self.lab.node(node).kill(),
            Act::KillDaemon(node, daemon) => self.lab.node(node).kill_daemon(daemon),
            Act::PauseDaemon(node, daemon) => self.lab.node(node).signal_daemon(daemon, Signal::STOP),
            Act::Pause(node) => self.lab.node(node).pause(),
            Act::Cut(node) => self.lab.cut(node),
            Act::CutBetween(one, other) => self.lab.cut_between(one, other),
            Act::CutAll => self.lab.nodes().iter().try_for_each(|node| self.lab.cut(node.name())),
            // A standby that has just come back may not be able to take over yet, and it says so.
            Act::Switch(node) => wait_for("a switchover", BACK_LIMIT, || {
                let mut command = self.lab.node(node).command("holdfast")?;
                run_ok(command.arg("switchover"), BACK_LIMIT).map(Some)
            })
            .map(drop),
        }
    }

    fn mend(&self, acts: &[Act]) -> Result<()> {
        self.lab.heal()?;
        for act in acts {
            match act {
                Act::Kill(node) | Act::KillDaemon(node, _) => self.lab.node(node).start().map(drop)?,
                Act::PauseDaemon(node, daemon) => {
                    // It may have ended itself meanwhile, or its watchdog has.
                    drop(self.lab.node(node).signal_daemon(daemon, Signal::CONT));
                    self.lab.node(node).start()?;
                }
                Act::Pause(node) => self.lab.node(node).resume()?,
                Act::Cut(_) | Act::CutBetween(..) | Act::CutAll | Act::Switch(_) => {}
            }
        }
        Ok(())
    }

    fn pause(&mut self, from_ms: u64, to_ms: u64) {
        pause(Duration::from_millis(self.random.random_range(from_ms..=to_ms)));
    }

    fn check(&self) -> Result<()> {
        self.lab.wait_all_up_to_date(UP_TO_DATE_LIMIT)?;
        let outcome = self.lab.check()?;
        ensure!(
            outcome.verdict == CheckVerdict::Same,
            "`holdfast check` under load: {}",
            outcome.said
        );
        let view = self.lab.status()?;
        let resident: Vec<String> = self
            .lab
            .nodes()
            .iter()
            .map(|node| {
                let bytes = cluster_status::entry(&view, node.name())["resident_bytes"].as_u64();
                format!("{} {} MiB", node.name(), bytes.unwrap_or(0) >> 20)
            })
            .collect();
        say(
            self.began,
            &format!("{}; memory: {}", outcome.said.trim(), resident.join(", ")),
        );
        Ok(())
    }

    fn summary(&self, rounds: u32) -> String {
        let mut out = format!("{rounds} rounds:");
        for (kind, count) in &self.counts {
            let _ = write!(out, " {count} × {kind},");
        }
        let mut outages = self.outages.clone();
        outages.sort();
        let at = |share: usize| outages.get(outages.len() * share / 100).or(outages.last());
        let seconds = |outage: Option<&Duration>| outage.map_or(0.0, Duration::as_secs_f64);
        let _ = write!(
            out,
            "\nlongest time without a commit in a round: half of them up to {:.1} s, nine of ten up to {:.1} s, the \
             longest {:.1} s",
            seconds(at(50)),
            seconds(at(90)),
            seconds(outages.last())
        );
        out
    }
}

/// The longest silence since then.
fn outage(client: &Client, since: Instant) -> Duration {
    let acks = client.acks();
    let from = acks.partition_point(|ack| ack.at < since).saturating_sub(1);
    let pairs = acks[from..].windows(2);
    let silences = pairs.map(|pair| pair[1].at - pair[0].at);
    // With nothing acknowledged before the fault, the silence began with it.
    let first = acks.first().map(|ack| ack.at.saturating_duration_since(since));
    silences.chain(first).max().expect("a commit was waited for")
}
