//! Effects applied to maps: what a replica's disk comes to hold.

use super::sparse::Sparse;
use super::{Facts, Tree};
use bytes::Bytes;
use holdfast_storage::effects::Effect;
use holdfast_storage::key::{self, Key};
use holdfast_storage::plan;
use holdfast_storage::record::{Child, Inode, Xattrs};
use holdfast_storage::types::{Ino, Time};
use holdfast_storage::view::{Seen, View};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    pub meta: BTreeMap<Key, Bytes>,
    pub data: BTreeMap<u64, Sparse>,
}

impl View for Replica {
    fn get(&self, key: &Key) -> Seen {
        self.meta
            .get(key)
            .map_or(Seen::Absent, |value| Seen::Value(value.clone()))
    }
}

impl Replica {
    pub fn formatted(now: Time) -> Self {
        let mut replica = Self::default();
        replica.apply(&plan::root(now));
        replica
    }

    pub fn apply(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Put { key, value } => {
                    self.meta.insert(key.clone(), value.clone());
                }
                Effect::Delete { key } => {
                    assert!(self.meta.remove(key).is_some(), "deletes {key:?}, which isn't there");
                }
                Effect::Write { ino, offset, data } => self.data.entry(ino.0).or_default().write(*offset, data),
                Effect::Truncate { ino, size } => self.data.entry(ino.0).or_default().truncate(*size),
                Effect::Zero { ino, offset, len } => self.data.entry(ino.0).or_default().zero(*offset, *len),
                Effect::Purge { ino } => {
                    self.data.remove(&ino.0);
                }
                Effect::Check { .. } => {}
            }
        }
    }

    pub fn inode(&self, ino: Ino) -> Option<Inode> {
        self.meta
            .get(&key::inode(ino))
            .map(|value| Inode::decode(value).expect("a sound inode"))
    }

    /// Entries of a directory from a cookie on, as `readdir` has them.
    pub fn list(&self, directory: Ino, from: u64) -> Vec<(u64, Child)> {
        let prefix = key::children(directory);
        self.meta
            .range(key::child(directory, from)..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(key, value)| {
                (
                    key::tail_number(key).expect("a cookie"),
                    Child::decode(value).expect("a sound child"),
                )
            })
            .collect()
    }

    pub fn orphans(&self) -> Vec<Ino> {
        let all = self.meta.keys().filter(|key| key.starts_with(key::ORPHANS));
        all.map(|key| key::owner(key).expect("an inode's")).collect()
    }

    pub fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        self.walk(Ino::ROOT, Vec::new(), &mut tree);
        tree.orphans = self.orphans().into_iter().map(|ino| (ino.0, self.facts(ino))).collect();
        tree
    }

    fn walk(&self, ino: Ino, path: Vec<u8>, tree: &mut Tree) {
        let facts = self.facts(ino);
        if facts.mode & libc::S_IFMT == libc::S_IFDIR {
            for (_, child) in self.list(ino, 0) {
                self.walk(child.ino, [&path, b"/".as_slice(), &child.name].concat(), tree);
            }
        }
        tree.paths.insert(path, facts);
    }

    fn facts(&self, ino: Ino) -> Facts {
        let inode = self.inode(ino).unwrap_or_else(|| panic!("inode {ino} isn't there"));
        let xattrs = self
            .meta
            .get(&key::xattrs(ino))
            .map(|value| Xattrs::decode(value).expect("sound attributes"));
        Facts {
            ino: ino.0,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            nlink: inode.nlink,
            size: inode.size,
            rdev: inode.rdev,
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            btime: inode.btime,
            content: self.data.get(&ino.0).map(Sparse::blocks).unwrap_or_default(),
            target: inode.target.to_vec(),
            xattrs: xattrs
                .unwrap_or_default()
                .0
                .iter()
                .map(|(k, v)| (k.to_vec(), v.to_vec()))
                .collect(),
            class: inode.class,
            own_class: inode.own_class,
            seal: inode.seal,
        }
    }
}

/// A view that shows a key only after it was asked for.
pub struct Shy<'a> {
    pub replica: &'a Replica,
    pub shown: BTreeSet<Key>,
}

impl View for Shy<'_> {
    fn get(&self, key: &Key) -> Seen {
        if self.shown.contains(key) {
            self.replica.get(key)
        } else {
            Seen::NotInMemory
        }
    }
}
