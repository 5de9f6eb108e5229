//! `holdfast-power`: what `make power` runs. It makes a lab of its own, and leaves nothing behind, however it ends.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use holdfast_tests::clock::pause;
use holdfast_tests::demo::{run, sampler, service::Service};
use holdfast_tests::lab::{take_down::take_down, temporary_folder};
use holdfast_tests::power::{course::Course, load::Load, look};
use holdfast_tests::signals::{Interrupt, clean_up_at_signals};

/// Nodes of a cluster on this machine lose power at random moments under load, one, two or all three at once, with their
/// page cache and their disks' own caches. What was acknowledged must be there when they are back. Needs root and PostgreSQL.
#[derive(Parser)]
#[command(name = "holdfast-power", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// How many.
    #[arg(long, default_value_t = 50)]
    cuts: u32,
    /// Draws the same cuts again (their effects depend on the machine's pace).
    #[arg(long)]
    seed: Option<u64>,
    /// Folder of other daemons than those that lie beside this program: of ones with a deliberate bug, say.
    #[arg(long)]
    binaries: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// What vip-agent calls for PostgreSQL, and to stop a unit; not for people.
    #[command(subcommand, hide = true)]
    Unit(Service),
    /// What vip-agent calls for the load; not for people.
    #[command(subcommand, hide = true)]
    Load(Load),
    /// Watches all nodes of a lab until its input ends; not for people.
    #[command(hide = true)]
    Watch { dir: PathBuf },
    /// Says what is on a mount; not for people.
    #[command(hide = true)]
    Look { root: PathBuf },
    /// Removes the files that its input names; not for people.
    #[command(hide = true)]
    Remove { root: PathBuf },
}

/// Set when a signal has ended it: errors that follow from it aren't worth printing.
static INTERRUPT: Interrupt = Interrupt::new();

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.part {
        Some(Part::Unit(service)) => service.run(),
        Some(Part::Load(load)) => load.run().map(|()| true),
        Some(Part::Watch { dir }) => sampler::watch(&dir).map(|()| true),
        Some(Part::Look { root }) => look::look(&root).map(|()| true),
        Some(Part::Remove { root }) => look::remove(&root).map(|()| true),
        None => cut_power(cli.cuts, cli.seed, cli.binaries).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if INTERRUPT.is_set() {
                // The thread that heard the signal is cleaning up and will end this process.
                pause(Duration::from_secs(60));
            }
            eprintln!("holdfast-power: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cut_power(cuts: u32, seed: Option<u64>, binaries: Option<PathBuf>) -> Result<()> {
    run::preflight()?;
    let course = Course {
        cuts,
        seed: seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        program: std::env::current_exe()?,
        binaries,
    };
    let dir = temporary_folder()?;
    let lab = dir.clone();
    clean_up_at_signals(move || {
        eprintln!("interrupted; taking the lab down");
        INTERRUPT.set();
        if lab.join("lab.json").exists()
            && let Err(error) = take_down(&lab, false)
        {
            eprintln!("holdfast-power: taking down {}: {error:#}", lab.display());
        }
        drop(std::fs::remove_dir(&lab));
    })?;
    let outcome = course.run(&dir, &INTERRUPT);
    if !INTERRUPT.is_set() {
        drop(std::fs::remove_dir(&dir));
    }
    outcome
}
