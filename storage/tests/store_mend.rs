//! Damage of any kind is mended by what two sound replicas have, and never by anything else; beside changes, over crashes.

mod model;
mod node;

use bytes::Bytes;
use holdfast_storage::check::Found;
use holdfast_storage::data;
use holdfast_storage::data::sums::{self, Sum};
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::effects::{CheckPart, Effect};
use holdfast_storage::key;
use holdfast_storage::mend::{self, Block, Key, Mended, State};
use holdfast_storage::meta::{Change, Meta};
use holdfast_storage::op::{Caller, Op, SetAttr};
use holdfast_storage::scrub;
use holdfast_storage::types::{BLOCK, Ino, LogIndex};
use model::{at, ops};
use node::Node;
use node::script::{Life, Step, steps};
use proptest::prelude::*;

const FILE: Ino = Ino(2);
const BLOCKS: u64 = 6;

type Replica = Node<SimDisk>;

fn settle(node: &mut Replica) {
    node.append().expect("appends");
    node.apply(usize::MAX).expect("applies");
}

fn write(offset: u64, len: usize, byte: u8) -> Op {
    Op::Write {
        ino: FILE,
        offset,
        data: vec![byte; len].into(),
        clear_setid: false,
    }
}

/// A file whose last block isn't whole.
fn with_file() -> Replica {
    let mut node = Node::format(SimDisk::new(), at(0));
    let caller = Caller {
        uid: 0,
        gid: 0,
        umask: 0,
    };
    let create = Op::Create {
        parent: Ino::ROOT,
        name: "a".into(),
        mode: libc::S_IFREG | 0o644,
        rdev: 0,
        target: "".into(),
        class: None,
        caller,
    };
    node.propose(at(1), &create).expect("creates");
    node.propose(at(1), &write(0, (BLOCKS * BLOCK - 1000) as usize, 7))
        .expect("writes");
    settle(&mut node);
    node.checkpoint().expect("checkpoints");
    node
}

fn twice() -> (Replica, Replica) {
    (with_file(), with_file())
}

/// The same change on both, and a check of the file at the end; what each of the two found.
fn on_both(sound: &mut Replica, other: &mut Replica, ops: &[Op]) -> (LogIndex, Found, Found) {
    let mut found = Vec::new();
    let mut index = LogIndex::ZERO;
    for node in [sound, other] {
        for op in ops {
            node.propose(at(2), op).expect("is done");
        }
        let part = CheckPart::Data {
            ino: FILE,
            offset: 0,
            len: 4 << 20,
        };
        node.sequence(vec![Effect::Check { id: 5, part }]);
        node.append().expect("appends");
        let part = node.apply(usize::MAX).expect("applies").pop().expect("an answer");
        index = part.index;
        found.push(part.found.expect("found"));
    }
    let other = found.pop().expect("two");
    (index, found.pop().expect("two"), other)
}

/// What the active node makes of two answers, and the other node of it.
fn mend_all(sound: &Replica, other: &mut Replica, index: LogIndex, is: &Found, was: &Found) -> Vec<Mended> {
    let pairs = is.sums.iter().zip(&was.sums).zip(0..);
    let differ = pairs.filter(|((is, was), _)| is != was);
    differ
        .map(|((is, was), number)| {
            let data = mend::block(&sound.store, FILE, number, *is)
                .expect("reads")
                .filter(|_| *is != sums::of_zeros())
                .unwrap_or_default();
            other
                .applier
                .mend_block(&Block {
                    ino: FILE,
                    number,
                    was: *was,
                    is: *is,
                    as_of: index,
                    data,
                })
                .expect("mends")
        })
        .collect()
}

fn content(node: &Replica) -> Bytes {
    node.store.read(FILE, 0, 1 << 20).expect("reads")
}

fn rot(node: &Replica, block: u64) {
    node.disk.rot(&data::path(FILE), block * BLOCK + 5).expect("is there");
}

