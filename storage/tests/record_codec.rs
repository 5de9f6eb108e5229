//! Records of the metadata: what is written is read back, garbage is refused, and the bytes of today stay readable.

use bytes::Bytes;
use holdfast_storage::class::Class;
use holdfast_storage::key;
use holdfast_storage::record::{Child, ClassRoot, Dirent, Inode, Xattrs};
use holdfast_storage::types::{Ino, Time};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), any::<u32>()).prop_map(|(secs, nanos)| Time { secs, nanos })
}

fn inode() -> impl Strategy<Value = Inode> {
    (
        any::<[u32; 5]>(),
        any::<[u64; 4]>(),
        [time(), time(), time(), time()],
        bytes(100),
        (select(Class::ALL.to_vec()), any::<bool>(), any::<Option<[u8; 32]>>()),
    )
        .prop_map(
            |(
                [mode, uid, gid, nlink, rdev],
                [size, parent, entries, next_cookie],
                [atime, mtime, ctime, btime],
                target,
                (class, own_class, seal),
            )| {
                let parent = Ino(parent);
                Inode {
                    mode,
                    uid,
                    gid,
                    nlink,
                    size,
                    rdev,
                    atime,
                    mtime,
                    ctime,
                    btime,
                    parent,
                    entries,
                    next_cookie,
                    class,
                    own_class,
                    seal,
                    target,
                }
            },
        )
}

fn dirent() -> impl Strategy<Value = Dirent> {
    (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(ino, cookie, kind)| Dirent {
        ino: Ino(ino),
        cookie,
        kind,
    })
}

fn child() -> impl Strategy<Value = Child> {
    (any::<u64>(), any::<u32>(), bytes(255)).prop_map(|(ino, kind, name)| Child {
        ino: Ino(ino),
        kind,
        name,
    })
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    btree_map(bytes(255), bytes(300), 0..6).prop_map(Xattrs)
}

proptest! {
    #[test]
    fn records_are_read_back_as_they_were(inode in inode(), dirent in dirent(), child in child(), xattrs in xattrs()) {
        prop_assert_eq!(Inode::decode(&inode.encode()), Ok(inode));
        prop_assert_eq!(Dirent::decode(&dirent.encode()), Ok(dirent));
        prop_assert_eq!(Child::decode(&child.encode()), Ok(child));
        prop_assert_eq!(Xattrs::decode(&xattrs.encode()), Ok(xattrs));
    }

    #[test]
    fn a_record_that_is_cut_in_its_fixed_part_is_refused(inode in inode(), dirent in dirent(), child in child(), cut in 0usize..13) {
        prop_assert!(Inode::decode(&inode.encode().slice(..cut * 7)).is_err());
        prop_assert!(Dirent::decode(&dirent.encode().slice(..cut)).is_err());
        prop_assert!(Child::decode(&child.encode().slice(..cut)).is_err());
    }

    #[test]
    fn cut_attributes_are_refused_or_end_between_two(xattrs in xattrs(), at in any::<prop::sample::Index>()) {
        let whole = xattrs.encode();
        let cut = whole.slice(..at.index(whole.len()));
        if let Ok(fewer) = Xattrs::decode(&cut) {
            prop_assert_eq!(fewer.encode(), cut);
        }
    }

    #[test]
    fn garbage_never_panics(garbage in vec(any::<u8>(), 0..200), version in prop::bool::weighted(0.9)) {
        let garbage = Bytes::from(if version { [&[1], garbage.as_slice()].concat() } else { garbage });
        // What was of version 1 becomes one of version 2.
        let _ = Inode::decode(&garbage).map(|inode| assert_eq!(Inode::decode(&inode.encode()), Ok(inode)));
        let _ = Dirent::decode(&garbage).map(|dirent| assert_eq!(dirent.encode(), garbage));
        let _ = Child::decode(&garbage).map(|child| assert_eq!(child.encode(), garbage));
        let _ = Xattrs::decode(&garbage);
        let _ = (key::owner(&garbage), key::tail_number(&garbage));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// These bytes lie on disks: a change of them is a new version of the record.
#[test]
fn each_record_has_the_bytes_of_its_version() {
    let time = |secs| Time { secs, nanos: 9 };
    let inode = Inode {
        mode: libc::S_IFLNK | 0o777,
        uid: 1,
        gid: 2,
        nlink: 3,
        size: 4,
        rdev: 5,
        atime: time(10),
        mtime: time(11),
        ctime: time(12),
        btime: time(-1),
        parent: Ino(6),
        entries: 7,
        next_cookie: 8,
        class: Class::Logs,
        own_class: true,
        seal: Some([0xab; 32]),
        target: Bytes::from_static(b"goal"),
    };
    let fields = concat!(
        "02",
        "ffa10000",
        "01000000",
        "02000000",
        "03000000",
        "05000000",
        "0400000000000000",
        "0600000000000000",
        "0700000000000000",
        "0800000000000000",
        "0a0000000000000009000000",
        "0b0000000000000009000000",
        "0c0000000000000009000000",
        "ffffffffffffffff09000000",
        "03",
        "03",
    );
    assert_eq!(hex(&inode.encode()), format!("{fields}{}676f616c", "ab".repeat(32)));
    let root = ClassRoot {
        class: Class::Prompts,
        by_hand: true,
        since: time(7),
    };
    assert_eq!(hex(&root.encode()), "010401070000000000000009000000");
    let dirent = Dirent {
        ino: Ino(0x0102),
        cookie: 3,
        kind: libc::S_IFDIR,
    };
    assert_eq!(hex(&dirent.encode()), "010201000000000000030000000000000000400000");
    let child = Child {
        ino: Ino(0x0102),
        kind: libc::S_IFREG,
        name: Bytes::from_static(b"name"),
    };
    assert_eq!(
        hex(&child.encode()),
        "01020100000000000000800000\
                                      6e616d65"
    );
    let xattrs = Xattrs(
        [("b", "2"), ("a", "")]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
    );
    assert_eq!(hex(&xattrs.encode()), "01010000000000610100010000006232");
}

/// The order of keys is the order of scans.
#[test]
fn each_key_has_the_bytes_that_it_had_on_the_first_day() {
    let ino = Ino(0x0102);
    assert_eq!(hex(&key::inode(ino)), "690000000000000102");
    assert_eq!(hex(&key::dirent(ino, b"n")), "6400000000000001026e");
    assert_eq!(hex(&key::child(ino, 3)), "6300000000000001020000000000000003");
    assert_eq!(hex(&key::xattrs(ino)), "780000000000000102");
    assert_eq!(hex(&key::orphan(ino)), "6f0000000000000102");
    assert_eq!(hex(&key::sums(ino, 3)), "6200000000000001020000000000000003");
    assert_eq!(hex(&key::own(key::NEXT_INO)), "6d6e6578742d696e6f");
}
