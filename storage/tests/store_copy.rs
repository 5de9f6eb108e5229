//! A replica copied from one that goes on meanwhile is, once the log has caught up, the same: whatever the target held
//! before, wherever the copy was broken off, and wherever the target crashed.

mod model;
mod node;

use holdfast_storage::checkpoint;
use holdfast_storage::copy::{self, Joint, Source, Target};
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::disk::{Disk, DiskFile, OpenHow};
use holdfast_storage::error::StoreError;
use holdfast_storage::identity::Identity;
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::types::{LogIndex, Term};
use model::ops;
use node::script::{Life, Step, borders, steps};
use node::{Node, identity, look};
use proptest::prelude::*;

const TERM: Term = Term(3);
const LEADER: u64 = 1;

/// The source's life, which goes on a step at each question of the target.
struct Alive<'l, 's> {
    life: &'l mut Life<SimDisk>,
    during: &'s [Step],
}

impl Alive<'_, '_> {
    fn go_on(&mut self) {
        if let Some((step, rest)) = self.during.split_first() {
            self.during = rest;
            self.life.step(step).expect("nothing fails on the source");
        }
    }
}

/// One pass over all keys, or as far as `questions` lead.
fn pass(
    target: &mut Target<SimDisk, SimMeta>,
    source: &Source<SimDisk, SimMeta>,
    alive: &mut Alive<'_, '_>,
    questions: &mut u32,
) -> Result<bool, StoreError> {
    let mut ask = |alive: &mut Alive<'_, '_>| {
        alive.go_on();
        *questions = questions.saturating_sub(1);
        *questions > 0
    };
    let mut from = bytes::Bytes::new();
    loop {
        if !ask(alive) {
            return Ok(false);
        }
        let piece = source.piece(&from)?;
        if !target.has(&piece)? {
            let mut at = Some(piece.from.clone());
            while let Some(begin) = at {
                if !ask(alive) {
                    return Ok(false);
                }
                let (pairs, next) = source.keys(&begin, &piece.to)?;
                let wanted = target.take(&begin, next.as_deref().unwrap_or(&piece.to), pairs)?;
                for wanted in wanted {
                    if !ask(alive) {
                        return Ok(false);
                    }
                    target.put(&source.blocks(wanted.ino, wanted.blocks)?)?;
                }
                target.settled();
                at = next;
            }
        }
        if piece.to.is_empty() {
            return Ok(true);
        }
        from = piece.to;
    }
}

struct Fate {
    piece_keys: usize,
    /// After so many questions the connection ends; and after how many calls to its disk the target crashes.
    breaks: Vec<u32>,
    crashes: Vec<u64>,
    sound: bool,
    seed: u64,
}

/// Copies until it is done; returns the target as a node and how far redo has to go.
fn copy_all(alive: &mut Alive<'_, '_>, target: Node<SimDisk>, fate: &Fate) -> Node<SimDisk> {
    let Node { disk, meta, log, .. } = target;
    drop(log);
    let mut had = copy::history(&meta).expect("reads");
    let (mut breaks, mut crashes) = (fate.breaks.iter(), fate.crashes.iter());
    for attempt in 0.. {
        disk.fail_after(crashes.next().copied().unwrap_or(1 << 60));
        // After a crash nobody can say that.
        let sound = fate.sound && attempt == 0;
        match try_copy(alive, &disk, &meta, (fate, sound, had), &mut breaks) {
            Ok(identity) => {
                disk.fail_after(1 << 60);
                return Node::open_as(disk, meta, identity).expect("opens");
            }
            Err(_) => {
                disk.crash(fate.seed + attempt);
                meta.crash(fate.seed / 3 + attempt);
                if !copy::is_copying(&disk).expect("reads") {
                    // It crashed before it was marked, so it is what it was, or after all was done.
                    had = copy::history(&meta).expect("reads");
                    let identity = Identity::read(&disk).expect("reads").expect("is formatted");
                    if identity.joined != LogIndex::ZERO {
                        disk.fail_after(1 << 60);
                        return Node::open_as(disk, meta, identity).expect("opens");
                    }
                }
            }
        }
    }
    unreachable!("crashes run out")
}

fn try_copy<'a>(
    alive: &mut Alive<'_, '_>,
    disk: &SimDisk,
    meta: &SimMeta,
    (fate, sound, had): (&Fate, bool, u64),
    breaks: &mut impl Iterator<Item = &'a u32>,
) -> Result<Identity, StoreError> {
    let mut target = Target::begin(disk.clone(), meta.clone(), &identity(), sound)?;
    // However much of the source's has come since: whether the two may be copied is judged by it again.
    assert_eq!(target.history()?, had);
    loop {
        let checkpoint = alive.life.node.store.checkpointed();
        let reader = alive.life.node.log.reader();
        let term = reader.term(checkpoint).unwrap_or_default();
        let source = Source::with_pieces_of(alive.life.node.store.clone(), fate.piece_keys);
        let mut questions = breaks.next().copied().unwrap_or(u32::MAX);
        if !pass(&mut target, &source, alive, &mut questions)? {
            continue;
        }
        // What the log no longer holds has to be copied once more.
        if reader.first_index() > checkpoint.next() {
            continue;
        }
        let joint = Joint {
            checkpoint,
            checkpoint_term: term,
            joined: alive.life.node.logged(),
            term: TERM,
            leader: LEADER,
        };
        return target.finish(&identity(), [8; 16], joint);
    }
}

