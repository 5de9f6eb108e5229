//! The whole product in one thread under a virtual clock: a sample of seeds, and those that once found something. `make sim` runs
//! more, and repeats one.

use holdfast_tests::simulation::{Options, Outcome, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// About half a minute on two cores.
const SAMPLE: u64 = 200;

/// Found what a killed process had left unsynced, followers that a leader could send nothing to, a sync that succeeded after one that
/// had failed, a clean stop of a node that still lacked what it had confirmed, a returned active node whose tail ended where the log
/// began, a log behind a copy whose only batch had rotted, a follower that had no room for a message as long as what was read at
/// once, three nodes on which the PBX had failed, a role that was given again and again to a node that needs a copy, and faults of the
/// simulation.
const KNOWN: [u64; 14] = [
    3, 49, 766, 806, 1969, 1989, 20_132, 21_090, 33_067, 53_928, 201_297, 500_089, 760_399, 1_001_322,
];

fn outcome_of(seed: u64) -> Outcome {
    run(&Options {
        seed,
        ..Options::default()
    })
}

fn must_be_kept(outcome: &Outcome) {
    if let Some(broken) = &outcome.broken {
        panic!(
            "{}\nseed {} breaks a promise after {:.3} s: {}: {}\nmake it small with: SEEDS=1 FROM={} make sim",
            outcome.story.join("\n"),
            outcome.seed,
            broken.at_us as f64 / 1e6,
            broken.promise,
            broken.facts,
            outcome.seed
        );
    }
}

#[test]
fn every_promise_is_kept_in_a_sample_of_runs() {
    let (next, failed) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > SAMPLE {
                        return;
                    }
                    let outcome = outcome_of(seed);
                    if outcome.broken.is_some() {
                        failed.lock().unwrap().push(outcome);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap().iter().for_each(must_be_kept);
}

#[test]
fn every_promise_is_kept_where_one_was_broken_once() {
    KNOWN.into_iter().for_each(|seed| must_be_kept(&outcome_of(seed)));
}

#[test]
fn a_seed_is_a_whole_run() {
    for seed in [5, 10_001] {
        let (one, again, other) = (outcome_of(seed), outcome_of(seed), outcome_of(seed + 1));
        assert_eq!((&one.trace, &one.figures), (&again.trace, &again.figures));
        assert_ne!(one.trace, other.trace);
        assert!(one.figures.acknowledged() > 0 && !one.figures.faults.is_empty());
    }
}

/// No software keeps its promises on a disk that calls synced what isn't: a simulation that finds nothing here looks at nothing.
#[test]
fn a_disk_that_lies_is_found_out() {
    let lies = |seed| {
        run(&Options {
            seed,
            lying_disks: true,
            ..Options::default()
        })
    };
    assert!((1..=20).any(|seed| lies(seed).broken.is_some()));
}
