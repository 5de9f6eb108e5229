//! Damage, full disks and stores that belong elsewhere: found and said, never served, spread or made worse.

mod model;
mod node;

use holdfast_storage::check::{self as checks, Found, Part};
use holdfast_storage::data::{self, sums};
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::disk::{Disk, DiskFile, OpenHow};
use holdfast_storage::effects::{CheckPart, Effect};
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::identity::Identity;
use holdfast_storage::log::LogError;
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::op::{Caller, Op, SetAttr};
use holdfast_storage::open;
use holdfast_storage::store::ReadError;
use holdfast_storage::types::{BLOCK, Ino};
use model::{at, ops};
use node::script::{Life, Step, borders, steps};
use node::{Node, SMALL, identity};
use proptest::prelude::*;

const FILE: Ino = Ino(2);

fn create(name: &'static str) -> Step {
    let caller = Caller {
        uid: 0,
        gid: 0,
        umask: 0,
    };
    let op = Op::Create {
        parent: Ino::ROOT,
        name: name.into(),
        mode: libc::S_IFREG | 0o644,
        rdev: 0,
        target: "".into(),
        class: None,
        caller,
    };
    Step::Op(op)
}

fn write(offset: u64, len: usize) -> Op {
    Op::Write {
        ino: FILE,
        offset,
        data: vec![b'w'; len].into(),
        clear_setid: false,
    }
}

/// A store with one file of four blocks, all applied and checkpointed.
fn four_blocks(disk: &SimDisk) -> Node<SimDisk> {
    let mut life = Life::begin(disk.clone());
    life.step(&create("a")).expect("creates");
    life.node.propose(at(1), &write(0, 4 * BLOCK as usize)).expect("writes");
    settle(&mut life.node);
    life.node.checkpoint().expect("checkpoints");
    life.node
}

fn settle(node: &mut Node<SimDisk>) {
    node.append().expect("appends");
    node.apply(usize::MAX).expect("applies");
}

fn is_rot(read: &Result<bytes::Bytes, ReadError>, block: u64) -> bool {
    matches!(read, Err(ReadError::Store(StoreError::Rot { ino: FILE, offset })) if *offset == block * BLOCK)
}

fn check(node: &mut Node<SimDisk>, part: CheckPart) -> Part {
    node.sequence(vec![Effect::Check { id: 5, part }]);
    node.append().expect("appends");
    node.apply(usize::MAX).expect("applies").pop().expect("an answer")
}

fn damaged(found: &Found) -> Vec<u64> {
    let blocks = (0..).zip(&found.sums);
    blocks
        .filter(|(_, sum)| **sum == sums::DAMAGED)
        .map(|(block, _)| block)
        .collect()
}

fn data_part(ino: Ino) -> CheckPart {
    CheckPart::Data {
        ino,
        offset: 0,
        len: 4 << 20,
    }
}

#[test]
fn rot_is_found_by_reads_and_by_the_checker() {
    let disk = SimDisk::new();
    let mut node = four_blocks(&disk);
    assert!(check(&mut node, data_part(FILE)).found.is_ok());
    disk.rot(&data::path(FILE), BLOCK + 77).expect("the file is there");
    assert!(is_rot(&node.store.read(FILE, 0, 3 * BLOCK as usize), 1));
    assert!(is_rot(&node.store.read(FILE, BLOCK, 1), 1));
    assert_eq!(node.store.take_rotten(), [(FILE, 1)]);
    assert!(
        node.store.read(FILE, 2 * BLOCK, BLOCK as usize).is_ok(),
        "the other blocks are sound"
    );
    let found = check(&mut node, data_part(FILE)).found.expect("answers");
    assert_eq!(damaged(&found), [1]);
}

#[test]
fn rot_is_not_served_beside_what_is_pending_over_it() {
    let disk = SimDisk::new();
    let mut node = four_blocks(&disk);
    disk.rot(&data::path(FILE), BLOCK + 77).expect("the file is there");
    node.propose(at(2), &write(BLOCK + 1000, 100)).expect("writes");
    assert!(is_rot(&node.store.read(FILE, BLOCK, BLOCK as usize), 1));
    assert!(
        node.store.read(FILE, BLOCK + 1000, 100).is_ok(),
        "what is pending alone is in memory"
    );
}

#[test]
fn rot_is_not_laundered_by_changes_to_a_part_of_the_block() {
    let part: [Op; 3] = [
        write(BLOCK + 1000, 100),
        Op::SetAttr {
            ino: FILE,
            set: SetAttr {
                size: Some(BLOCK + 2000),
                ..SetAttr::default()
            },
        },
        Op::Fallocate {
            ino: FILE,
            offset: BLOCK + 10,
            len: 20,
            how: holdfast_storage::op::Fallocate::Punch,
        },
    ];
    for op in part {
        let disk = SimDisk::new();
        let mut node = four_blocks(&disk);
        disk.rot(&data::path(FILE), BLOCK + 77).expect("the file is there");
        node.propose(at(2), &op).expect("is done");
        settle(&mut node);
        assert!(is_rot(&node.store.read(FILE, BLOCK, 1), 1), "after {op:?}");
        let found = check(&mut node, data_part(FILE)).found.expect("answers");
        assert_eq!(damaged(&found), [1], "after {op:?}");

        // Nor by a start: redo meets the block again, now with the mark of a damaged one.
        node.meta.clone().crash(u64::MAX);
        let mut node = Node::open(disk.clone(), node.meta.clone()).expect("opens");
        node.propose(at(3), &write(BLOCK + 300, 100)).expect("writes");
        settle(&mut node);
        assert!(node.store.read(FILE, BLOCK, 1).is_err(), "after {op:?} and a start");

        // Only bytes for all of it make it sound.
        node.propose(at(4), &write(BLOCK, BLOCK as usize)).expect("writes");
        settle(&mut node);
        assert!(
            node.store.read(FILE, BLOCK, 1).is_ok(),
            "after {op:?}, written as a whole"
        );
    }
}

