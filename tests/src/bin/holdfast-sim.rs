//! `holdfast-sim`: the whole product in one thread under a virtual clock, seed after seed, and what must hold meanwhile.

use clap::Parser;
use holdfast_tests::clock::now;
use holdfast_tests::simulation::{Figures, Options, Outcome, run, shrink};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs seeds until one breaks a promise, or all are done; the last line says what they came to.
#[derive(Parser)]
#[command(name = "holdfast-sim", version)]
struct Cli {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This one alone, twice, with its trace's hash.
    #[arg(long)]
    seed: Option<u64>,
    /// Numbers of faults that are left out.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<u32>,
    /// All that happens, as text.
    #[arg(long)]
    trace: bool,
    /// Threads; as many as there are cores unless set.
    #[arg(long)]
    jobs: Option<usize>,
    /// Says which seed failed and of what, without making it smaller; for deliberate bugs.
    #[arg(long)]
    mutant_friendly: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What a run panics of is part of its story.
    std::panic::set_hook(Box::new(|_| {}));
    match cli.seed {
        Some(seed) => one(seed, &cli),
        None => many(&cli),
    }
}

fn one(seed: u64, cli: &Cli) -> ExitCode {
    let options = Options {
        seed,
        skip: cli.skip.iter().copied().collect(),
        shown: cli.trace,
        ..Options::default()
    };
    let outcome = run(&options);
    println!("seed {seed}: trace {}; {}", outcome.trace, outcome.figures);
    if outcome.broken.is_none() {
        return ExitCode::SUCCESS;
    }
    tell(&outcome, &options.skip);
    ExitCode::FAILURE
}

fn tell(outcome: &Outcome, skip: &BTreeSet<u32>) {
    let Some(broken) = &outcome.broken else { return };
    for line in &outcome.story {
        println!("{line}");
    }
    println!(
        "broken after {:.6} s: {}: {}",
        broken.at_us as f64 / 1e6,
        broken.promise,
        broken.facts
    );
    let skip: Vec<String> = skip.iter().map(ToString::to_string).collect();
    let skip = if skip.is_empty() {
        String::new()
    } else {
        format!(" --skip {}", skip.join(","))
    };
    println!("repeat it with: holdfast-sim --seed {}{skip}", outcome.seed);
}

fn many(cli: &Cli) -> ExitCode {
    let watch = now();
    let jobs = cli
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, stop) = (AtomicU64::new(cli.from), AtomicBool::new(false));
    let (figures, failed) = (Mutex::new(Figures::default()), Mutex::new(None::<Outcome>));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cli.from + cli.seeds {
                        return;
                    }
                    let outcome = run(&Options {
                        seed,
                        ..Options::default()
                    });
                    figures.lock().expect("no panic under the lock").add(&outcome.figures);
                    if outcome.broken.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        let mut failed = failed.lock().expect("no panic under the lock");
                        // The first of two that failed at once, so that the answer is the same each time.
                        if failed.as_ref().is_none_or(|other| seed < other.seed) {
                            *failed = Some(outcome);
                        }
                    }
                }
            });
        }
    });
    let (figures, failed) = (
        figures.into_inner().expect("no panic"),
        failed.into_inner().expect("no panic"),
    );
    let seconds = watch.elapsed().as_secs_f64().max(0.001);
    if let Some(outcome) = failed {
        let seed = outcome.seed;
        if cli.mutant_friendly {
            let broken = outcome
                .broken
                .as_ref()
                .map(|broken| format!("{}: {}", broken.promise, broken.facts));
            println!(
                "found: seed {seed}, {} seeds, {seconds:.1} s, {}",
                figures.runs,
                broken.unwrap_or_default()
            );
            return ExitCode::FAILURE;
        }
        println!("seed {seed} breaks a promise; looking for the fewest faults that do");
        let (outcome, skip) = shrink(seed, outcome);
        tell(&outcome, &skip);
        return ExitCode::FAILURE;
    }
    let simulated = figures.simulated_us as f64 / 1e6;
    println!(
        "{} seeds, {simulated:.0} s simulated in {seconds:.0} s ({:.0} times as fast as they happen), {} events, {figures}",
        figures.runs,
        simulated / seconds,
        figures.events
    );
    ExitCode::SUCCESS
}
