//! Leaves faults out of a failing run as long as the same promise stays broken.

use super::run::{Outcome, run};
use super::world::Options;
use std::collections::BTreeSet;

/// Runs that this may take.
const PATIENCE: u32 = 300;

pub fn shrink(seed: u64, failed: Outcome) -> (Outcome, BTreeSet<u32>) {
    let Some(promise) = failed.broken.as_ref().map(|broken| broken.promise) else {
        return (failed, BTreeSet::new());
    };
    let mut best = (failed, BTreeSet::new());
    let mut left = PATIENCE;
    let mut size = best.0.planned.len().div_ceil(2);
    while size > 0 {
        let mut smaller = false;
        let rest: Vec<u32> = best
            .0
            .planned
            .iter()
            .copied()
            .filter(|number| !best.1.contains(number))
            .collect();
        for part in rest.chunks(size) {
            if left == 0 {
                return best;
            }
            left -= 1;
            let mut skip = best.1.clone();
            skip.extend(part);
            let outcome = run(&Options {
                seed,
                skip: skip.clone(),
                ..Options::default()
            });
            if outcome.broken.as_ref().is_some_and(|broken| broken.promise == promise) {
                best = (outcome, skip);
                smaller = true;
            }
        }
        if !smaller || size == 1 {
            if size == 1 && smaller {
                continue;
            }
            size /= 2;
        }
    }
    best
}
