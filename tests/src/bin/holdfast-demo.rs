//! `holdfast-demo`: what `make demo` runs. It makes a lab of its own, and leaves nothing behind, however it ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use holdfast_tests::clock::pause;
use holdfast_tests::demo::{run, sampler, service::Service, soak};
use holdfast_tests::lab::{take_down::take_down, temporary_folder};
use holdfast_tests::signals;

/// A cluster on this machine, a PBX stand-in on it, a crash, a cut and a planned switch; then everything that was
/// acknowledged is verified. Needs root and PostgreSQL.
#[derive(Parser)]
#[command(name = "holdfast-demo", version)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The same load under random crashes, cuts, pauses and switches, as long as you like.
    Soak {
        /// How long faults go on.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Draws the same faults again (their effects depend on the machine's pace).
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What vip-agent calls for the demo's PBX; not for people.
    #[command(subcommand, hide = true)]
    Unit(Service),
    /// Watches all nodes of a lab until its input ends; not for people.
    #[command(hide = true)]
    Watch { dir: PathBuf },
}

/// Set when a signal has ended the demo: errors that follow from it aren't worth printing.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let outcome = match Cli::parse().part {
        Some(Part::Unit(service)) => service.run(),
        Some(Part::Watch { dir }) => sampler::watch(&dir).map(|()| true),
        Some(Part::Soak { minutes, seed }) => {
            let seed = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
            within_a_lab(|dir| soak::run(dir, Duration::from_secs(minutes * 60), seed, &INTERRUPTED))
        }
        None => within_a_lab(|dir| run::run(dir, &INTERRUPTED)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if INTERRUPTED.load(Ordering::Relaxed) {
                // The thread that heard the signal is cleaning up and will end this process.
                pause(Duration::from_secs(60));
            }
            eprintln!("holdfast-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn within_a_lab(course: impl FnOnce(&Path) -> Result<bool>) -> Result<bool> {
    run::preflight()?;
    let dir = temporary_folder()?;
    let lab = dir.clone();
    signals::clean_up_at_signals(move || {
        INTERRUPTED.store(true, Ordering::Relaxed);
        eprintln!("interrupted; taking the lab down");
        if lab.join("lab.json").exists()
            && let Err(error) = take_down(&lab, false)
        {
            eprintln!("holdfast-demo: taking down {}: {error:#}", lab.display());
        }
        remove_folder(&lab);
    })?;
    let outcome = course(&dir);
    if !INTERRUPTED.load(Ordering::Relaxed) {
        remove_folder(&dir);
    }
    outcome
}

/// Empty by now, unless someone has put files there.
fn remove_folder(dir: &Path) {
    drop(std::fs::remove_dir(dir));
}
