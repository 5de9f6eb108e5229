//! `holdfast-lab`: a real three-node cluster on this machine, for newcomers, tests and drills.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use holdfast_tests::clock::{Deadline, LOOK_EVERY, pause};
use holdfast_tests::lab::{Lab, LabOptions, cluster_status, names::PREFIX, take_down};
use serde_json::Value;

/// A three-node Holdfast cluster in network namespaces on this machine. Needs root.
#[derive(Parser)]
#[command(name = "holdfast-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
struct Place {
    /// The lab's folder; several labs can stand side by side in different ones.
    #[arg(long, value_name = "DIR", env = "HOLDFAST_LAB_DIR", default_value = "./lab")]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a lab and wait for its active node; the mounts are DIR/n1/mnt, DIR/n2/mnt and DIR/n3/mnt.
    Up {
        #[command(flatten)]
        place: Place,
        /// TOML file with [[unit]] tables for the nodes' PBX; {mnt}, {dir} (DIR/NODE), {node} and {bin} (folder of the
        /// binaries) are filled in.
        #[arg(long, value_name = "FILE")]
        unit_file: Option<PathBuf>,
        /// Length of each node's replicated log.
        #[arg(long, value_name = "MIB", default_value_t = 256)]
        log_mib: u64,
        /// Run without vip-agent: no address, no PBX.
        #[arg(long)]
        no_agent: bool,
    },
    /// Run a command in a node's network; `holdfast` in it reaches that node's daemon.
    Exec {
        #[command(flatten)]
        place: Place,
        node: String,
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Run a command in a network of its own beside the nodes: a phone's view of the address.
    Client {
        #[command(flatten)]
        place: Place,
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// SIGKILL all daemons and PBX units of a node.
    Kill(OneNode),
    /// Start a node's daemons.
    Start(OneNode),
    /// SIGSTOP all daemons and PBX units of a node.
    Pause(OneNode),
    /// SIGCONT all daemons and PBX units of a node.
    Resume(OneNode),
    /// Cut a node's link, or what runs between two nodes; silently, nobody is told.
    Cut {
        #[command(flatten)]
        place: Place,
        #[arg(value_name = "NODE|NODE:NODE")]
        what: String,
    },
    /// Undo all cuts.
    Heal(Place),
    /// Show what `holdfast status` shows on a live node.
    Status {
        #[command(flatten)]
        place: Place,
        /// As JSON, with each node's processes.
        #[arg(long)]
        json: bool,
    },
    /// Remove all that the lab made: processes, mounts, namespaces, files.
    Down {
        #[command(flatten)]
        place: Place,
        /// Leave the nodes' files; the next `up` continues with them.
        #[arg(long)]
        keep: bool,
    },
}

#[derive(Args)]
struct OneNode {
    #[command(flatten)]
    place: Place,
    node: String,
}

const UP_LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up {
            place,
            unit_file,
            log_mib,
            no_agent,
        } => up(&place.dir, unit_file.as_deref(), log_mib, !no_agent)?,
        Verb::Exec { place, node, command } => exec(&place.dir, Some(&node), &command)?,
        Verb::Client { place, command } => exec(&place.dir, None, &command)?,
        Verb::Kill(one) => Lab::open(&one.place.dir)?.find(&one.node)?.kill()?,
        Verb::Start(one) => start(&one)?,
        Verb::Pause(one) => Lab::open(&one.place.dir)?.find(&one.node)?.pause()?,
        Verb::Resume(one) => Lab::open(&one.place.dir)?.find(&one.node)?.resume()?,
        Verb::Cut { place, what } => cut(&Lab::open(&place.dir)?, &what)?,
        Verb::Heal(place) => Lab::open(&place.dir)?.heal()?,
        Verb::Status { place, json } => return status(&Lab::open(&place.dir)?, json),
        Verb::Down { place, keep } => take_down::take_down(&place.dir, keep)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(dir: &Path, unit_file: Option<&Path>, log_mib: u64, agent: bool) -> Result<()> {
    let units = match unit_file {
        Some(file) => fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
        None => String::new(),
    };
    let options = LabOptions {
        dir: Some(dir.to_owned()),
        log_mib,
        agent,
        units,
        ..LabOptions::default()
    };
    let deadline = Deadline::after(UP_LIMIT);
    let lab = Lab::up_to_stay(&options)?;
    if let Err(error) = lab.wait_ready(deadline.left()) {
        let dir = lab.dir().display();
        eprintln!("{}", lab.log_tails(15));
        bail!(
            "{error:#}; the lab stands, look at {dir}/n*/*.log, and take it down with `holdfast-lab down --dir {dir}`"
        );
    }
    print_table(&lab, &settled_view(&lab, deadline)?);
    Ok(())
}

/// The status once the address is up and all nodes have spoken; or what there is when the time is over.
fn settled_view(lab: &Lab, deadline: Deadline) -> Result<Value> {
    loop {
        let view = lab.status()?;
        let entries = || view["nodes"].as_array().into_iter().flatten();
        let address = !lab.has_agent() || entries().any(cluster_status::has_vip);
        if deadline.passed() || (address && cluster_status::all_applied(&view, 0).is_ok()) {
            return Ok(view);
        }
        pause(LOOK_EVERY);
    }
}

fn print_table(lab: &Lab, view: &Value) {
    let width = lab
        .nodes()
        .iter()
        .map(|node| node.mnt().as_os_str().len())
        .max()
        .unwrap_or(0);
    println!("{:<6}{:<15}{:<13}{:<width$}  VIP", "node", "address", "role", "mount");
    for node in lab.nodes() {
        let entry = cluster_status::entry(view, node.name());
        let vip = if cluster_status::has_vip(entry) {
            format!("{}/{PREFIX}", lab.vip())
        } else {
            "-".to_owned()
        };
        let (name, role) = (node.name(), entry["role"].as_str().unwrap_or("down"));
        let address = lab.id().address(name).to_string();
        println!(
            "{name:<6}{address:<15}{role:<13}{:<width$}  {vip}",
            node.mnt().display()
        );
    }
}

fn start(one: &OneNode) -> Result<()> {
    let lab = Lab::open(&one.place.dir)?;
    let started = lab.find(&one.node)?.start()?;
    if started.is_empty() {
        println!("{} runs already", one.node);
    }
    Ok(())
}

fn cut(lab: &Lab, what: &str) -> Result<()> {
    match what.split_once(':') {
        Some((one, other)) => lab.cut_between(one, other),
        None => lab.cut(what),
    }
}

/// Becomes the command: its input, output and exit code are the caller's.
fn exec(dir: &Path, node: Option<&str>, words: &[OsString]) -> Result<()> {
    let lab = Lab::open(dir)?;
    let (program, arguments) = words.split_first().context("no command given")?;
    let mut command = match node {
        Some(node) => lab.find(node)?.command(program)?,
        None => lab.client_command(program)?,
    };
    let error = command.args(arguments).exec();
    Err(error).with_context(|| format!("running {}", program.to_string_lossy()))
}

fn status(lab: &Lab, json: bool) -> Result<ExitCode> {
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&cluster_status::with_processes(lab.nodes()))?
        );
        return Ok(ExitCode::SUCCESS);
    }
    let (node, _) = cluster_status::best(lab.nodes())?;
    let output = node.exec_within(&["holdfast", "status"], Duration::from_secs(5))?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    let cuts = lab.cuts()?;
    if !cuts.is_empty() {
        println!("cut in this lab: {}; `holdfast-lab heal` undoes it", cuts.join(", "));
    }
    Ok(if output.status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