#[test]
fn a_torn_tail_of_the_log_is_cut_and_said() {
    let disk = SimDisk::new();
    let mut torn = 0;
    let mut life = Life::begin(disk.clone());
    for seed in 0..40 {
        if life.node.store.lookup(Ino::ROOT, b"a").is_err() {
            life.step(&create("a")).expect("creates");
        }
        life.node.append().expect("appends");
        life.node.propose(at(1), &write(0, 30_000)).expect("writes");
        disk.fail_after(0);
        life.node.append().expect_err("crashes");
        let durable = life.node.logged();
        disk.crash(seed);
        life.node.meta.crash(seed);
        life.node = Node::open(disk.clone(), life.node.meta.clone()).expect("opens");
        assert!(!life.node.clean);
        assert!(life.node.logged() >= durable);
        if let Some(said) = &life.node.torn {
            torn += 1;
            assert!(said.contains("log/"), "{said}");
            assert_eq!(life.node.logged(), durable, "what is torn doesn't count");
        }
        life.node.apply(usize::MAX).expect("redoes");
    }
    assert!(torn > 0, "no crash tore the log");
}

#[test]
fn a_clean_stop_is_believed_once() {
    let disk = SimDisk::new();
    let node = four_blocks(&disk);
    open::mark_clean(&disk, node.logged()).expect("marks");
    let read_only = open::open_to_read(disk.clone(), node.meta.clone(), identity()).expect("opens");
    assert!(read_only.clean);
    assert!(
        Node::open(disk.clone(), node.meta.clone()).expect("opens").clean,
        "reading took nothing away"
    );
    assert!(!Node::open(disk, node.meta).expect("opens").clean);
}

#[test]
fn a_store_of_another_cluster_node_or_version_is_refused() {
    let disk = SimDisk::new();
    four_blocks(&disk);
    let found = Identity::read(&disk).expect("reads").expect("is there");
    assert_eq!(found, identity());
    found.must_be("pbx", "n1").expect("its own");
    let said = chain(&found.must_be("other", "n1").expect_err("another cluster"));
    assert!(said.contains("cluster pbx") && said.contains("other"), "{said}");
    let said = chain(&found.must_be("pbx", "n2").expect_err("another node"));
    assert!(said.contains("node n1") && said.contains("n2"), "{said}");

    let change = |from: &str, to: &str| {
        let file = disk.open("identity", OpenHow::default()).expect("is there");
        let mut text = vec![0; 4096];
        let len = file.read_at(&mut text, 0).expect("reads");
        let text = String::from_utf8(text[..len].to_vec())
            .expect("text")
            .replacen(from, to, 1);
        file.write_at(text.as_bytes(), 0).expect("writes");
        chain(&Identity::read(&disk).expect_err("refused"))
    };
    let said = change("format 2", "format 9");
    assert!(
        said.contains("format 9") && said.contains("formats 1 and 2") && said.contains("start the version"),
        "{said}"
    );
}

#[test]
fn a_damaged_identity_is_no_empty_folder() {
    let disk = SimDisk::new();
    four_blocks(&disk);
    disk.rot("identity", 30).expect("is there");
    let said = chain(&Identity::read(&disk).expect_err("damaged"));
    assert!(said.contains("identity"), "{said}");
}

#[test]
fn metadata_of_another_store_is_refused() {
    let disk = SimDisk::new();
    let node = four_blocks(&disk);
    let error = Node::open(disk, SimMeta::new())
        .err()
        .expect("an empty metadata store is behind the checkpoint");
    let said = chain(&error);
    assert!(
        said.contains(&format!("checkpoint at {}", node.logged())) && said.contains("A new replica"),
        "{said}"
    );
}

/// Whatever call the machine dies in, formatting can be done again, as another store.
#[test]
fn an_interrupted_formatting_is_done_again() {
    let disk = SimDisk::new();
    open::format_as(&disk, &identity(), SMALL).expect("formats");
    let total = disk.calls();
    for calls in (0..total).filter(|calls| *calls > 250 || calls % 40 == 0) {
        let disk = SimDisk::new();
        disk.fail_after(calls);
        open::format_as(&disk, &identity(), SMALL).expect_err("crashes");
        disk.crash(calls);
        if Identity::read(&disk).expect("reads").is_none() {
            let other = Identity {
                store: [9; 16],
                ..identity()
            };
            open::format_as(&disk, &other, SMALL)
                .unwrap_or_else(|error| panic!("after a crash in call {calls}: {}", chain(&error)));
            let opened = open::open(disk, SimMeta::new(), other).expect("opens");
            assert!(opened.clean);
        }
    }
}

