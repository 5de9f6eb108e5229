//! What holds of the metadata after every operation, whatever it was.

mod model;

use holdfast_storage::effects::Effect;
use holdfast_storage::key;
use holdfast_storage::op::{Op, Reply};
use holdfast_storage::plan::{Planned, plan};
use holdfast_storage::record::{ClassRoot, Dirent, FIRST_COOKIE, Inode, Xattrs};
use holdfast_storage::types::Ino;
use model::fs::Model;
use model::replica::Replica;
use model::{at, ops};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of one kind, with the inode that they belong to.
fn of_kind(replica: &Replica, kind: u8) -> impl Iterator<Item = (&key::Key, &bytes::Bytes, Ino)> {
    let all = replica.meta.iter().filter(move |(key, _)| key[0] == kind);
    all.map(|(key, value)| (key, value, key::owner(key).expect("an inode's key")))
}

fn inodes(replica: &Replica) -> BTreeMap<Ino, Inode> {
    of_kind(replica, b'i')
        .map(|(_, value, ino)| (ino, Inode::decode(value).expect("a sound inode")))
        .collect()
}

fn every_entry_has_its_child_record_and_its_inode(replica: &Replica) {
    let inodes = inodes(replica);
    let mut from_names = BTreeSet::new();
    for (key, value, parent) in of_kind(replica, b'd') {
        let entry = Dirent::decode(value).expect("a sound entry");
        assert!(inodes[&parent].is_dir(), "entries of {parent}, which is no directory");
        assert_eq!(
            inodes[&entry.ino].mode & libc::S_IFMT,
            entry.kind,
            "the entry says what the inode is"
        );
        from_names.insert((parent, key[9..].to_vec(), entry.ino, entry.kind, entry.cookie));
    }
    let directories = inodes.iter().filter(|(_, inode)| inode.is_dir());
    let children = directories.flat_map(|(ino, _)| replica.list(*ino, 0).into_iter().map(|child| (*ino, child)));
    let from_cookies: BTreeSet<_> = children
        .map(|(parent, (cookie, child))| (parent, child.name.to_vec(), child.ino, child.kind, cookie))
        .collect();
    assert_eq!(from_names, from_cookies);
    assert_eq!(
        of_kind(replica, b'c').count(),
        from_cookies.len(),
        "each child record lies in a directory"
    );
}

fn links_and_entries_are_counted_right(replica: &Replica) {
    let inodes = inodes(replica);
    let mut names = BTreeMap::<Ino, u32>::new();
    let mut below = BTreeMap::<Ino, u32>::new();
    for (_, value, parent) in of_kind(replica, b'd') {
        let entry = Dirent::decode(value).expect("a sound entry");
        *names.entry(entry.ino).or_default() += 1;
        if entry.kind == libc::S_IFDIR {
            *below.entry(parent).or_default() += 1;
            assert_eq!(inodes[&entry.ino].parent, parent, "a directory knows where it lies");
        }
    }
    for (ino, inode) in &inodes {
        let named = names.get(ino).copied().unwrap_or(0) + u32::from(*ino == Ino::ROOT);
        if inode.is_dir() {
            assert!(named <= 1, "directory {ino} has {named} names");
            assert_eq!(inode.entries, replica.list(*ino, 0).len() as u64, "entries of {ino}");
            assert_eq!(
                inode.nlink,
                if named == 0 {
                    0
                } else {
                    2 + below.get(ino).copied().unwrap_or(0)
                }
            );
        } else {
            assert_eq!(inode.nlink, named, "links of {ino}");
        }
        let orphan = replica.meta.contains_key(&key::orphan(*ino));
        assert_eq!(orphan, named == 0, "{ino} has {named} names and orphan is {orphan}");
    }
    assert!(
        replica.orphans().iter().all(|ino| inodes.contains_key(ino)),
        "an orphan without an inode"
    );
}

fn cookies_lie_below_the_next_one(replica: &Replica) {
    for (ino, inode) in inodes(replica).iter().filter(|(_, inode)| inode.is_dir()) {
        // That they are unique follows from the keys and from the entries' having the same ones.
        for (cookie, _) in replica.list(*ino, 0) {
            assert!(
                (FIRST_COOKIE..inode.next_cookie).contains(&cookie),
                "cookie {cookie} of {ino}"
            );
        }
    }
}