/// As it is when it is opened for the first time.
fn assert_begins(copy: &Node<SimDisk>) {
    let state = copy.log.hard_state();
    assert_eq!((state.term, state.vote, state.commit), (TERM, LEADER, copy.logged()));
    assert_eq!(copy.store.applied(), copy.logged());
    assert!(!copy.clean);
}

/// The log's entries come, in batches, and the copy is the same as the source.
fn catch_up(copy: &mut Node<SimDisk>, life: &mut Life<SimDisk>, seed: u64) {
    life.settle().expect("nothing fails on the source");
    let (reader, from) = (life.node.log.reader(), copy.logged());
    let missing = reader
        .read(from.next(), life.node.logged().next(), usize::MAX)
        .expect("the source's log has them");
    let batch = 1 + (seed % 9) as usize;
    for entries in missing.chunks(batch) {
        copy.log.append(None, entries).expect("there is room");
        copy.apply(usize::MAX).expect("applies");
        if seed.is_multiple_of(3) {
            let index = checkpoint::run(&copy.store).expect("nothing fails here");
            copy.log.trim(index);
        }
    }
    let model = life.models.last().expect("the root at least");
    let shown = look::tree(&copy.store, &model.orphans());
    let shown = shown.unwrap_or_else(|error| panic!("the copy can't be read: {error}"));
    assert_eq!(shown, model.tree());
    assert_eq!(copy.store.take_rotten(), []);
    // What is stored is the same key for key, the checksums among them.
    let all = |node: &Node<SimDisk>| Source::new(node.store.clone()).piece(b"").expect("reads");
    assert_eq!(all(copy), all(&life.node), "the keys");
    assert_eq!(files(copy), files(&life.node), "files of data");
}

/// Those that aren't empty; a cut may leave an empty one.
fn files(node: &Node<SimDisk>) -> Vec<String> {
    let mut found = Vec::new();
    for folder in 0..256 {
        let folder = format!("data/{folder:02x}");
        for name in node.disk.list(&folder).expect("lists") {
            let path = format!("{folder}/{name}");
            let file = node.disk.open(&path, OpenHow::default()).expect("opens");
            let mut bytes = vec![0; file.len().expect("has a length") as usize];
            file.read_at(&mut bytes, 0).expect("reads");
            if bytes.iter().any(|byte| *byte != 0) {
                found.push(path);
            }
        }
    }
    found
}

fn life(all: &[Step]) -> Life<SimDisk> {
    let mut life = Life::begin(SimDisk::new());
    life.run(all).expect("nothing fails here");
    life
}

fn fates() -> impl Strategy<Value = Fate> {
    (
        1usize..40,
        prop::collection::vec(1u32..60, 0..4),
        prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(0u64..80, 1..4)],
        any::<bool>(),
        0u64..1_000_000,
    )
        .prop_map(|(piece_keys, breaks, crashes, sound, seed)| Fate {
            piece_keys,
            breaks,
            crashes,
            sound,
            seed,
        })
}

impl std::fmt::Debug for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "pieces of {} keys, breaks {:?}, crashes {:?}, sound {}, seed {}",
            self.piece_keys, self.breaks, self.crashes, self.sound, self.seed
        )
    }
}

fn copy_of(before: &[Step], during: &[Step], after: &[Step], stale: &[Step], fate: &Fate) {
    let mut source = life(before);
    // What the target holds needn't have anything to do with the source. Its checksums fit its files, for nothing crashed.
    let target = life(stale).node;
    let mut alive = Alive {
        life: &mut source,
        during,
    };
    let mut copy = copy_all(&mut alive, target, fate);
    assert_begins(&copy);
    catch_up(&mut copy, &mut source, fate.seed);
    // What lies where nothing should comes to light when something is written beside it.
    source.run(after).expect("nothing fails on the source");
    catch_up(&mut copy, &mut source, fate.seed);
}

proptest! {
    #![proptest_config(model::config(400, "tests/regressions/store_copy.txt"))]

    #[test]
    fn a_copy_made_beside_any_changes_is_the_same(
        before in steps(prop_oneof![3 => borders(), 1 => ops::op()], 60),
        during in steps(prop_oneof![3 => borders(), 1 => ops::op()], 60),
        after in steps(borders(), 30),
        stale in steps(borders(), 40),
        fate in fates(),
    ) {
        copy_of(&before, &during, &after, &stale, &fate);
    }

    /// A node that was away: it has the beginning of the same history.
    #[test]
    fn a_copy_over_an_older_state_of_the_same_is_the_same(
        before in steps(prop_oneof![3 => borders(), 1 => ops::op()], 80),
        during in steps(borders(), 40),
        after in steps(borders(), 40),
        share in 0usize..100,
        fate in fates(),
    ) {
        copy_of(&before, &during, &after, &before[..before.len() * share / 100], &fate);
    }
}
