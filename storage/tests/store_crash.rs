//! The store against the model: a crash at any call to the disk loses nothing that was logged, and leaves no block
//! that doesn't fit its checksum.

mod model;
mod node;

use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::types::LogIndex;
use model::ops;
use node::Node;
use node::script::{Life, Step, borders, steps};
use proptest::prelude::*;

/// Crashes tried in each life.
const CRASHES: u64 = 8;
const NEVER: u64 = 1 << 60;

/// Lives until the crash; returns the steps that are left to do, `None` if there was no crash.
fn live<'a>(life: &mut Life<SimDisk>, all: &'a [Step]) -> Option<&'a [Step]> {
    let died = all.iter().position(|step| life.step(step).is_err());
    match died {
        Some(at) => Some(&all[at + 1..]),
        None => life
            .settle()
            .and_then(|()| life.node.checkpoint())
            .err()
            .map(|_| &all[all.len()..]),
    }
}

/// Starts again until a start goes through: opens, and redoes the log in batches of a few entries.
fn recover(life: &mut Life<SimDisk>, durable: LogIndex, seed: u64) {
    let disk = life.node.disk.clone();
    for attempt in 0.. {
        disk.crash(seed.wrapping_add(attempt));
        life.node.meta.crash(seed / 7 + attempt);
        if attempt < seed % 4 {
            // This start crashes too, somewhere.
            disk.fail_after((seed >> 8) % 40);
        }
        let Ok(mut node) = Node::open(disk.clone(), life.node.meta.clone()) else {
            assert!(
                attempt < seed % 4,
                "doesn't open: {:?}",
                Node::open(disk, life.node.meta.clone()).err()
            );
            continue;
        };
        assert!(!node.clean, "a crash is no clean stop");
        assert!(
            node.logged() >= durable,
            "the log ends at {}, {durable} was durable",
            node.logged()
        );
        let redone = redo(&mut node, seed);
        life.node = node;
        match redone {
            Ok(()) => return disk.fail_after(NEVER),
            Err(error) => assert!(attempt < seed % 4, "redo: {error}"),
        }
    }
}

fn redo(node: &mut Node<SimDisk>, seed: u64) -> Result<(), holdfast_storage::error::StoreError> {
    while node.store.applied() < node.logged() {
        node.apply(1 + (seed % 5) as usize)?;
        if node.store.applied().0 % 7 == seed % 7 {
            node.checkpoint()?;
        }
    }
    Ok(())
}

fn crash_in(all: &[Step], calls: u64, seed: u64) {
    let disk = SimDisk::new();
    let mut life = Life::begin(disk.clone());
    disk.fail_after(calls);
    let Some(rest) = live(&mut life, all) else { return };
    let durable = life.node.logged();
    recover(&mut life, durable, seed);
    life.models.truncate(life.node.logged().0 as usize + 1);
    life.settle().expect("nothing fails any more");
    life.run(rest).expect("nothing fails any more");
    life.settle().expect("nothing fails any more");
}

fn crash_everywhere(all: &[Step], seed: u64) {
    let disk = SimDisk::new();
    let mut calm = Life::begin(disk.clone());
    let before = disk.calls();
    assert!(live(&mut calm, all).is_none(), "nothing fails here");
    let total = disk.calls() - before;
    let apart = (total / CRASHES).max(1);
    for calls in (seed % apart..total).step_by(apart as usize) {
        crash_in(all, calls, seed.wrapping_mul(31).wrapping_add(calls));
    }
}

proptest! {
    #![proptest_config(model::config(60, "tests/regressions/store_crash.txt"))]

    #[test]
    fn a_crash_at_any_call_loses_nothing_logged(all in steps(ops::op(), 70), seed: u64) {
        crash_everywhere(&all, seed);
    }

    #[test]
    fn a_crash_at_any_call_leaves_every_block_sound(all in steps(borders(), 80), seed: u64) {
        crash_everywhere(&all, seed);
    }

    #[test]
    fn reads_see_what_is_sequenced_whatever_is_applied(all in steps(borders(), 60)) {
        let mut life = Life::begin(SimDisk::new());
        for step in &all {
            life.step(step).expect("nothing fails here");
            life.look();
        }
        life.settle().expect("nothing fails here");
    }
}
