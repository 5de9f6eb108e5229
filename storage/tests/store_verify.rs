//! Between two entries of the log the metadata fit together, whatever was done; and what doesn't fit is found.

mod model;
mod node;

use bytes::Bytes;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::key;
use holdfast_storage::meta::{Change, Meta};
use holdfast_storage::record::{Dirent, Inode};
use holdfast_storage::types::Ino;
use holdfast_storage::verify::{self, Report};
use model::ops;
use node::script::{Life, Step};
use proptest::prelude::*;

#[derive(Default)]
struct Found {
    wrong: Vec<String>,
    keys: u64,
}

impl Report for Found {
    fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }
    fn keys(&mut self, count: u64) {
        self.keys += count;
    }
}

fn look(meta: &impl Meta) -> Found {
    let mut found = Found::default();
    verify::metadata(meta, &mut found).expect("reads");
    found
}

fn lived(steps: &[Step]) -> Life<SimDisk> {
    let mut life = Life::begin(SimDisk::new());
    life.run(steps).expect("nothing fails here");
    life.node.append().expect("appends");
    life.node.apply(usize::MAX).expect("applies");
    life
}

fn pairs(meta: &impl Meta) -> Vec<(Bytes, Bytes)> {
    let mut pairs = Vec::new();
    let mut take = |key: &[u8], value: &[u8]| {
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        true
    };
    meta.scan(b"", b"", &mut take).expect("scans");
    pairs.retain(|(key, _)| !matches!(key.first(), Some(b'm' | b'z' | b'b')));
    pairs
}

proptest! {
    #![proptest_config(model::config(120, "tests/regressions/store_verify.txt"))]

    #[test]
    fn all_fits_whatever_was_done(ops in prop::collection::vec(ops::op(), 1..150)) {
        let steps: Vec<Step> = ops.into_iter().map(Step::Op).collect();
        let life = lived(&steps);
        let found = look(&life.node.meta);
        prop_assert!(found.wrong.is_empty(), "{:?}", found.wrong);
        prop_assert!(found.keys > 0);
    }

    /// No key but those of attributes can go without being missed; a value of no layout is found; a count that is wrong, too.
    #[test]
    fn what_is_missing_or_damaged_is_found(
        ops in prop::collection::vec(ops::op(), 60..150),
        at: prop::sample::Index,
        how in 0..3,
    ) {
        let steps: Vec<Step> = ops.into_iter().map(Step::Op).collect();
        let life = lived(&steps);
        let meta = &life.node.meta;
        let pairs = pairs(meta);
        let (key, value) = pairs[at.index(pairs.len())].clone();
        let optional = matches!(key.first(), Some(b'x' | b'p'));
        let damage = match how {
            0 if optional => return Ok(()),
            0 => Change::Delete(key.clone()),
            1 if key.first() == Some(&b'o') => return Ok(()),
            1 => Change::Put(key.clone(), [&[77][..], &value[value.len().min(1)..]].concat().into()),
            _ => match key.first() {
                Some(b'i') => {
                    let mut inode = Inode::decode(&value).expect("reads");
                    inode.nlink += 1;
                    Change::Put(key.clone(), inode.encode())
                }
                Some(b'd') => {
                    let mut entry = Dirent::decode(&value).expect("reads");
                    entry.ino = Ino(entry.ino.0 + 100_000);
                    Change::Put(key.clone(), entry.encode())
                }
                _ => return Ok(()),
            },
        };
        meta.write(vec![damage]).expect("writes");
        prop_assert!(!look(meta).wrong.is_empty(), "{key:?}");
        meta.write(vec![Change::Put(key, value)]).expect("writes");
        prop_assert!(look(meta).wrong.is_empty());
    }
}

#[test]
fn a_name_of_nothing_is_said_in_words() {
    let life = lived(&[]);
    let entry = Dirent {
        ino: Ino(99),
        cookie: 3,
        kind: libc::S_IFREG,
    };
    let name = key::dirent(Ino::ROOT, b"ghost");
    life.node
        .meta
        .write(vec![Change::Put(name, entry.encode())])
        .expect("writes");
    let found = look(&life.node.meta).wrong.join("\n");
    assert!(
        found.contains("the name b\"ghost\" in directory 1 leads to inode 99, which isn't there"),
        "{found}"
    );
    assert!(
        found.contains("directory 1 has 1 names, 0 in the order of listing, and counts 0"),
        "{found}"
    );
}
