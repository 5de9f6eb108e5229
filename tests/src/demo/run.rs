//! The demo's course: a lab, a PBX stand-in, three faults, the reckoning.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::client::{Ack, Client, Place, psql};
use super::report::{Fault, phases, table, verdict};
use super::sampler::{self, Watcher};
use super::service;
use super::verify::{self, Finding};
use crate::clock::{now, pause, wait_for};
use crate::lab::{Lab, LabOptions};
use crate::process::{run_ok, show};

/// Load before the first fault and after each recovery.
const LOAD: Duration = Duration::from_secs(8);
const FAILOVER_LIMIT: Duration = Duration::from_secs(40);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
/// The first start includes making the database.
const FIRST_START_LIMIT: Duration = Duration::from_secs(120);

struct Demo<'a> {
    lab: &'a Lab,
    place: Place,
    began: Instant,
}

/// Runs it in `dir`; true if all holds. Once `interrupted` is set, someone else takes the lab down.
pub fn run(dir: &Path, interrupted: &AtomicBool) -> Result<bool> {
    let began = now();
    say(
        began,
        "three nodes, a switch and a client, in network namespaces of this machine",
    );
    in_lab(dir, 256, interrupted, |lab, place| Demo { lab, place, began }.course())
}

/// A lab with the demo's PBX stand-in, for as long as the course takes.
pub fn in_lab(
    dir: &Path,
    log_mib: u64,
    interrupted: &AtomicBool,
    course: impl FnOnce(&Lab, Place) -> Result<bool>,
) -> Result<bool> {
    let demo = own_program()?;
    let lab = Lab::up(LabOptions {
        dir: Some(dir.to_owned()),
        units: service::units(&demo)?,
        log_mib,
        ..LabOptions::default()
    })?;
    let place = Place {
        netns: lab.client_netns(),
        vip: lab.vip(),
    };
    let outcome = course(&lab, place);
    if interrupted.load(Ordering::Relaxed) {
        std::mem::forget(lab);
        return outcome;
    }
    if !matches!(outcome, Ok(true)) {
        eprintln!("{}", lab.log_tails(60));
    }
    let down = lab.down(false);
    let good = outcome?;
    down.context("taking the lab down")?;
    Ok(good)
}

pub fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program's own file")
}

/// Everything that was acknowledged against everything that is there.
pub fn reckoning(lab: &Lab, place: &Place, acks: &[Ack], seen: &sampler::Verdict) -> Result<Vec<Finding>> {
    let active = lab.wait_active(FAILOVER_LIMIT)?;
    let mut findings = vec![verify::transactions(place, acks)];
    findings.extend(verify::files(lab, &active));
    findings.push(verify::replicas(lab));
    findings.extend(verify::one_writer(seen));
    Ok(findings)
}

