//! Values and keys of the metadata, and entries of the log.

use crate::class::Class;
use crate::data::sums::Group;
use crate::digest;
use crate::effects::{CheckPart, Effect, Entry, is_check};
use crate::key;
use crate::meta::Change;
use crate::plan::acl::Acl;
use crate::record::{Child, ClassRoot, Dirent, Inode, Xattrs};
use crate::types::{Ino, LogIndex, Term, Time};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The first byte says as what the others are read.
pub fn records(data: &[u8]) {
    let Some((kind, value)) = data.split_first() else {
        return;
    };
    let value = &Bytes::copy_from_slice(value);
    match kind {
        b'i' => {
            if let Ok(read) = Inode::decode(value) {
                assert_eq!(Inode::decode(&read.encode()), Ok(read));
            }
        }
        b'd' => {
            if let Ok(read) = Dirent::decode(value) {
                assert_eq!(read.encode(), value);
            }
        }
        b'c' => {
            if let Ok(read) = Child::decode(value) {
                assert_eq!(read.encode(), value);
            }
        }
        b'p' => {
            if let Ok(read) = ClassRoot::decode(value) {
                assert_eq!(ClassRoot::decode(&read.encode()), Ok(read));
            }
        }
        b'x' => {
            if let Ok(read) = Xattrs::decode(value) {
                assert_eq!(Xattrs::decode(&read.encode()), Ok(read));
            }
        }
        b'a' => {
            if let Ok(read) = Acl::decode(value) {
                assert_eq!(read.encode(), value);
            }
        }
        b'b' => {
            let read = Group::decode(value);
            let again = read.encode().map_or_else(Group::empty, |value| Group::decode(&value));
            assert_eq!(again.0, read.0);
        }
        b'z' => {
            if let Some((digest, applied)) = digest::decode(value) {
                let Change::Put(_, again) = digest.change(applied) else {
                    panic!("a digest is always put");
                };
                assert_eq!(again, value);
            }
        }
        _ => keys(value),
    }
}

fn keys(key: &[u8]) {
    let (Some(owner), tail) = (key::owner(key), key::tail_number(key)) else {
        return;
    };
    if let (Some(tail), 17, b'c') = (tail, key.len(), key[0]) {
        assert_eq!(key::child(owner, tail), key);
    }
    if let (9, b'i') = (key.len(), key[0]) {
        assert_eq!(key::inode(owner), key);
    }
}

pub fn entry(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let Ok(read) = Entry::decode(LogIndex(1), &data) else {
        return;
    };
    assert_eq!(read.encode(), data);
    assert_eq!(
        is_check(&data),
        matches!(read.effects.first(), Some(Effect::Check { .. }))
    );
}

pub(super) fn inode() -> Inode {
    let time = Time {
        secs: 1_700_000_000,
        nanos: 999_999_999,
    };
    Inode {
        mode: libc::S_IFREG | 0o640,
        uid: 1000,
        gid: 100,
        nlink: 1,
        size: 5000,
        rdev: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        parent: Ino::ROOT,
        entries: 0,
        next_cookie: 3,
        class: Class::Default,
        own_class: false,
        seal: None,
        target: Bytes::new(),
    }
}

/// One of each kind.
pub(super) fn effects() -> Vec<Effect> {
    let ino = Ino(2);
    vec![
        Effect::Put {
            key: key::inode(ino),
            value: inode().encode(),
        },
        Effect::Delete {
            key: key::dirent(Ino::ROOT, b"old"),
        },
        Effect::Write {
            ino,
            offset: 4090,
            data: Bytes::from_static(b"over a block's end"),
        },
        Effect::Truncate { ino, size: 4100 },
        Effect::Zero {
            ino,
            offset: 10,
            len: 9000,
        },
        Effect::Purge { ino },
    ]
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |kind: u8, value: &[u8]| ("records", [&[kind], value].concat());
    let link = Inode {
        mode: libc::S_IFLNK | 0o777,
        target: Bytes::from_static(b"../target"),
        ..inode()
    };
    let sealed = Inode {
        seal: Some([3; 32]),
        own_class: true,
        class: Class::Recordings,
        ..inode()
    };
    let entry = Dirent {
        ino: Ino(2),
        cookie: 3,
        kind: libc::S_IFREG,
    };
    let child = Child {
        ino: Ino(2),
        kind: libc::S_IFREG,
        name: Bytes::from_static(b"name"),
    };
    let class = ClassRoot {
        class: Class::Logs,
        by_hand: true,
        since: Time { secs: -1, nanos: 5 },
    };
    let xattrs = Xattrs(BTreeMap::from([
        (Bytes::from_static(b"user.a"), Bytes::from_static(b"1")),
        (Bytes::from_static(b"user.b"), Bytes::new()),
    ]));
    // Owner, a user, the owning group, the mask, others.
    let acl = [(1, 6), (2, 7), (4, 4), (16, 7), (32, 0)].map(|(tag, permissions)| [tag, 0, permissions, 0, 1, 0, 0, 0]);
    let check = |part| Entry {
        term: Term(3),
        effects: vec![Effect::Check { id: 5, part }],
    };
    let metadata = check(CheckPart::Meta {
        from: Bytes::from_static(b"c"),
        limit: 64,
    });
    let data = check(CheckPart::Data {
        ino: Ino(2),
        offset: 0,
        len: 1 << 20,
    });
    let all = Entry {
        term: Term(3),
        effects: effects(),
    };
    vec![
        of(b'i', &inode().encode()),
        of(b'i', &link.encode()),
        of(b'i', &sealed.encode()),
        of(b'd', &entry.encode()),
        of(b'c', &child.encode()),
        of(b'p', &class.encode()),
        of(b'x', &xattrs.encode()),
        of(b'a', &[&[2, 0, 0, 0], acl.as_flattened()].concat()),
        of(b'b', &[[1; 16], [0; 16], [0xff; 16]].concat()),
        of(b'z', &[7; 24]),
        of(b'k', &key::child(Ino(7), 9)),
        of(b'k', &key::inode(Ino(7))),
        ("entry", all.encode().to_vec()),
        ("entry", metadata.encode().to_vec()),
        ("entry", data.encode().to_vec()),
    ]
}
