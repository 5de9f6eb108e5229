//! Damage of any kind is mended by what two sound replicas have, and never by anything else; beside changes, over crashes.

mod model;
mod node;

use bytes::Bytes;
use holdfast_storage::check::Found;
use holdfast_storage::checkpoint;
use holdfast_storage::data;
use holdfast_storage::data::sums::{self, Sum};
use holdfast_storage::digest;
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::effects::{CheckPart, Effect};
use holdfast_storage::key;
use holdfast_storage::mend::{self, Block, Key, Mended, Since, State};
use holdfast_storage::meta::{Change, Meta};
use holdfast_storage::op::{Caller, Fallocate, Op, SetAttr};
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
    node.make_file(at(1), BLOCKS * BLOCK - 1000);
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
    let longest = is.sums.len().max(was.sums.len());
    let at = |found: &Found, number: usize| found.sums.get(number).copied().unwrap_or(sums::HOLE);
    let differ = (0..longest).filter(|number| at(is, *number) != at(was, *number));
    let blocks: Vec<Block> = differ
        .map(|number| block(sound, number as u64, at(is, number)))
        .collect();
    mend(other, index, &blocks)
}

/// A peer that hasn't got it any more gives something that doesn't fit.
fn block(sound: &Replica, number: u64, is: Sum) -> Block {
    let data = mend::block(&sound.store, FILE, number, is).expect("reads");
    let data = if is == sums::HOLE { None } else { data };
    Block {
        ino: FILE,
        number,
        is,
        data: data.unwrap_or_default(),
        by_one: false,
    }
}

fn mend(other: &mut Replica, as_of: LogIndex, blocks: &[Block]) -> Vec<Mended> {
    let blocks: Vec<Block> = blocks
        .iter()
        .filter(|block| block.is == sums::HOLE || !block.data.is_empty())
        .cloned()
        .collect();
    let since = Since::read(&other.log.reader(), as_of, other.store.applied()).expect("reads");
    let Some(since) = since else {
        return vec![Mended::Changed; blocks.len()];
    };
    other
        .applier
        .mend_blocks(&blocks, &since)
        .expect("the metadata store works")
}