fn nothing_belongs_to_an_inode_that_is_gone(replica: &Replica) {
    let inodes = inodes(replica);
    for (key, value, ino) in of_kind(replica, b'x') {
        assert!(inodes.contains_key(&ino), "{key:?} is left over");
        assert!(
            !Xattrs::decode(value).expect("sound attributes").is_empty(),
            "{key:?} is empty"
        );
    }
    assert!(
        replica.data.keys().all(|ino| inodes.contains_key(&Ino(*ino))),
        "data is left over"
    );
    assert_eq!(of_kind(replica, b'b').count(), 0, "checksums aren't planned");
}

fn directories_with_a_class_of_their_own_are_listed_and_no_others(replica: &Replica) {
    let given = inodes(replica)
        .into_iter()
        .filter(|(_, inode)| inode.own_class && inode.nlink > 0)
        .map(|(ino, inode)| (ino.0, inode.class));
    let listed = of_kind(replica, b'p').map(|(key, value, _)| {
        let root = ClassRoot::decode(value).expect("a sound record");
        (key::tail_number(key).expect("an inode"), root.class)
    });
    assert_eq!(given.collect::<BTreeMap<_, _>>(), listed.collect());
}

fn every_directory_leads_up_to_the_root(replica: &Replica) {
    let inodes = inodes(replica);
    for (ino, _) in inodes.iter().filter(|(_, inode)| inode.is_dir() && inode.nlink > 0) {
        let (mut at, mut steps) = (*ino, 0);
        while at != Ino::ROOT {
            (at, steps) = (inodes[&at].parent, steps + 1);
            assert!(steps <= inodes.len(), "directory {ino} lies in a ring");
        }
    }
}

fn writes_touch_only_their_inode(op: &Op, effects: &[Effect]) {
    if let Op::Write { ino, .. } = op {
        let put = key::inode(*ino);
        assert!(effects.len() <= 2, "{effects:?}");
        assert!(effects.iter().all(|effect| match effect {
            Effect::Put { key, .. } => *key == put,
            Effect::Write { ino: written, .. } => written == ino,
            _ => false,
        }));
    }
}

/// Applies what is planned; an operation that changes nothing has no effects, and one that has effects changes something.
fn step(number: usize, op: &Op, replica: &mut Replica, seen: &mut BTreeSet<Ino>) {
    let planned = plan(replica, at(number), op);
    assert_eq!(planned, plan(replica, at(number), op), "planning twice gives the same");
    let Planned::Do { effects, reply, .. } = planned else {
        return;
    };
    writes_touch_only_their_inode(op, &effects);
    let mut keys = BTreeSet::new();
    for effect in &effects {
        if let Effect::Put { key, .. } | Effect::Delete { key } = effect {
            assert!(keys.insert(key), "{key:?} is changed twice in one entry");
        }
    }
    let before = replica.clone();
    replica.apply(&effects);
    assert_eq!(
        effects.is_empty(),
        *replica == before,
        "{op:?} has effects that change nothing: {effects:?}"
    );
    if let (Op::Create { .. }, Reply::Inode(ino, _)) = (op, reply) {
        assert!(seen.insert(ino), "inode number {ino} is used again");
    }
}

proptest! {
    #![proptest_config(model::config(300, "tests/regressions/plan_invariants.txt"))]

    #[test]
    fn all_hold_after_every_operation(all in ops::ops(120)) {
        let (mut model, mut replica) = (Model::new(at(0)), Replica::formatted(at(0)));
        let mut seen = BTreeSet::from([Ino::ROOT]);
        for (number, op) in (1..).zip(&all) {
            let op = ops::aim(op, &model);
            let _ = model.apply(at(number), &op);
            step(number, &op, &mut replica, &mut seen);
            every_entry_has_its_child_record_and_its_inode(&replica);
            links_and_entries_are_counted_right(&replica);
            cookies_lie_below_the_next_one(&replica);
            nothing_belongs_to_an_inode_that_is_gone(&replica);
            directories_with_a_class_of_their_own_are_listed_and_no_others(&replica);
            every_directory_leads_up_to_the_root(&replica);
        }
    }
}
