//! `holdfast-bench`: what `make bench` runs. It makes a lab of its own, and leaves nothing behind, however it ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use holdfast_tests::bench::builds::Builds;
use holdfast_tests::bench::catch_up::CatchUp;
use holdfast_tests::bench::floor;
use holdfast_tests::bench::many::{HoldOpen, Many};
use holdfast_tests::bench::report::Report;
use holdfast_tests::bench::run::{Load, Settings, run};
use holdfast_tests::clock::pause;
use holdfast_tests::lab::{mounts, take_down::take_down, temporary_folder};
use holdfast_tests::signals::clean_up_at_signals;

/// The same loads on the local disk, on GlusterFS (if it is installed) and on Holdfast, by turns on this machine. Ratios of one
/// run mean something; numbers of different runs don't. Needs root, PostgreSQL and room for three logs of 1 GiB, and more, in /var/tmp.
#[derive(Parser)]
#[command(name = "holdfast-bench", version)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// These loads alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Load>,
    /// Each load so often; the table has medians.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// How long the loads without an end go on.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Leave GlusterFS out, even if it is there.
    #[arg(long)]
    without_gluster: bool,
    /// Write all figures here, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// Very many files: walked through beside the local disk, open at once, through a failover; and what they cost in memory.
    Many(Many),
    /// How fast a node comes back, how much crosses the network for it, and what recordings notice meanwhile.
    CatchUp(CatchUp),
    /// This build beside another one, by turns: what something costs.
    Builds(Builds),
    #[command(hide = true)]
    HoldOpen(HoldOpen),
    #[command(subcommand, hide = true)]
    Floor(floor::Part),
}

/// Set when a signal has ended the run: errors that follow from it aren't worth printing.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.part {
        Some(Part::Floor(part)) => part.run(),
        Some(Part::Many(many)) => measure(cli.json.as_deref(), |dir| many.run(dir)),
        Some(Part::CatchUp(part)) => measure(cli.json.as_deref(), |dir| part.run(dir)),
        Some(Part::Builds(part)) => in_own_folder(|dir| part.run(dir)),
        Some(Part::HoldOpen(part)) => part.run(),
        None => compare(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if INTERRUPTED.load(Ordering::Relaxed) {
                // The thread that heard the signal is cleaning up and will end this process.
                pause(Duration::from_secs(60));
            }
            eprintln!("holdfast-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(cli: &Cli) -> Result<()> {
    let loads = if cli.only.is_empty() {
        Load::value_variants().to_vec()
    } else {
        cli.only.clone()
    };
    let settings = Settings {
        loads,
        rounds: cli.rounds,
        length: Duration::from_secs(cli.seconds),
        with_gluster: !cli.without_gluster,
    };
    measure(cli.json.as_deref(), |dir| run(dir, &settings))
}

fn measure(json: Option<&Path>, run: impl FnOnce(&Path) -> Result<Report>) -> Result<()> {
    in_own_folder(|dir| {
        let report = run(dir)?;
        if let Some(file) = json {
            std::fs::write(file, format!("{:#}\n", report.json()))
                .with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(report.table())
    })
}

/// Which is gone afterwards; shows the table that comes out.
fn in_own_folder(run: impl FnOnce(&Path) -> Result<String>) -> Result<()> {
    let dir = temporary_folder()?;
    let made = dir.clone();
    clean_up_at_signals(move || {
        INTERRUPTED.store(true, Ordering::Relaxed);
        eprintln!("interrupted; taking all down");
        clean_up(&made);
    })?;
    let table = run(&dir);
    if INTERRUPTED.load(Ordering::Relaxed) {
        return table.map(drop);
    }
    clean_up(&dir);
    println!("\n{}", table?);
    println!(
        "One run on one machine, where three nodes, their peers and the load share processors and disk: compare within \
         it, not with others."
    );
    Ok(())
}

fn clean_up(dir: &Path) {
    for lab in ["lab", "other"].map(|name| dir.join(name)) {
        if lab.join("lab.json").exists()
            && let Err(error) = take_down(&lab, false)
        {
            eprintln!("holdfast-bench: taking down {}: {error:#}", lab.display());
        }
    }
    let removed = mounts::remove_below(dir, Duration::from_secs(10)).and_then(|()| Ok(std::fs::remove_dir_all(dir)?));
    if let Err(error) = removed {
        eprintln!("holdfast-bench: removing {}: {error:#}", dir.display());
    }
}
