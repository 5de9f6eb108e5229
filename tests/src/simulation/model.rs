//! The file system in memory, from what clients asked for and not from what the planner made of it: directories of one
//! level, their files, their bytes.

use bytes::Bytes;
use holdfast_storage::class::{Class, Wait};
use holdfast_storage::types::Ino;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One sequenced operation of a client. Numbers of new inodes are the planner's choice.
#[derive(Clone, Debug)]
pub enum Change {
    Create {
        dir: Ino,
        name: Bytes,
        ino: Ino,
        class: Option<Class>,
        directory: bool,
    },
    Write {
        ino: Ino,
        offset: u64,
        data: Bytes,
    },
    SetSize {
        ino: Ino,
        size: u64,
    },
    Punch {
        ino: Ino,
        offset: u64,
        len: u64,
    },
    Rename {
        from: (Ino, Bytes),
        to: (Ino, Bytes),
    },
    Unlink {
        dir: Ino,
        name: Bytes,
    },
    Reap {
        ino: Ino,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    pub names: BTreeMap<(Ino, Bytes), Ino>,
    /// Contents of all files, those without a name too.
    pub files: BTreeMap<Ino, Arc<Vec<u8>>>,
    pub directories: BTreeMap<Ino, Class>,
    classes: BTreeMap<Ino, Class>,
    pub orphans: Vec<Ino>,
}

impl Files {
    pub fn new() -> Self {
        let mut files = Self::default();
        files.directories.insert(Ino::ROOT, Class::Default);
        files
    }

    /// What a change of these inodes waits for at least; what isn't sure is called less.
    pub fn wait_for(&self, inos: &[Ino]) -> Wait {
        let of = |ino: &Ino| {
            let class = self.classes.get(ino).or_else(|| self.directories.get(ino));
            class.map_or(Wait::Sequenced, |class| class.profile().write)
        };
        inos.iter().map(of).min().unwrap_or(Wait::Sequenced)
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create {
                dir,
                name,
                ino,
                class,
                directory,
            } => {
                let class = class.unwrap_or(self.directories.get(dir).copied().unwrap_or_default());
                self.names.insert((*dir, name.clone()), *ino);
                if *directory {
                    self.directories.insert(*ino, class);
                } else {
                    self.files.insert(*ino, Arc::default());
                    self.classes.insert(*ino, class);
                }
            }
            Change::Write { ino, offset, data } => self.bytes(*ino, |bytes| {
                let (at, end) = (*offset as usize, *offset as usize + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(data);
            }),
            Change::SetSize { ino, size } => self.bytes(*ino, |bytes| bytes.resize(*size as usize, 0)),
            Change::Punch { ino, offset, len } => self.bytes(*ino, |bytes| {
                let (size, at) = (bytes.len(), *offset as usize);
                bytes[at.min(size)..(at + *len as usize).min(size)].fill(0);
            }),
            Change::Rename { from, to } => {
                if let Some(ino) = self.names.remove(from)
                    && let Some(replaced) = self.names.insert(to.clone(), ino)
                    && replaced != ino
                {
                    self.orphans.push(replaced);
                }
            }
            Change::Unlink { dir, name } => {
                let ino = self.names.remove(&(*dir, name.clone()));
                self.orphans.extend(ino);
            }
            Change::Reap { ino } => {
                self.orphans.retain(|orphan| orphan != ino);
                self.files.remove(ino);
                self.classes.remove(ino);
            }
        }
    }

    fn bytes(&mut self, ino: Ino, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.files.get_mut(&ino) {
            change(Arc::make_mut(bytes));
        }
    }
}