impl Demo<'_> {
    fn course(&self) -> Result<bool> {
        self.say("waiting for PostgreSQL to be made on the mount and to answer through the VIP");
        prepare_database(self.lab, &self.place)?;
        let watcher = Watcher::start(&own_program()?, self.lab.dir())?;
        let client = Client::start(self.place.clone());
        self.say("a client outside commits through the VIP; 50 calls are recorded; a log is written");
        self.load(&client)?;
        let faults = [self.crash(&client)?, self.cut(&client)?, self.switch(&client)?];
        let acks = client.stop();
        let seen = watcher.finish()?;
        self.say("the reckoning");
        let findings = reckoning(self.lab, &self.place, &acks, &seen)?;
        let (sentences, good) = verdict(&findings, "a crash, a cut and a planned switch");
        println!("\n{}\n{sentences}", table(&faults, &acks));
        Ok(good)
    }

    /// SIGKILL to everything on the active node.
    fn crash(&self, client: &Client) -> Result<Fault> {
        let from = self.lab.wait_active(FAILOVER_LIMIT)?;
        self.say(&format!("fault 1: SIGKILL to everything on the active node, {from}"));
        let at = now();
        self.lab.node(&from).kill()?;
        let fault = self.taken_over("crash of the active node", at, from, client)?;
        self.load(client)?;
        self.say(&format!("{} starts again and catches up", fault.from));
        self.lab.node(&fault.from).start()?;
        self.all_back(client)?;
        Ok(fault)
    }

    /// The active node's cable is pulled.
    fn cut(&self, client: &Client) -> Result<Fault> {
        let from = self.lab.wait_active(FAILOVER_LIMIT)?;
        self.say(&format!("fault 2: the link of the active node, {from}, is cut"));
        let at = now();
        self.lab.cut(&from)?;
        let fault = self.taken_over("cut of the active node's link", at, from, client)?;
        self.load(client)?;
        self.say(&format!("the link of {} is back", fault.from));
        self.lab.heal()?;
        self.all_back(client)?;
        Ok(fault)
    }

    fn switch(&self, client: &Client) -> Result<Fault> {
        let from = self.lab.wait_active(FAILOVER_LIMIT)?;
        self.say(&format!("a planned switch away from {from}"));
        let at = now();
        let mut command = self.lab.node(&from).command("holdfast")?;
        run_ok(command.arg("switchover"), FAILOVER_LIMIT)?;
        let fault = self.taken_over("planned switch", at, from, client)?;
        self.load(client)?;
        self.all_back(client)?;
        Ok(fault)
    }

    /// Waits until another node is active and the client's commits are acknowledged by it.
    fn taken_over(&self, what: &str, at: Instant, from: String, client: &Client) -> Result<Fault> {
        let to = self.lab.wait_active_other_than(&from, FAILOVER_LIMIT)?;
        let active = now();
        wait_for("a commit acknowledged after the change", FAILOVER_LIMIT, || {
            Ok(client.last().filter(|ack| ack.at > active))
        })?;
        let to_name = to.clone();
        // The last phase is noted a moment after the address works.
        let view = wait_for("the phases of the failover", Duration::from_secs(10), || {
            let view = self.lab.status()?;
            Ok(Some(view).filter(|view| phases(view, &to_name)["units_ms"].as_u64().is_some_and(|ms| ms > 0)))
        });
        let phases = view.map_or(Value::Null, |view| phases(&view, &to));
        self.say(&format!("{to} has taken over; commits are acknowledged again"));
        Ok(Fault {
            what: what.to_owned(),
            at,
            from,
            to,
            phases,
        })
    }

    /// A time of load in which commits must go on.
    fn load(&self, client: &Client) -> Result<()> {
        let before = client.acks().len();
        pause(LOAD);
        let more = client.acks().len() - before;
        ensure!(
            more > 0,
            "no transaction was acknowledged in {LOAD:?} of undisturbed load"
        );
        self.say(&format!("{more} more transactions acknowledged"));
        Ok(())
    }

    fn all_back(&self, client: &Client) -> Result<()> {
        self.lab.wait_all_up_to_date(CATCH_UP_LIMIT)?;
        self.say("all three nodes are up to date");
        self.load(client)
    }

    fn say(&self, what: &str) {
        say(self.began, what);
    }
}

/// Waits for PostgreSQL to be made on the mount and to answer through the VIP.
pub fn prepare_database(lab: &Lab, place: &Place) -> Result<()> {
    wait_for("PostgreSQL behind the VIP", FIRST_START_LIMIT, || {
        let mut create = psql(place)?;
        create.args(["-c", "CREATE TABLE IF NOT EXISTS demo (number bigint PRIMARY KEY)"]);
        run_ok(&mut create, Duration::from_secs(10)).map(Some)
    })?;
    lab.wait_all_up_to_date(CATCH_UP_LIMIT)
}

pub fn say(began: Instant, what: &str) {
    println!("[{:6.1} s] {what}", began.elapsed().as_secs_f64());
}

/// What the demo needs beside what the lab needs.
pub fn preflight() -> Result<()> {
    super::postgresql::programs()?;
    for program in ["setpriv", "unshare"] {
        let mut probe = std::process::Command::new(program);
        probe.arg("--version");
        if let Err(error) = run_ok(&mut probe, Duration::from_secs(5)) {
            bail!(
                "{} doesn't work here; install the package util-linux ({error:#})",
                show(&probe)
            );
        }
    }
    Ok(())
}
