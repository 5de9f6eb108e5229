//! What a client does next, and what an operation touches.

use super::model::{Change, Files};
use super::random::Random;
use bytes::Bytes;
use holdfast_replicator::api::Scope;
use holdfast_storage::class::Class;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::op::{Caller, Fallocate, Op, Rename, SetAttr};
use holdfast_storage::record::Dirent;
use holdfast_storage::types::Ino;

const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    umask: 0,
};
const NAMES: u64 = 7;
const FILE_MAX: u64 = 40_000;

pub enum Chosen {
    Change(Op, Change),
    Sync(Scope),
    Read(Option<Ino>),
    Check,
}

/// The inode that an entry makes.
pub fn created(entry: &Entry) -> Option<Ino> {
    entry.effects.iter().find_map(|effect| match effect {
        Effect::Put { key, value } if key.first() == Some(&b'd') => Some(Dirent::decode(value).ok()?.ino),
        _ => None,
    })
}

pub fn touched(change: &Change, files: &Files) -> Vec<Ino> {
    match change {
        Change::Create { dir, ino, .. } => vec![*dir, *ino],
        Change::Write { ino, .. } | Change::SetSize { ino, .. } | Change::Punch { ino, .. } | Change::Reap { ino } => {
            vec![*ino]
        }
        Change::Rename { from, to } => {
            let inos = [files.names.get(from), files.names.get(to)];
            [from.0, to.0]
                .into_iter()
                .chain(inos.into_iter().flatten().copied())
                .collect()
        }
        Change::Unlink { dir, name } => {
            let ino = files.names.get(&(*dir, name.clone()));
            std::iter::once(*dir).chain(ino.copied()).collect()
        }
    }
}

/// What a client does next, of what makes sense with the files as they are.
pub fn choose(files: &Files, stamp: u64, random: &mut Random) -> Chosen {
    let make = |dir: Ino, name: Bytes, class: Option<Class>, directory: bool| {
        let mode = if directory {
            libc::S_IFDIR | 0o755
        } else {
            libc::S_IFREG | 0o644
        };
        let op = Op::Create {
            parent: dir,
            name: name.clone(),
            mode,
            rdev: 0,
            target: Bytes::new(),
            class,
            caller: CALLER,
        };
        Chosen::Change(
            op,
            Change::Create {
                dir,
                name,
                ino: Ino(0),
                class,
                directory,
            },
        )
    };
    let classes = [("db", Class::Database), ("rec", Class::Recordings)];
    for (name, class) in classes {
        let name = Bytes::from_static(name.as_bytes());
        if !files.names.contains_key(&(Ino::ROOT, name.clone())) && random.chance(300) {
            return make(Ino::ROOT, name, Some(class), true);
        }
    }
    let directories: Vec<Ino> = files.directories.keys().copied().collect();
    let named: Vec<(Ino, Bytes, Ino)> = files
        .names
        .iter()
        .filter(|(_, ino)| files.files.contains_key(ino))
        .map(|((dir, name), ino)| (*dir, name.clone(), *ino))
        .collect();
    let some_name = |random: &mut Random| {
        let letter = b'a' + random.between(0, NAMES) as u8;
        (random.one_of(&directories), Bytes::from(vec![letter]))
    };
    let number = random.between(0, 100);
    if named.is_empty() || number < 8 {
        let (dir, name) = some_name(random);
        return make(dir, name, None, false);
    }
    let (dir, name, ino) = named[random.between(0, named.len() as u64) as usize].clone();
    let size = files.files[&ino].len() as u64;
    match number {
        8..=54 => {
            let longest = random.one_of(&[100, 3000, 9000]);
            let len = random.between(1, longest) as usize;
            let offset = match random.between(0, 4) {
                0 => size,
                1 => random.between(0, size + 1) / 4096 * 4096,
                2 => random.between(0, size + 5000),
                _ => random.between(0, size + 1),
            };
            let offset = if offset > FILE_MAX {
                random.between(0, FILE_MAX)
            } else {
                offset
            };
            let data: Bytes = stamp
                .to_le_bytes()
                .into_iter()
                .cycle()
                .take(len)
                .collect::<Vec<u8>>()
                .into();
            let op = Op::Write {
                ino,
                offset,
                data: data.clone(),
                clear_setid: false,
            };
            Chosen::Change(op, Change::Write { ino, offset, data })
        }
        55..=59 => {
            let size = random.between(0, size + 3000).min(FILE_MAX);
            let set = SetAttr {
                size: Some(size),
                ..SetAttr::default()
            };
            Chosen::Change(Op::SetAttr { ino, set }, Change::SetSize { ino, size })
        }
        60..=62 if size > 0 => {
            let (offset, len) = (random.between(0, size), random.between(1, 9000));
            let op = Op::Fallocate {
                ino,
                offset,
                len,
                how: Fallocate::Punch,
            };
            Chosen::Change(op, Change::Punch { ino, offset, len })
        }
        63..=66 => {
            let to = some_name(random);
            if to == (dir, name.clone()) {
                return Chosen::Read(Some(ino));
            }
            let op = Op::Rename {
                from: dir,
                from_name: name.clone(),
                to: to.0,
                to_name: to.1.clone(),
                how: Rename::Replace,
                caller: CALLER,
            };
            Chosen::Change(op, Change::Rename { from: (dir, name), to })
        }
        67..=69 => {
            let op = Op::Unlink {
                parent: dir,
                name: name.clone(),
                caller: CALLER,
            };
            Chosen::Change(op, Change::Unlink { dir, name })
        }
        70..=79 => Chosen::Sync(Scope::File(ino)),
        80..=81 => Chosen::Sync(Scope::All),
        82 => Chosen::Check,
        83..=84 => Chosen::Read(None),
        _ => Chosen::Read(Some(ino)),
    }
}
