//! `holdfast-torture`: random operations on a cluster of its own under random faults, against a model that knows what
//! must be there. It leaves nothing behind, however it ends.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use holdfast_tests::clock::pause;
use holdfast_tests::lab::take_down::take_down;
use holdfast_tests::lab::{Lab, LabOptions, temporary_folder};
use holdfast_tests::signals;
use holdfast_tests::torture::course::{Course, Figures};
use holdfast_tests::torture::place::Place;
use holdfast_tests::torture::work::{self, Kind};

/// What fsx and fsstress do, through failovers: bytes by every system call there is, and names in every order, while
/// nodes and links fail. What was acknowledged must be there. Needs root.
#[derive(Parser)]
#[command(name = "holdfast-torture", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// How long it goes on.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Draws the same operations and faults again (their effects depend on the machine's pace).
    #[arg(long)]
    seed: Option<u64>,
    /// Processes at once, of six: two work on bytes and one on names of their own, three on what they share.
    #[arg(long, default_value_t = 6)]
    workers: u64,
    /// In an existing folder of any file system, without a cluster and without faults.
    #[arg(long)]
    on: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// One worker; not for people.
    #[command(hide = true)]
    Work {
        kind: Kind,
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        place: Place,
    },
}

/// Set when a signal has ended it: errors that follow from it aren't worth printing.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.part {
        Some(Part::Work { kind, seed, place }) => work::run(*kind, *seed, place),
        None => torture(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if INTERRUPTED.load(Ordering::Relaxed) {
                // The thread that heard the signal is cleaning up and will end this process.
                pause(Duration::from_secs(60));
            }
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn torture(cli: &Cli) -> Result<()> {
    let seed = cli.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let course = Course {
        program: std::env::current_exe().context("finding this program's own file")?,
        seed,
        workers: cli.workers,
        length: Duration::from_secs(cli.minutes * 60),
    };
    println!(
        "{} workers for {} min, drawn from seed {seed}",
        cli.workers, cli.minutes
    );
    let figures = match &cli.on {
        Some(folder) => course.on_folder(folder),
        None => in_a_lab(&course),
    }?;
    let Figures {
        operations,
        open,
        faults,
    } = figures;
    println!("{operations} operations, {faults} faults, {open} outcomes left open by them: all as the model says",);
    Ok(())
}

fn in_a_lab(course: &Course) -> Result<Figures> {
    let dir = temporary_folder()?;
    let lab_dir = dir.clone();
    signals::clean_up_at_signals(move || {
        INTERRUPTED.store(true, Ordering::Relaxed);
        eprintln!("interrupted; taking the lab down");
        if lab_dir.join("lab.json").exists()
            && let Err(error) = take_down(&lab_dir, false)
        {
            eprintln!("holdfast-torture: taking down {}: {error:#}", lab_dir.display());
        }
        drop(std::fs::remove_dir(&lab_dir));
    })?;
    let lab = Lab::up(LabOptions {
        dir: Some(dir.clone()),
        // Minutes of this load: no node may fall behind the log here.
        log_mib: 1024,
        ..LabOptions::default()
    })?;
    let outcome = course.on_lab(&lab, |what| println!("  {what}"));
    if INTERRUPTED.load(Ordering::Relaxed) {
        std::mem::forget(lab);
        return outcome;
    }
    if outcome.is_err() {
        eprintln!("{}", lab.log_tails(25));
    }
    lab.down(false).context("taking the lab down")?;
    drop(std::fs::remove_dir(&dir));
    outcome
}
