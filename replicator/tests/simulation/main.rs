//! The consensus core in a simulated world: virtual clocks, a network and disks that fail, and after each event the
//! invariants. A seed is a whole run. `HOLDFAST_SEED=n` repeats one, `HOLDFAST_SEEDS=n` runs that many of each kind.

mod cluster;
mod disk;
mod faults;
mod invariants;
mod net;
mod node;
mod random;
mod scenarios;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a scenario with each seed; a failing one is named.
fn run(name: &str, default_seeds: u64, known: &[u64], scenario: fn(u64)) {
    let number = |key: &str| {
        std::env::var(key).ok().map(|value| {
            value
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{key}={value} is not a number"))
        })
    };
    let seeds: Vec<u64> = match number("HOLDFAST_SEED") {
        Some(seed) => vec![seed],
        None => known
            .iter()
            .copied()
            .chain(1..=number("HOLDFAST_SEEDS").unwrap_or(default_seeds))
            .collect(),
    };
    for seed in seeds {
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| scenario(seed))) {
            let text = why
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| why.downcast_ref::<&str>().map(ToString::to_string));
            panic!(
                "{}\nrepeat it with: HOLDFAST_SEED={seed} cargo test --release -p holdfast-replicator --test simulation {name}",
                text.unwrap_or_default()
            );
        }
    }
}

macro_rules! simulate {
    ($($name:ident, $seeds:literal, known: [$($known:literal),*];)*) => {$(
        #[test]
        fn $name() {
            run(stringify!($name), $seeds, &[$($known),*], scenarios::$name);
        }
    )*};
}

// Kind of run, seeds of it that always run, and those that once found a bug.
simulate! {
    all_kinds_of_faults, 60, known: [48];
    a_shaky_network, 40, known: [];
    one_failure_at_a_time, 60, known: [];
    a_forgetful_standby_and_then_the_active_one, 60, known: [];
    a_forgetful_node_that_stops_in_order, 40, known: [];
    a_standby_that_lost_its_synced_tail, 60, known: [];
    a_new_disk, 25, known: [];
    one_node_gone_for_good, 30, known: [];
    all_three_lose_power, 30, known: [];
    only_two_come_back, 20, known: [];
    a_role_that_begins_again_in_its_term, 20, known: [];
    an_address_whose_lease_ended_early, 20, known: [];
}
