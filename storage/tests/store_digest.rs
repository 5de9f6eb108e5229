//! The digest of a replica depends on what was applied and on nothing else, and tells when the store holds something else.

mod model;
mod node;

use bytes::Bytes;
use holdfast_storage::checkpoint;
use holdfast_storage::data::sums;
use holdfast_storage::digest;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::effects::{CheckPart, Effect};
use holdfast_storage::key;
use holdfast_storage::meta::{Change, Meta};
use holdfast_storage::types::{Ino, LogIndex};
use model::{at, ops};
use node::Node;
use node::script::{Life, Step, borders};
use proptest::prelude::*;

type Replica = Node<SimDisk>;

#[derive(Clone, Debug)]
enum Event {
    Step(Step),
    Checkpoint,
    Crash(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => borders().prop_map(|op| Event::Step(Step::Op(op))),
        4 => ops::op().prop_map(|op| Event::Step(Step::Op(op))),
        2 => Just(Event::Step(Step::Append)),
        3 => (1..6usize).prop_map(|count| Event::Step(Step::Apply(count))),
        1 => Just(Event::Checkpoint),
        1 => any::<u64>().prop_map(Event::Crash),
    ]
}

fn digest_of(node: &mut Replica) -> Vec<u8> {
    let part = CheckPart::Meta {
        from: Bytes::new(),
        limit: 0,
    };
    node.sequence(vec![Effect::Check { id: 1, part }]);
    node.append().expect("appends");
    let part = node.apply(usize::MAX).expect("applies").pop().expect("an answer");
    part.found.expect("found").hash
}

proptest! {
    #![proptest_config(model::config(150, "tests/regressions/store_digest.txt"))]

    /// Whatever batches, checkpoints and crashes there were: as that of a replica that applied the same entries in one go.
    #[test]
    fn replicas_that_applied_the_same_have_the_same(events in prop::collection::vec(event(), 1..120)) {
        let mut life = Life::begin(SimDisk::new());
        for event in &events {
            match event {
                Event::Step(step) => life.step(step).expect("nothing fails here"),
                // The log before it is kept here.
                Event::Checkpoint => {
                    checkpoint::run(&life.node.store).expect("checkpoints");
                },
                Event::Crash(seed) => {
                    life.node.disk.crash(*seed);
                    life.node.meta.crash(seed / 7);
                    life.node = Node::open(life.node.disk.clone(), life.node.meta.clone()).expect("opens");
                    life.models.truncate(life.node.logged().0 as usize + 1);
                    // Nothing is planned before.
                    life.node.apply(usize::MAX).expect("redoes");
                }
            }
        }
        let mut node = life.node;
        let found = digest_of(&mut node);
        prop_assert_eq!(digest::verify(&node.meta).expect("reads"), None);
        let read = node.log.reader().read(LogIndex(2), LogIndex(node.logged().0 + 1), usize::MAX);
        let Ok(entries) = read else {
            // The log was full once, and its first entries are gone.
            return Ok(());
        };
        let mut other = Node::format(SimDisk::new(), at(0));
        other.waiting = entries;
        other.waiting.pop();
        prop_assert_eq!(digest_of(&mut other), found);
    }
}

#[test]
fn what_was_changed_beside_it_is_found_and_said_from_then_on() {
    let mut node = Node::format(SimDisk::new(), at(0));
    let mut other = Node::format(SimDisk::new(), at(0));
    let right = digest_of(&mut node);
    assert_eq!(digest_of(&mut other), right);
    let group = key::sums(Ino(9), 0);
    let put = Change::Put(group.clone(), Bytes::copy_from_slice(&sums::of(&[0; 4096])));
    node.meta.write(vec![put]).expect("writes");
    assert_eq!(digest_of(&mut node), right, "it says what was applied");
    let mismatch = digest::verify(&node.meta)
        .expect("reads")
        .expect("holds something else");
    // Something was applied meanwhile.
    let root = key::xattrs(Ino::ROOT);
    for node in [&mut node, &mut other] {
        let effect = Effect::Put {
            key: root.clone(),
            value: Bytes::from_static(b"\x01"),
        };
        node.sequence(vec![effect]);
        node.append().and_then(|()| node.apply(9)).expect("applies");
    }
    node.applier.correct_digest(mismatch).expect("writes");
    let said = digest_of(&mut node);
    assert_ne!(said, digest_of(&mut other));
    assert_eq!(digest::verify(&node.meta).expect("reads"), None);
    // Over a start as well.
    let mut node = Node::open(node.disk.clone(), node.meta.clone()).expect("opens");
    node.apply(usize::MAX).expect("redoes");
    assert_eq!(digest_of(&mut node), said);
}