#[test]
fn a_rotten_block_is_found_and_gets_its_bytes_back() {
    let (sound, mut other) = twice();
    rot(&other, 2);
    rot(&other, BLOCKS - 1);
    let mut suspects = Vec::new();
    let (mut from, mut bytes) = (Bytes::new(), 0);
    loop {
        let step = scrub::step(&other.store, &from, &mut AlignedBuf::default()).expect("reads");
        suspects.extend(step.suspects);
        bytes += step.bytes;
        match step.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(suspects, [(FILE, 2), (FILE, BLOCKS - 1)]);
    assert_eq!(bytes, BLOCKS * BLOCK);
    for (ino, number) in suspects {
        let State::Rotten(sum) = other.applier.look(ino, number).expect("looks") else {
            panic!("block {number} is rotten");
        };
        let data = mend::block(&sound.store, ino, number, sum)
            .expect("reads")
            .expect("has it");
        let mend = Block {
            ino,
            number,
            was: sum,
            is: sum,
            as_of: LogIndex::ZERO,
            data,
        };
        assert_eq!(other.applier.mend_block(&mend).expect("mends"), Mended::Done);
        assert_eq!(other.applier.mend_block(&mend).expect("looks"), Mended::Sound);
        assert_eq!(other.applier.look(ino, number).expect("looks"), State::Sound);
    }
    assert_eq!(content(&other), content(&sound));
    // Up to the file's end and no further.
    let before = sound.disk.clone();
    let len = |disk: &SimDisk| {
        use holdfast_storage::disk::{Disk, DiskFile, OpenHow};
        disk.open(&data::path(FILE), OpenHow::default())
            .and_then(|file| file.len())
            .expect("says")
    };
    assert_eq!(len(&other.disk), len(&before));
}

/// A part of a rotten block is written: what the block should be only the others know, at one index of the log.
#[test]
fn a_damaged_block_is_mended_with_what_the_others_had_at_that_index() {
    let (mut sound, mut other) = twice();
    rot(&other, 1);
    let (index, is, was) = on_both(&mut sound, &mut other, &[write(BLOCK + 100, 50, 9)]);
    assert_eq!(other.applier.look(FILE, 1).expect("looks"), State::Damaged);
    assert_eq!(was.sums[1], sums::DAMAGED);
    assert_eq!(mend_all(&sound, &mut other, index, &is, &was), [Mended::Done]);
    assert_eq!(content(&other), content(&sound));
}

#[test]
fn what_was_changed_since_is_not_mended_with_old_bytes() {
    let (mut sound, mut other) = twice();
    rot(&other, 1);
    let (index, is, was) = on_both(&mut sound, &mut other, &[write(BLOCK + 100, 50, 9)]);
    let old = mend::block(&sound.store, FILE, 1, is.sums[1])
        .expect("reads")
        .expect("has it");
    let mend = Block {
        ino: FILE,
        number: 1,
        was: was.sums[1],
        is: is.sums[1],
        as_of: index,
        data: old,
    };
    let (index, is, was) = on_both(&mut sound, &mut other, &[write(BLOCK + 300, 50, 8)]);
    assert_eq!(other.applier.mend_block(&mend).expect("looks"), Mended::Changed);
    assert_eq!(other.applier.look(FILE, 1).expect("looks"), State::Damaged);
    // Nor after a start that did it again.
    other.checkpoint().expect("checkpoints");
    let mut other = Node::open(other.disk.clone(), other.meta.clone()).expect("opens");
    assert_eq!(other.applier.mend_block(&mend).expect("looks"), Mended::Changed);
    assert_eq!(mend_all(&sound, &mut other, index, &is, &was), [Mended::Done]);
    assert_eq!(content(&other), content(&sound));
}

/// A replica that holds other bytes with a checksum that fits them, as a fault of the software would leave it.
#[test]
fn a_replica_that_differs_takes_what_the_others_have() {
    let (mut sound, mut other) = twice();
    other.propose(at(2), &write(2 * BLOCK, 10, 99)).expect("writes");
    other.propose(at(2), &write(0, BLOCK as usize, 98)).expect("writes");
    for _ in 0..2 {
        sound.sequence(Vec::new());
    }
    let (index, is, was) = on_both(&mut sound, &mut other, &[]);
    assert!(!was.is_damaged());
    assert_eq!(mend_all(&sound, &mut other, index, &is, &was), [Mended::Done; 2]);
    assert_eq!(content(&other), content(&sound));
}

#[test]
fn keys_are_mended_only_as_they_were_found() {
    let mut node = with_file();
    let key = key::inode(FILE);
    let right = node.store.meta.get(&key).expect("reads").expect("is there");
    let wrong = Bytes::from_static(b"wrong");
    let put = |node: &Replica, value: Option<&Bytes>| {
        let change = match value {
            Some(value) => Change::Put(key.clone(), value.clone()),
            None => Change::Delete(key.clone()),
        };
        node.store.meta.write(vec![change]).expect("writes");
    };
    for was in [Some(&wrong), None] {
        put(&node, was);
        let mend = |hash: Option<Sum>| Key {
            key: key.clone(),
            was: hash,
            value: Some(right.clone()),
        };
        let other = node.applier.mend_key(&mend(Some([1; 16]))).expect("looks");
        assert_eq!(other, Mended::Changed);
        let hash = was.map(|value| mend::hash_of(value));
        assert_eq!(node.applier.mend_key(&mend(hash)).expect("mends"), Mended::Done);
        assert_eq!(node.store.inode(FILE).expect("is there").size, BLOCKS * BLOCK - 1000);
        assert_eq!(node.applier.mend_key(&mend(hash)).expect("looks"), Mended::Sound);
    }
    let own = Key {
        key: Bytes::from_static(holdfast_storage::apply::APPLIED),
        was: None,
        value: None,
    };
    assert_eq!(node.applier.mend_key(&own).expect("refuses"), Mended::Changed);
}

#[test]
fn a_few_keys_are_answered_one_by_one() {
    let mut node = with_file();
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

/// What comes over one replica of three.
#[derive(Clone, Debug)]
enum Event {
    Op(Op),
    Rot(u64),
    Mend,
    /// Mend by answers of the last check but one.
    MendLate,
    Checkpoint,
    Crash(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let len = BLOCKS * BLOCK;
    let op = prop_oneof![
        (0..len, 1..9000usize, any::<u8>()).prop_map(move |(offset, len, byte)| write(offset, len, byte)),
        (0..BLOCKS).prop_map(|block| write(block * BLOCK, BLOCK as usize, 3)),
        (0..2 * len).prop_map(|size| Op::SetAttr {
            ino: FILE,
            set: SetAttr {
                size: Some(size),
                ..SetAttr::default()
            },
        }),
    ];
    prop_oneof![
        4 => op.prop_map(Event::Op),
        3 => (0..BLOCKS).prop_map(Event::Rot),
        3 => Just(Event::Mend),
        1 => Just(Event::MendLate),
        1 => Just(Event::Checkpoint),
        1 => any::<u64>().prop_map(Event::Crash),
    ]
}

proptest! {
    #![proptest_config(model::config(150, "tests/regressions/store_mend.txt"))]

    /// Whatever rots and is changed, mended late or over a crash: what can be read is what the sound replica has, and in the
    /// end all is.
    #[test]
    fn mending_never_makes_anything_else_of_a_file(events in prop::collection::vec(event(), 1..40)) {
        let (mut sound, mut other) = twice();
        let mut late = None;
        let mut mend = |sound: &mut Replica, other: &mut Replica, use_late: bool| {
            let now = on_both(sound, other, &[]);
            let used = if use_late { late.take().unwrap_or_else(|| now.clone()) } else { now.clone() };
            late = Some(now);
            mend_all(sound, other, used.0, &used.1, &used.2)
        };
        for event in &events {
            match event {
                Event::Op(op) => {
                    on_both(&mut sound, &mut other, std::slice::from_ref(op));
                }
                Event::Rot(block) => drop(other.disk.rot(&data::path(FILE), block * BLOCK + 5)),
                Event::Mend => drop(mend(&mut sound, &mut other, false)),
                Event::MendLate => drop(mend(&mut sound, &mut other, true)),
                Event::Checkpoint => other.checkpoint().expect("checkpoints"),
                // Redo takes what stands there for torn, not for rotten: only what is sound is crashed here.
                Event::Crash(seed) => {
                    mend(&mut sound, &mut other, false);
                    other.disk.crash(*seed);
                    other.meta.crash(*seed);
                    other = Node::open(other.disk.clone(), other.meta.clone()).expect("opens");
                    other.apply(usize::MAX).expect("redoes");
                }
            }
            let (size, right) = (sound.store.inode(FILE).expect("is there").size, content(&sound));
            for block in 0..size.div_ceil(BLOCK) {
                if let Ok(read) = other.store.read(FILE, block * BLOCK, BLOCK as usize) {
                    let at = (block * BLOCK) as usize;
                    prop_assert_eq!(&read[..], &right[at..at + read.len()], "block {} after {:?}", block, event);
                }
            }
        }
        mend(&mut sound, &mut other, false);
        prop_assert_eq!(content(&other), content(&sound));
    }
}

proptest! {
    #![proptest_config(model::config(40, "tests/regressions/store_mend.txt"))]

    /// A scrub between any two steps of any work suspects nothing that the apply thread then finds rotten.
    #[test]
    fn a_scrub_finds_nothing_where_nothing_is(all in steps(ops::op(), 60)) {
        let mut life = Life::begin(SimDisk::new());
        for step in &all {
            if matches!(step, Step::Checkpoint) {
                continue;
            }
            life.step(step).expect("nothing fails here");
            let found = scrub::step(&life.node.store, b"", &mut AlignedBuf::default()).expect("reads");
            prop_assert_eq!(found.damaged, []);
            for (ino, number) in found.suspects {
                prop_assert_eq!(life.node.applier.look(ino, number).expect("looks"), State::Sound);
            }
        }
    }
}
