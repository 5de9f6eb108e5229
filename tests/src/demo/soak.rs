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

use super::client::{Client, Place};
use super::report::verdict;
use super::run::{in_lab, own_program, prepare_database, reckoning, say};
use super::sampler::Watcher;
use crate::clock::{now, pause, wait_for};
use crate::faults::Faults;
use crate::lab::{CheckVerdict, Lab, cluster_status};

/// Service must be back so soon after the last fault of a round was mended.
const BACK_LIMIT: Duration = Duration::from_secs(60);
const UP_TO_DATE_LIMIT: Duration = Duration::from_secs(120);
const CHECK_EVERY: u32 = 10;
/// Minutes of this load: no node may fall behind the log here.
const LOG_MIB: u64 = 1024;

struct Soak<'a> {
    lab: &'a Lab,
    began: Instant,
    faults: Faults<'a>,
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
            faults: Faults::new(lab, seed),
            counts: BTreeMap::new(),
            outages: Vec::new(),
        };
        soak.course(&place, length)
    })
}

impl Soak<'_> {
    fn course(mut self, place: &Place, length: Duration) -> Result<bool> {
        prepare_database(self.lab, place)?;
        let watcher = Watcher::start(&own_program()?, self.lab.dir())?;
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
        self.faults.pause(200, 4000);
        let began = now();
        let acts = self.faults.round(&active)?;
        let held = began.elapsed();
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
