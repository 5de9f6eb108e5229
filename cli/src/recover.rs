//! `holdfast recover`: two nodes are gone for good, and the third is to go on. Says what may be missing, asks, and makes
//! this node's replica the beginning of a new history; the others' old stores are refused from then on.

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use holdfast_config::Config;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::identity::Identity;
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::open::{self, Opened};
use holdfast_storage::recover;
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::export::lock;
use crate::output::{complain, print};

/// In the store's folder, one line for the beginning of a recovery, and one for its end.
const RECORD: &str = "recovered.jsonl";

#[derive(Args)]
pub struct Recover {
    /// The stopped node's configuration
    #[arg(long, value_name = "FILE", default_value = holdfast_config::defaults::CONFIG_FILE)]
    config: PathBuf,
    /// Do it; without, only what would be done and what may be missing is said
    #[arg(long)]
    force: bool,
}

impl Recover {
    pub fn run(self) -> anyhow::Result<()> {
        let config = holdfast_config::load_without_keys(&self.config)?;
        let store = &config.store.path;
        let _held_until_the_end = lock(store)?;
        if self.go_on(&config)? {
            return Ok(());
        }
        let opened = open_store(&config)?;
        recover::check(&opened)?;
        complain(&statement(&config, &opened));
        if !self.force {
            complain("Nothing was changed. To do it: the same with --force.");
            return Ok(());
        }
        ask(&config.cluster.name)?;
        let epoch: u64 = rand::rng().random_range(1..=u64::MAX);
        // Before anything is changed: an interrupted one must not be without.
        let begun = json!({
            "recovery": "begun",
            "last_index": opened.recovered.last.0,
            "term": opened.recovered.hard_state.term.0,
            "stopped_in_order": opened.clean,
            "epoch": format!("{epoch:016x}"),
        });
        record(&config, begun)?;
        open::unmark(&opened)?;
        let last = recover::force(opened, epoch, rand::rng().random())?;
        record(&config, json!({"recovery": "done", "last_index": last.0}))?;
        print(&format!(
            "done: this replica counts up to log entry {last}; recorded in {}\n{}",
            store.join(RECORD).display(),
            next_steps(&config)
        ))?;
        Ok(())
    }
}

impl Recover {
    /// One that was interrupted when all had been applied and asked.
    fn go_on(&self, config: &Config) -> anyhow::Result<bool> {
        let store = &config.store.path;
        let disk = RealDisk::open(store).with_context(|| format!("opening the store's folder {}", store.display()))?;
        let Some(identity) = Identity::read(&disk)?.filter(|_| self.force) else {
            return Ok(false);
        };
        if !recover::is_under_way(&disk)? {
            return Ok(false);
        }
        identity.must_be(&config.cluster.id, &config.cluster.nodes[config.this].name)?;
        let meta = Rocks::open(&store.join("meta"))?;
        let last = recover::go_on(&disk, meta, &identity)?;
        record(
            config,
            json!({"recovery": "done, after an interruption", "last_index": last.0}),
        )?;
        print(&format!(
            "done: the recovery that was interrupted is at its end; this replica counts up to log entry {last}\n{}",
            next_steps(config)
        ))?;
        Ok(true)
    }
}

fn open_store(config: &Config) -> anyhow::Result<Opened<RealDisk, Rocks>> {
    let store = &config.store.path;
    let disk = RealDisk::open(store).with_context(|| format!("opening the store's folder {}", store.display()))?;
    let Some(identity) = Identity::read(&disk)? else {
        bail!("there is no store in {}: nothing to recover from", store.display());
    };
    identity.must_be(&config.cluster.id, &config.cluster.nodes[config.this].name)?;
    let meta = Rocks::open(&store.join("meta"))?;
    Ok(open::open_to_read(disk, meta, identity)?)
}

fn statement(config: &Config, opened: &Opened<RealDisk, Rocks>) -> String {
    let node = &config.cluster.nodes[config.this].name;
    let others: Vec<&str> = others(config).collect();
    let (one, two) = (others[0], others[1]);
    let last = opened.recovered.last;
    let changed = recover::last_change(&opened.log.reader(), last).map_or_else(
        || "it doesn't say when that was".to_owned(),
        |time| {
            let unix_ms = u64::try_from(time.secs).unwrap_or(0) * 1000;
            format!(
                "written at {}, by the clock of the node that was active",
                Clock::read().at(unix_ms)
            )
        },
    );
    let end = if opened.clean {
        "It was stopped in order, so it has all that it had received."
    } else {
        "It stopped without a clean end: of what it had received and not synced yet, the last moment may be missing."
    };
    format!(
        "{node}'s replica of cluster {} ends at log entry {last}, {changed}. {end}\n\
         What {one} and {two} had acknowledged and {node} hadn't got yet is missing for good. If {node} was up to date when they were \
         lost (`holdfast status` said \"0 B\" behind), that is nothing.\n\
         If the store of {one} or of {two} still exists: don't do this. Bring that node back; two of three go on by themselves, and \
         nothing is lost.\n\
         With --force this replica, as it is, becomes the cluster's only truth. The old stores of {one} and {two} are refused for ever. \
         Nothing is served until one new node has a whole copy: what is acknowledged is on two disks then as before.",
        config.cluster.name
    )
}

fn others(config: &Config) -> impl Iterator<Item = &str> {
    let nodes = config.cluster.nodes.iter().enumerate();
    nodes
        .filter(|(at, _)| *at != config.this)
        .map(|(_, node)| node.name.as_str())
}

fn ask(cluster: &str) -> anyhow::Result<()> {
    eprint!("Type the name of the cluster to go on: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("reading the name of the cluster")?;
    if line.trim() != cluster {
        bail!(
            "{:?} isn't the name of this cluster, which is {cluster:?}: nothing was changed",
            line.trim()
        );
    }
    Ok(())
}

/// For whoever has to know later what was done here, and when.
fn record(config: &Config, mut line: Value) -> anyhow::Result<()> {
    let path = config.store.path.join(RECORD);
    line["unix_ms"] = Clock::read().now_unix_ms.into();
    line["cluster"] = config.cluster.name.as_str().into();
    line["node"] = config.cluster.nodes[config.this].name.as_str().into();
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    writeln!(file, "{line}")
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(&config.store.path)?.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

fn next_steps(config: &Config) -> String {
    let others: Vec<&str> = others(config).collect();
    format!(
        "Next:\n  1. start this node: `systemctl start holdfast vip-agent`\n  \
         2. `holdfast node replace {} --ca DIR` here (--addr, if the new machine has another address), and on a new machine what it prints: that \
         one gets its copy by itself, `holdfast status` shows how far it is, and then the two serve\n  \
         3. the same for {}, when you like\n",
        others[0], others[1]
    )
}
