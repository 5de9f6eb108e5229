//! The last replica becomes the beginning of a new history: with all that its log holds, whatever call the machine dies in.

mod model;
mod node;

use holdfast_storage::copy;
use holdfast_storage::digest;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::error::chain;
use holdfast_storage::identity::Identity;
use holdfast_storage::open;
use holdfast_storage::recover;
use holdfast_storage::types::LogIndex;
use model::ops;
use node::script::{Life, Step, steps};
use node::{Node, identity};
use proptest::prelude::*;

const EPOCH: u64 = 0x1234_5678;
const STORE: [u8; 16] = [9; 16];

/// As the operator does it, again if it was interrupted.
fn force(life: &Life<SimDisk>, disk: &SimDisk) -> Result<LogIndex, String> {
    let identity = Identity::read(disk).map_err(|error| chain(&error))?.expect("is there");
    if recover::is_under_way(disk).map_err(|error| chain(&error))? {
        return recover::go_on(disk, life.node.meta.clone(), &identity).map_err(|error| chain(&error));
    }
    let opened = open::open(disk.clone(), life.node.meta.clone(), identity).map_err(|error| chain(&error))?;
    recover::force(opened, EPOCH, STORE).map_err(|error| chain(&error))
}

fn recovered(all: &[Step], calls: u64, seed: u64) -> u64 {
    let disk = SimDisk::new();
    let mut life = Life::begin(disk.clone());
    life.run(all).expect("nothing fails here");
    life.node.append().expect("appends");
    let last = life.node.logged();
    let before = copy::history(&life.node.meta).expect("reads");
    disk.crash(seed);
    life.node.meta.crash(seed / 7);
    life.node = Node::open(disk.clone(), life.node.meta.clone()).expect("opens");
    let began = disk.calls();
    disk.fail_after(calls);
    let mut done = force(&life, &disk);
    let took = disk.calls() - began;
    for attempt in 1.. {
        if done.is_ok() {
            break;
        }
        assert!(attempt < 3, "{done:?}");
        disk.crash(seed + attempt);
        life.node.meta.crash(seed / 3 + attempt);
        done = force(&life, &disk);
    }
    assert!(done.expect("done") >= last.min(life.node.logged()));
    // What is done is durable; and a fault that hasn't come yet (what is left to do depends on the crash) doesn't come later.
    disk.crash(seed + 9);
    life.node.meta.crash(seed + 9);
    let identity = Identity::read(&disk).expect("reads").expect("is there");
    assert_eq!((identity.store, identity.joined), (STORE, life.node.logged()));
    assert!(recover::is_recovering(&disk).expect("reads"));
    // Nobody can come back by its log, and it may vote at once.
    let node = Node::open_as(disk.clone(), life.node.meta.clone(), identity).expect("opens");
    assert!(node.clean);
    assert_eq!(node.log.reader().first_index(), node.logged().next());
    assert_eq!(node.store.applied(), node.logged());
    let now = copy::history(&node.meta).expect("reads");
    assert!(now != before && now != 0);
    assert_eq!(digest::verify(&node.meta).expect("reads"), None);
    life.models.truncate(node.logged().0 as usize + 1);
    life.node = node;
    life.settle().expect("all is there");
    recover::end(&disk).expect("ends");
    assert!(!recover::is_recovering(&disk).expect("reads"));
    took
}

proptest! {
    #![proptest_config(model::config(40, "tests/regressions/store_recover.txt"))]

    #[test]
    fn all_that_the_log_holds_counts(all in steps(ops::op(), 50), seed: u32) {
        let calls = recovered(&all, u64::MAX / 2, seed.into());
        let apart = (calls / 12).max(1);
        for calls in (u64::from(seed) % apart..calls).step_by(apart as usize) {
            recovered(&all, calls, u64::from(seed) + calls);
        }
    }
}

#[test]
fn a_copy_that_is_not_whole_is_no_beginning() {
    let disk = SimDisk::new();
    let life = Life::begin(disk.clone());
    let joined = life.node.logged().next();
    let half = Identity { joined, ..identity() };
    let opened = open::open(disk, life.node.meta.clone(), half).expect("opens");
    let said = chain(&recover::force(opened, EPOCH, STORE).expect_err("refused"));
    assert!(said.contains("is whole only with log entry"), "{said}");
}