/// An error at apply, and the node stops there; with room again it goes on as if nothing had been.
#[test]
fn a_full_disk_is_an_error_and_nothing_diverges() {
    let disk = SimDisk::new();
    let mut life = Life::begin(disk.clone());
    life.step(&create("a")).expect("creates");
    for number in 0..20 {
        // The second inode there is.
        life.step(&Step::Op(Op::Write {
            ino: Ino(1),
            offset: number * 5000,
            data: vec![7; 6000].into(),
            clear_setid: false,
        }))
        .expect("plans");
    }
    life.node.append().expect("the log has its room already");
    let before = life.node.store.applied();
    disk.full(disk.space().map(|space| space.total - space.free).expect("says") + 5 * BLOCK);
    let error = life.node.apply(usize::MAX).expect_err("is full");
    assert!(chain(&error).contains("No space left"), "{}", chain(&error));
    assert_eq!(
        life.node.store.applied(),
        before,
        "a batch is applied as a whole or not at all"
    );
    disk.full(1 << 40);
    life.node = Node::open(disk, life.node.meta.clone()).expect("opens");
    life.settle().expect("goes on");
}

#[test]
fn a_full_log_says_so_and_goes_on_after_a_checkpoint() {
    let disk = SimDisk::new();
    let mut node = four_blocks(&disk);
    let full = loop {
        node.propose(at(1), &write(0, 100_000)).expect("plans");
        let appended = node.log.append(None, &node.waiting);
        match appended {
            Ok(_) => node.waiting.clear(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, LogError::Full), "{full}");
    node.append().expect("checkpoints, and goes on");
    settle(&mut node);
    assert!(node.store.read(FILE, 0, 100_000).is_ok());
}

/// All parts that a check names, of the whole state.
fn parts(node: &mut Node<SimDisk>) -> Vec<Result<Found, String>> {
    let mut found = Vec::new();
    let (mut from, mut sizes) = (bytes::Bytes::new(), 0);
    loop {
        let part = CheckPart::Meta {
            from: from.clone(),
            limit: 5,
        };
        let part = check(node, part).found;
        let meta = part.clone().expect("metadata can be read");
        found.push(part);
        sizes += meta.sizes;
        if meta.next.is_empty() {
            break;
        }
        from = meta.next;
    }
    let mut unlisted = Some(bytes::Bytes::new());
    while let Some(from) = unlisted {
        let listed = checks::files(&node.store, &from, 3).expect("metadata can be read");
        for (ino, size) in listed.files {
            sizes -= size;
            // A huge file is a hole from some point on.
            for offset in (0..size.min(3 << 20)).step_by(1 << 20) {
                let len = 1 << 20;
                found.push(check(node, CheckPart::Data { ino, offset, len }).found);
            }
        }
        unlisted = listed.next;
    }
    assert_eq!(sizes, 0, "the same files");
    found
}

fn digest(node: &mut Node<SimDisk>) -> Vec<u8> {
    let part = CheckPart::Meta {
        from: bytes::Bytes::new(),
        limit: 0,
    };
    check(node, part).found.expect("answers").hash
}

/// The same entries on another node, in other batches, with other checkpoints.
fn follower(life: &mut Life<SimDisk>, seed: u64) -> Node<SimDisk> {
    life.node.append().expect("appends");
    let mut node = Node::format(SimDisk::new(), at(0));
    let last = life.node.logged();
    let entries = life
        .node
        .log
        .reader()
        .read(node.logged().next(), last.next(), usize::MAX)
        .expect("reads");
    for (number, batch) in (seed..).zip(entries.chunks(1 + (seed % 6) as usize)) {
        node.waiting = batch.to_vec();
        node.append().expect("appends");
        if number % 3 != 0 {
            node.apply(1 + (number % 7) as usize).expect("applies");
        }
        if number % 11 == 0 {
            node.checkpoint().expect("checkpoints");
        }
    }
    settle(&mut node);
    node
}

proptest! {
    #![proptest_config(model::config(40, "tests/regressions/store_damage.txt"))]

    #[test]
    fn replicas_agree_whatever_their_batches(all in steps(prop_oneof![borders(), ops::op()], 60), seed in 0u64..1000) {
        let mut life = Life::begin(SimDisk::new());
        // Without checkpoints the log keeps all entries for the other node.
        let calm = all.into_iter().filter(|step| !matches!(step, Step::Checkpoint)).collect::<Vec<_>>();
        life.run(&calm).expect("nothing fails here");
        let mut other = follower(&mut life, seed);
        settle(&mut life.node);
        prop_assert_eq!(parts(&mut life.node), parts(&mut other));
        prop_assert_eq!(digest(&mut life.node), digest(&mut other));
        prop_assert_eq!(holdfast_storage::digest::verify(&other.meta).expect("reads"), None);
    }
}