fn digest(node: &Replica) -> Option<Bytes> {
    // With the index that it goes with left out.
    let value = node.meta.get(b"z digest").expect("reads")?;
    assert_eq!(
        digest::verify(&node.meta).expect("reads"),
        None,
        "it is what the store holds"
    );
    Some(value.slice(..16))
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
        let mended = [block(&sound, number, sum)];
        assert_eq!(ino, FILE);
        assert_eq!(mend(&mut other, LogIndex::ZERO.next(), &mended), [Mended::Done]);
        assert_eq!(mend(&mut other, LogIndex::ZERO.next(), &mended), [Mended::Sound]);
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

/// One other node alone proves nothing against a checksum that is known here: those bytes may be the wrong ones.
#[test]
fn what_one_other_has_mends_only_what_is_known_no_more() {
    let (mut sound, mut other) = twice();
    let (mut wrong, _) = twice();
    let (index, is, _) = on_both(&mut wrong, &mut sound, &[write(BLOCK, BLOCK as usize, 9)]);
    rot(&other, 1);
    let alone = Block {
        by_one: true,
        ..block(&wrong, 1, is.sums[1])
    };
    assert_eq!(mend(&mut other, LogIndex::ZERO.next(), &[alone]), [Mended::Changed]);
    assert!(matches!(other.applier.look(FILE, 1).expect("looks"), State::Rotten(_)));
    // Damaged while a part of it was written: nobody else knows what it was, so one who has it sound is right.
    let (mut sound, _) = twice();
    let (index_too, is, was) = on_both(&mut sound, &mut other, &[write(BLOCK + 100, 50, 9)]);
    assert_eq!((index, was.sums[1]), (index_too, sums::DAMAGED));
    let alone = Block {
        by_one: true,
        ..block(&sound, 1, is.sums[1])
    };
    assert_eq!(mend(&mut other, index_too, &[alone]), [Mended::Done]);
    assert_eq!(content(&other), content(&sound));
}

#[test]
fn what_was_changed_since_is_not_mended_with_old_bytes() {
    let (mut sound, mut other) = twice();
    rot(&other, 1);
    let (index, is, was) = on_both(&mut sound, &mut other, &[write(BLOCK + 100, 50, 9)]);
    assert_eq!(was.sums[1], sums::DAMAGED);
    let old = [block(&sound, 1, is.sums[1])];
    let as_of = index;
    let (index, is, was) = on_both(&mut sound, &mut other, &[write(BLOCK + 300, 50, 8)]);
    assert_eq!(mend(&mut other, as_of, &old), [Mended::Changed]);
    assert_eq!(other.applier.look(FILE, 1).expect("looks"), State::Damaged);
    // Nor by a number that this replica hasn't come to.
    assert_eq!(mend(&mut other, LogIndex(1 << 40), &old), [Mended::Changed]);
    // Nor after a start that did it again.
    checkpoint::run(&other.store).expect("checkpoints");
    let mut other = Node::open(other.disk.clone(), other.meta.clone()).expect("opens");
    assert_eq!(mend(&mut other, as_of, &old), [Mended::Changed]);
    assert_eq!(mend_all(&sound, &mut other, index, &is, &was), [Mended::Done]);
    assert_eq!(content(&other), content(&sound));
}

/// A peer that hasn't applied the change yet still gives the bytes that this replica asked for before it applied it.
#[test]
fn bytes_that_were_asked_for_before_a_change_are_too_late() {
    let whole = write(2 * BLOCK, BLOCK as usize, 9);
    let part = write(2 * BLOCK + 100, 50, 9);
    let hole = Op::Fallocate {
        ino: FILE,
        how: Fallocate::Punch,
        offset: 2 * BLOCK,
        len: BLOCK,
    };
    let size = |size| Op::SetAttr {
        ino: FILE,
        set: SetAttr {
            size: Some(size),
            ..SetAttr::default()
        },
    };
    for changes in [
        vec![whole],
        vec![part],
        vec![hole],
        vec![size(2 * BLOCK + 5)],
        vec![size(BLOCK), size(BLOCKS * BLOCK)],
    ] {
        let (mut sound, mut other) = twice();
        rot(&other, 2);
        let State::Rotten(sum) = other.applier.look(FILE, 2).expect("looks") else {
            panic!("it is rotten");
        };
        let asked = block(&sound, 2, sum);
        let mended = |other: &mut Replica| {
            let mended = other
                .applier
                .mend_blocks(std::slice::from_ref(&asked), &Since::anything());
            mended.expect("the metadata store works")
        };
        let (index, is, was) = on_both(&mut sound, &mut other, &changes);
        let outcome = mended(&mut other);
        assert!(
            matches!(outcome[..], [Mended::Changed | Mended::Sound]),
            "{changes:?}: {outcome:?}"
        );
        mend_all(&sound, &mut other, index, &is, &was);
        assert_eq!(content(&other), content(&sound), "{changes:?}");
        rot(&sound, 0);
        let mut sound = sound;
        let State::Rotten(sum) = sound.applier.look(FILE, 0).expect("looks") else {
            panic!("it is rotten");
        };
        let same = block(&other, 0, sum);
        let mended = sound.applier.mend_blocks(&[same], &Since::anything());
        assert_eq!(mended.expect("works"), [Mended::Done], "what nothing changed is mended");
        assert_eq!(content(&other), content(&sound));
    }
}

/// A replica that missed a truncation keeps nothing behind the end that the others have.
#[test]
fn a_file_whose_size_is_mended_ends_there() {
    let (mut sound, mut other) = twice();
    let size = |size| Op::SetAttr {
        ino: FILE,
        set: SetAttr {
            size: Some(size),
            ..SetAttr::default()
        },
    };
    sound.propose(at(2), &size(2 * BLOCK + 5)).expect("is done");
    settle(&mut sound);
    other.sequence(Vec::new());
    settle(&mut other);
    let key = key::inode(FILE);
    let value = sound.store.meta.get(&key).expect("reads");
    let mended = other.applier.mend_keys(&[Key { key, value }], &Since::default());
    assert_eq!(mended.expect("works"), [Mended::Done]);
    let (index, is, was) = on_both(&mut sound, &mut other, &[]);
    mend_all(&sound, &mut other, index, &is, &was);
    assert_eq!(digest(&other), digest(&sound));
    on_both(&mut sound, &mut other, &[size(BLOCKS * BLOCK)]);
    assert_eq!(content(&other), content(&sound));
    assert_eq!(digest(&other), digest(&sound));
}

/// Nothing comes back that was removed while the answers were on their way.
#[test]
fn what_is_gone_since_stays_gone() {
    let (mut sound, other) = twice();
    let hole = Change::Put(key::sums(FILE, 0), Bytes::new());
    other.store.meta.write(vec![hole]).expect("writes");
    let mut other = Node::open(other.disk.clone(), other.meta.clone()).expect("opens");
    let (as_of, is, was) = on_both(&mut sound, &mut other, &[]);
    assert_ne!(is.sums, was.sums);
    let blocks: Vec<Block> = (0..BLOCKS)
        .map(|number| block(&sound, number, is.sums[number as usize]))
        .collect();
    let cut = Op::SetAttr {
        ino: FILE,
        set: SetAttr {
            size: Some(BLOCK),
            ..SetAttr::default()
        },
    };
    on_both(&mut sound, &mut other, &[cut]);
    let mended = mend(&mut other, as_of, &blocks);
    assert_eq!(mended[0], Mended::Done);
    assert!(
        mended[1..].iter().all(|mended| *mended == Mended::Changed),
        "{mended:?}"
    );
    let key = key::dirent(Ino::ROOT, b"a");
    let value = sound.store.meta.get(&key).expect("reads");
    other
        .store
        .meta
        .write(vec![Change::Delete(key.clone())])
        .expect("writes");
    let caller = Caller {
        uid: 0,
        gid: 0,
        umask: 0,
    };
    let unlink = Op::Unlink {
        parent: Ino::ROOT,
        name: "a".into(),
        caller,
    };
    sound.propose(at(3), &unlink).expect("unlinks");
    let effects = holdfast_storage::effects::Entry::decode(LogIndex::ZERO, &sound.waiting[0].data).expect("decodes");
    other.sequence(effects.effects);
    settle(&mut sound);
    settle(&mut other);
    let since = Since::read(&other.log.reader(), as_of, other.store.applied()).expect("reads");
    let stale = Key { key, value };
    let mended = other
        .applier
        .mend_keys(&[stale], &since.expect("not too much"))
        .expect("looks");
    assert_eq!(mended, [Mended::Changed]);
}

/// The bytes are the others', the checksum isn't: what a crash in the middle of mending leaves.
#[test]
fn a_crash_between_bytes_and_checksum_is_mended_like_anything_else() {
    let (mut sound, other) = twice();
    let mut group = sound
        .store
        .meta
        .get(&key::sums(FILE, 0))
        .expect("reads")
        .expect("is there")
        .to_vec();
    group[16..32].fill(9);
    other
        .store
        .meta
        .write(vec![Change::Put(key::sums(FILE, 0), group.into())])
        .expect("writes");
    let mut other = Node::open(other.disk.clone(), other.meta.clone()).expect("opens");
    let (index, is, was) = on_both(&mut sound, &mut other, &[]);
    assert_eq!(was.sums[1], sums::DAMAGED);
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
fn keys_become_what_the_others_have() {
    let mut node = with_file();
    let key = key::inode(FILE);
    let right = node.store.meta.get(&key).expect("reads").expect("is there");
    let before = digest(&node);
    for was in [Some(Bytes::from_static(b"wrong")), None] {
        let change = match was {
            Some(wrong) => Change::Put(key.clone(), wrong),
            None => Change::Delete(key.clone()),
        };
        node.store.meta.write(vec![change]).expect("writes");
        let mismatch = digest::verify(&node.meta)
            .expect("reads")
            .expect("was changed beside it");
        node.applier.correct_digest(mismatch).expect("writes");
        let mend = [Key {
            key: key.clone(),
            value: Some(right.clone()),
        }];
        assert_eq!(
            node.applier.mend_keys(&mend, &Since::default()).expect("mends"),
            [Mended::Done]
        );
        assert_eq!(node.store.inode(FILE).expect("is there").size, BLOCKS * BLOCK - 1000);
        assert_eq!(
            node.applier.mend_keys(&mend, &Since::default()).expect("looks"),
            [Mended::Sound]
        );
        assert_eq!(digest(&node), before);
    }
    let own = Key {
        key: Bytes::from_static(holdfast_storage::apply::APPLIED),
        value: None,
    };
    assert_eq!(
        node.applier.mend_keys(&[own], &Since::default()).expect("refuses"),
        [Mended::Changed]
    );
}

/// An inode that only this replica has: nothing else would ever remove its data.
#[test]
fn an_inode_that_goes_takes_its_data_along() {
    let mut node = with_file();
    let gone = [Key {
        key: key::inode(FILE),
        value: None,
    }];
    assert_eq!(
        node.applier.mend_keys(&gone, &Since::default()).expect("mends"),
        [Mended::Done]
    );
    assert_eq!(node.store.meta.get(&key::sums(FILE, 0)).expect("reads"), None);
    use holdfast_storage::disk::{Disk, OpenHow};
    assert!(node.disk.open(&data::path(FILE), OpenHow::default()).is_err());
    assert!(digest(&node).is_some());
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
        (0..BLOCKS).prop_map(|block| write(block * BLOCK, BLOCK as usize, 0)),
        (0..len, 1..9000u64).prop_map(|(offset, len)| Op::Fallocate {
            ino: FILE,
            offset,
            len,
            how: Fallocate::Punch,
        }),
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
        let mut mend_as_of = |sound: &mut Replica, other: &mut Replica, use_late: bool| {
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
                Event::Mend => drop(mend_as_of(&mut sound, &mut other, false)),
                Event::MendLate => drop(mend_as_of(&mut sound, &mut other, true)),
                Event::Checkpoint => {
                    checkpoint::run(&other.store).expect("checkpoints");
                }
                // Redo takes what stands there for torn, not for rotten: only what is sound is crashed here.
                Event::Crash(seed) => {
                    mend_as_of(&mut sound, &mut other, false);
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
        mend_as_of(&mut sound, &mut other, false);
        prop_assert_eq!(content(&other), content(&sound));
        prop_assert_eq!(digest(&other), digest(&sound));
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
