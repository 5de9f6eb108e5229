//! What isn't in memory is asked for, all at once where it can be, and the result is the same as if it were there.

mod model;

use bytes::Bytes;
use holdfast_storage::key;
use holdfast_storage::op::{Caller, Op, Rename};
use holdfast_storage::plan::{Planned, plan};
use holdfast_storage::types::Ino;
use model::fs::Model;
use model::replica::{Replica, Shy};
use model::{at, ops};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Plans with an empty memory; what comes out, and how often something had to be brought.
fn ask(replica: &Replica, number: usize, op: &Op) -> (Planned, usize) {
    let mut view = Shy {
        replica,
        shown: BTreeSet::new(),
    };
    for rounds in 0.. {
        match plan(&view, at(number), op) {
            Planned::Need(keys) => {
                assert!(!keys.is_empty(), "{op:?} needs nothing, yet can't go on");
                for key in keys {
                    assert!(view.shown.insert(key.clone()), "{op:?} asks for {key:?} again");
                }
            }
            planned => return (planned, rounds),
        }
    }
    unreachable!("each round shows a key that wasn't shown before")
}

proptest! {
    #![proptest_config(model::config(200, "tests/regressions/plan_memory.txt"))]

    #[test]
    fn a_cold_memory_leads_to_the_same(all in ops::ops(100)) {
        let (mut model, mut replica) = (Model::new(at(0)), Replica::formatted(at(0)));
        for (number, op) in (1..).zip(&all) {
            let op = ops::aim(op, &model);
            let _ = model.apply(at(number), &op);
            let warm = plan(&replica, at(number), &op);
            let (cold, rounds) = ask(&replica, number, &op);
            prop_assert_eq!(&cold, &warm);
            let ancestors = if matches!(op, Op::Rename { .. }) { model.directories().len() } else { 0 };
            prop_assert!(rounds <= 2 + ancestors, "{:?} took {} rounds", op, rounds);
            if let Planned::Do { effects, .. } = warm {
                replica.apply(&effects);
            }
        }
    }
}

const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    umask: 0,
};

fn create(parent: Ino, name: &'static str, kind: u32) -> Op {
    let (name, target) = (Bytes::from(name), Bytes::new());
    Op::Create {
        parent,
        name,
        mode: kind | 0o755,
        rdev: 0,
        target,
        class: None,
        caller: ROOT,
    }
}

#[test]
fn a_create_asks_once() {
    let replica = Replica::formatted(at(0));
    let view = Shy {
        replica: &replica,
        shown: BTreeSet::new(),
    };
    let Planned::Need(keys) = plan(&view, at(1), &create(Ino::ROOT, "a", libc::S_IFREG)) else {
        panic!("all is there")
    };
    assert_eq!(
        keys,
        [
            key::inode(Ino::ROOT),
            key::dirent(Ino::ROOT, b"a"),
            key::xattrs(Ino::ROOT),
            key::own(key::NEXT_INO)
        ]
    );
}

#[test]
fn a_rename_of_a_file_asks_twice_however_deep_it_lies() {
    let mut replica = Replica::formatted(at(0));
    let mut deepest = Ino::ROOT;
    for number in 0..20 {
        let Planned::Do { effects, .. } = plan(&replica, at(1), &create(deepest, "d", libc::S_IFDIR)) else {
            panic!()
        };
        replica.apply(&effects);
        deepest = Ino(2 + number);
    }
    let Planned::Do { effects, .. } = plan(&replica, at(1), &create(deepest, "f", libc::S_IFREG)) else {
        panic!()
    };
    replica.apply(&effects);
    let (name, how) = (Bytes::from("f"), Rename::Replace);
    let op = Op::Rename {
        from: deepest,
        from_name: name.clone(),
        to: Ino::ROOT,
        to_name: name,
        how,
        caller: ROOT,
    };
    let (planned, rounds) = ask(&replica, 2, &op);
    assert!(matches!(planned, Planned::Do { .. }));
    assert_eq!(rounds, 2);
}
