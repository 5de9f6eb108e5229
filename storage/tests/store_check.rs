//! What a replica answers when it is asked for a part of its state.

mod model;
mod node;

use bytes::Bytes;
use holdfast_storage::check::Found;
use holdfast_storage::disk::Disk;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::effects::{CheckPart, Effect};
use holdfast_storage::key;
use holdfast_storage::op::Op;
use holdfast_storage::types::{BLOCK, Ino};
use model::at;
use node::Node;

const FILE: Ino = Ino(2);

/// On a disk that several threads may read the next part is read while one is hashed: the answers are the same, and what stands
/// between two parts shows in the second.
#[test]
fn parts_that_are_read_ahead_are_what_they_are_at_their_entries() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::open(folder.path()).expect("opens");
    let ahead = answers(Node::format(disk, at(0)));
    let one_by_one = answers(Node::format(SimDisk::new(), at(0)));
    assert_eq!(ahead, one_by_one);
    let [first, again, _, changed, _] = &ahead[..] else {
        panic!("five answers");
    };
    assert_eq!(first, again);
    assert_ne!(first, changed);
}

fn answers<D: Disk>(mut node: Node<D>) -> Vec<Found> {
    node.make_file(at(1), 2 * BLOCK);
    let check = |node: &mut Node<D>, ino, offset| {
        let part = CheckPart::Data {
            ino,
            offset,
            len: BLOCK,
        };
        node.sequence(vec![Effect::Check { id: 5, part }]);
    };
    check(&mut node, FILE, 0);
    check(&mut node, FILE, 0);
    check(&mut node, FILE, BLOCK);
    let write = Op::Write {
        ino: FILE,
        offset: 5,
        data: vec![8; 9].into(),
        clear_setid: false,
    };
    node.propose(at(2), &write).expect("writes");
    check(&mut node, FILE, 0);
    check(&mut node, Ino(99), 0);
    node.append().expect("appends");
    let found = node
        .apply(usize::MAX)
        .expect("applies")
        .into_iter()
        .map(|part| part.found);
    found.collect::<Result<_, _>>().expect("all are found")
}

#[test]
fn a_few_keys_are_answered_one_by_one() {
    let mut node = Node::format(SimDisk::new(), at(0));
    node.make_file(at(1), BLOCK);
    let mut ask = |limit| {
        let part = CheckPart::Meta {
            from: Bytes::new(),
            limit,
        };
        node.sequence(vec![Effect::Check { id: 1, part }]);
        node.append().expect("appends");
        let part = node.apply(usize::MAX).expect("applies").pop().expect("an answer");
        part.found.expect("found")
    };
    let few = ask(holdfast_storage::check::LISTED);
    assert_eq!(few.keys.len() as u64, few.count);
    assert!(few.keys.iter().any(|(of, _)| *of == key::inode(FILE)));
    assert!(ask(holdfast_storage::check::LISTED + 1).keys.is_empty());
}
