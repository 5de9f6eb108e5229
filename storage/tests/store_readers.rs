//! Reads on the active node while another thread applies: each sees all that was sequenced before it, and none
//! takes a block that is just being applied for a rotten one.

mod model;
mod node;

use holdfast_storage::apply::Committed;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::key;
use holdfast_storage::op::{Caller, Op};
use holdfast_storage::record::Inode;
use holdfast_storage::types::{BLOCK, Ino, LogIndex, Term};
use model::at;
use node::Node;
use std::sync::mpsc;

const FILE: Ino = Ino(2);
const SIZE: usize = 6 * BLOCK as usize;
const WRITES: usize = 20_000;

/// What the `number`-th write changes; mostly parts of blocks, and all of them over and over.
fn write(number: usize) -> (usize, Vec<u8>) {
    let mixed = number.wrapping_mul(0x9e37_79b9) >> 3;
    let len = [10, 300, 4096, 5000][mixed % 4];
    let offset = mixed / 4 % (SIZE - len);
    (offset, vec![(number % 255) as u8 + 1; len])
}

#[test]
fn reads_beside_the_apply_thread_see_what_is_sequenced() {
    let mut node = Node::format(SimDisk::new(), at(0));
    let caller = Caller {
        uid: 0,
        gid: 0,
        umask: 0,
    };
    let create = Op::Create {
        parent: Ino::ROOT,
        name: "a".into(),
        mode: libc::S_IFREG,
        rdev: 0,
        target: "".into(),
        class: None,
        caller,
    };
    node.propose(at(0), &create).expect("creates");
    node.append().and_then(|()| node.apply(usize::MAX)).expect("applies");
    let inode = Inode {
        size: SIZE as u64,
        ..node.store.inode(FILE).expect("is there")
    };
    let first = node.logged().0 as usize + 1;
    let Node { store, mut applier, .. } = node;
    let (to_apply, entries) = mpsc::sync_channel::<Committed>(200);
    let applying = std::thread::spawn(move || {
        while let Ok(entry) = entries.recv() {
            let batch: Vec<Committed> = std::iter::once(entry).chain(entries.try_iter().take(30)).collect();
            applier.apply(&batch).expect("applies");
        }
    });
    let mut expected = vec![0; SIZE];
    for number in 0..WRITES {
        let (offset, data) = write(number);
        expected[offset..offset + data.len()].copy_from_slice(&data);
        let index = LogIndex((first + number) as u64);
        let put = Effect::Put {
            key: key::inode(FILE),
            value: inode.encode(),
        };
        let effects = vec![
            put,
            Effect::Write {
                ino: FILE,
                offset: offset as u64,
                data: data.into(),
            },
        ];
        store.overlay.sequence(index, &effects);
        let data = Entry { term: Term(3), effects }.encode();
        to_apply
            .send(Committed {
                index,
                term: Term(3),
                data,
            })
            .expect("the thread lives");
        // Around the write, and all of it now and then.
        let (from, len) = if number % 50 == 0 {
            (0, SIZE)
        } else {
            (offset.saturating_sub(100), 1000)
        };
        let read = store
            .read(FILE, from as u64, len)
            .unwrap_or_else(|error| panic!("after write {number}: {error}"));
        assert!(
            read == expected[from..SIZE.min(from + len)],
            "after write {number}, from {from}"
        );
    }
    drop(to_apply);
    applying.join().expect("no panic");
    assert_eq!(store.rotten_blocks(), 0);
    assert!(store.read(FILE, 0, SIZE).expect("reads") == expected);
}
