//! The planner against the model: the same operations give the same answers and the same tree.

mod model;

use holdfast_storage::op::{Op, Refusal, Reply};
use holdfast_storage::plan::{Planned, plan};
use model::fs::{Answer, Model};
use model::replica::Replica;
use model::{Facts, at, ops};
use proptest::prelude::*;

fn check(step: usize, op: &Op, model: &mut Model, replica: &mut Replica) {
    let expected = model.apply(at(step), op);
    let answered = match plan(replica, at(step), op) {
        Planned::Do { effects, reply, .. } => {
            replica.apply(&effects);
            Ok(answer(&reply, replica))
        }
        Planned::Refused(refusal) => Err(refusal),
        Planned::Need(keys) => panic!("step {step}: all is in memory, yet {op:?} needs {keys:?}"),
    };
    assert_eq!(answered, expected, "step {step}: answer to {op:?}");
    assert_eq!(replica.tree(), model.tree(), "step {step}: tree after {op:?}");
}

fn answer(reply: &Reply, replica: &Replica) -> Answer {
    match reply {
        Reply::Inode(ino, inode) => {
            assert_eq!(
                replica.inode(*ino).as_ref(),
                Some(inode),
                "the reply shows what is stored"
            );
            let tree = replica.tree();
            let mut all = tree.paths.into_values().chain(tree.orphans.into_values());
            let shown: Option<Facts> = all.find(|facts| facts.ino == ino.0);
            Answer {
                shown,
                ..Answer::default()
            }
        }
        Reply::Written(len) => Answer {
            written: Some(*len as usize),
            ..Answer::default()
        },
        Reply::Sealed(sealed) => Answer {
            sealed: Some(*sealed),
            ..Answer::default()
        },
        Reply::Done { orphaned } => Answer {
            orphaned: orphaned.map(|ino| ino.0),
            ..Answer::default()
        },
    }
}

proptest! {
    #![proptest_config(model::config(400, "tests/regressions/plan_model.txt"))]

    #[test]
    fn a_replica_shows_the_tree_of_the_model(all in ops::ops(120)) {
        let (mut model, mut replica) = (Model::new(at(0)), Replica::formatted(at(0)));
        assert_eq!(replica.tree(), model.tree());
        for (step, op) in (1..).zip(&all) {
            let op = ops::aim(op, &model);
            check(step, &op, &mut model, &mut replica);
        }
    }
}

/// Random operations are only worth something if most of them do something.
#[test]
fn random_operations_reach_most_outcomes() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut done, mut refused) = (0, std::collections::BTreeMap::<String, usize>::new());
    for _ in 0..60 {
        let all = ops::ops(120).new_tree(&mut runner).expect("operations").current();
        let mut model = Model::new(at(0));
        for (step, op) in (1..).zip(&all) {
            match model.apply(at(step), &ops::aim(op, &model.clone())) {
                Ok(_) => done += 1,
                Err(refusal) => *refused.entry(format!("{refusal:?}")).or_default() += 1,
            }
        }
    }
    let all = refused.values().sum::<usize>() + done;
    assert!(done * 3 > all, "{done} of {all} were done; refused: {refused:?}");
    for refusal in [
        Refusal::NotFound,
        Refusal::Exists,
        Refusal::NotDirectory,
        Refusal::IsDirectory,
        Refusal::NotEmpty,
        Refusal::NameTooLong,
        Refusal::Invalid,
        Refusal::NotPermitted,
        Refusal::TooLarge,
        Refusal::NoAttribute,
        Refusal::AttributeTooLarge,
    ] {
        assert!(
            refused.contains_key(&format!("{refusal:?}")),
            "{refusal:?} never came; refused: {refused:?}"
        );
    }
}
