//! What a reader sees that reads a directory entry by entry while others change it.

mod model;

use holdfast_storage::op::Op;
use holdfast_storage::plan::{Planned, plan};
use holdfast_storage::types::Ino;
use model::at;
use model::ops;
use model::replica::Replica;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// All in one directory.
fn flat(op: &Op) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Create { parent, .. } | Op::Unlink { parent, .. } | Op::Rmdir { parent, .. } | Op::Link { parent, .. } => {
            *parent = Ino::ROOT;
        }
        Op::Rename { from, to, .. } => (*from, *to) = (Ino::ROOT, Ino::ROOT),
        _ => {}
    }
    op
}

fn names(replica: &Replica) -> BTreeMap<Vec<u8>, Ino> {
    replica
        .list(Ino::ROOT, 0)
        .into_iter()
        .map(|(_, child)| (child.name.to_vec(), child.ino))
        .collect()
}

fn run(replica: &mut Replica, number: usize, op: &Op) {
    if let Planned::Do { effects, .. } = plan(replica, at(number), op) {
        replica.apply(&effects);
    }
}

proptest! {
    #![proptest_config(model::config(400, "tests/regressions/plan_readdir.txt"))]

    #[test]
    fn a_name_that_stays_is_shown_once(before in ops::ops(40), during in ops::ops(40)) {
        let mut replica = Replica::formatted(at(0));
        for (number, op) in (1..).zip(&before) {
            run(&mut replica, number, &flat(op));
        }
        // Names that are there in every moment, and what they led to at first.
        let mut stayed: BTreeSet<_> = names(&replica).into_keys().collect();
        let (mut shown, mut from) = (Vec::new(), 0);
        for (number, op) in (100..).zip(&during) {
            if let Some((cookie, child)) = replica.list(Ino::ROOT, from).into_iter().next() {
                from = cookie + 1;
                shown.push(child.name.to_vec());
            }
            run(&mut replica, number, &flat(op));
            let now = names(&replica);
            stayed.retain(|name| now.contains_key(name));
        }
        shown.extend(replica.list(Ino::ROOT, from).into_iter().map(|(_, child)| child.name.to_vec()));
        for name in stayed {
            prop_assert_eq!(shown.iter().filter(|one| **one == name).count(), 1, "{:?} in {:?}", name, shown);
        }
    }
}
