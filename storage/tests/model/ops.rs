//! Random operations over few names, aimed at what there is, so that most of them meet something.

use super::fs::Model;
use bytes::Bytes;
use holdfast_storage::class::Class;
use holdfast_storage::op::{Caller, Fallocate, Op, Rename, SetAttr, SetTime, SetXattr};
use holdfast_storage::types::{Ino, MAX_FILE, Time};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

/// Numbers that `aim` turns into inodes; the last ones stay as they are and mostly meet nothing.
fn ino() -> impl Strategy<Value = Ino> {
    (0u64..256).prop_map(Ino)
}

pub fn name() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        40 => (b'a'..=b'd').prop_map(|letter| Bytes::from(vec![letter])),
        1 => prop::sample::select(vec!["", ".", "..", "x/y", "z\0"]).prop_map(Bytes::from),
        1 => (255usize..=256).prop_map(|len| Bytes::from(vec![b'n'; len])),
    ]
}

fn caller() -> impl Strategy<Value = Caller> {
    (0u32..3, 0u32..3).prop_map(|(uid, gid)| Caller { uid, gid, umask: 0 })
}

fn permissions() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0o644),
        Just(0o755),
        Just(0o2775),
        Just(0o4755),
        Just(0o6744),
        0u32..=0o7777
    ]
}

fn create() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        8 => Just(libc::S_IFREG),
        8 => Just(libc::S_IFDIR),
        2 => Just(libc::S_IFLNK),
        1 => prop::sample::select(vec![libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR, libc::S_IFBLK, 0]),
    ];
    let target = prop_oneof![10 => 1usize..40, 1 => Just(0), 1 => 4095usize..=4096];
    (
        ino(),
        name(),
        kind,
        permissions(),
        target,
        weighted(0.2, class()),
        caller(),
    )
        .prop_map(|(parent, name, kind, mode, target, class, caller)| {
            let len = if kind == libc::S_IFLNK { target } else { 0 };
            Op::Create {
                parent,
                name,
                mode: kind | mode,
                rdev: 0x0801,
                target: Bytes::from(vec![b't'; len]),
                class,
                caller,
            }
        })
}

fn rename() -> impl Strategy<Value = Op> {
    let how = prop_oneof![4 => Just(Rename::Replace), 1 => Just(Rename::NoReplace), 2 => Just(Rename::Exchange)];
    (ino(), name(), ino(), name(), how, caller(), prop::bool::weighted(0.3)).prop_map(
        |(from, from_name, to, to_name, how, caller, same)| {
            let to = if same { from } else { to };
            Op::Rename {
                from,
                from_name,
                to,
                to_name,
                how,
                caller,
            }
        },
    )
}

fn set_attr() -> impl Strategy<Value = Op> {
    let time = || {
        prop_oneof![
            Just(SetTime::Now),
            (-9i64..9).prop_map(|secs| SetTime::To(Time { secs, nanos: 7 }))
        ]
    };
    let size = prop_oneof![8 => 0u64..9000, 1 => Just(1 << 40), 1 => MAX_FILE - 1..=MAX_FILE + 1];
    let owner = || weighted(0.2, 0u32..3);
    let fields = (
        weighted(0.3, permissions()),
        owner(),
        owner(),
        weighted(0.4, size),
        weighted(0.2, time()),
        weighted(0.2, time()),
    );
    (ino(), fields, any::<bool>()).prop_map(|(ino, (mode, uid, gid, size, atime, mtime), clear_setid)| Op::SetAttr {
        ino,
        set: SetAttr {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
            clear_setid,
        },
    })
}

fn write() -> impl Strategy<Value = Op> {
    let offset = prop_oneof![20 => 0u64..9000, 1 => MAX_FILE - 100..=MAX_FILE, 1 => Just(u64::MAX)];
    let data = prop_oneof![1 => Just(Vec::new()), 20 => (1usize..3000, 1u8..).prop_map(|(len, byte)| vec![byte; len])];
    (ino(), offset, data, any::<bool>()).prop_map(|(ino, offset, data, clear_setid)| Op::Write {
        ino,
        offset,
        data: data.into(),
        clear_setid,
    })
}

fn fallocate() -> impl Strategy<Value = Op> {
    let how = prop::sample::select(vec![
        Fallocate::Allocate,
        Fallocate::KeepSize,
        Fallocate::Punch,
        Fallocate::Zero { keep_size: true },
        Fallocate::Zero { keep_size: false },
    ]);
    let offset = prop_oneof![20 => 0u64..9000, 1 => Just(MAX_FILE)];
    (ino(), offset, 0u64..9000, how).prop_map(|(ino, offset, len, how)| Op::Fallocate { ino, offset, len, how })
}

fn attribute() -> impl Strategy<Value = Op> {
    let name = || {
        prop_oneof![
            20 => prop::sample::select(vec!["user.a", "user.b", "security.c"]).prop_map(Bytes::from),
            1 => Just(Bytes::new()),
            1 => Just(Bytes::from(vec![b'n'; 256])),
        ]
    };
    let len = prop_oneof![10 => 0usize..4, 1 => 30_000usize..40_000, 1 => 65_530usize..65_540];
    let how = prop::sample::select(vec![SetXattr::Any, SetXattr::Create, SetXattr::Replace]);
    prop_oneof![
        2 => (ino(), name(), len, how).prop_map(|(ino, name, len, how)| {
            let caller = Caller { uid: 0, gid: 0, umask: 0 };
            Op::SetXattr { ino, name, value: Bytes::from(vec![b'v'; len]), how, caller }
        }),
        1 => (ino(), name()).prop_map(|(ino, name)| Op::RemoveXattr { ino, name }),
    ]
}

fn class() -> impl Strategy<Value = Class> {
    // Sealed ones often, or nothing would ever be sealed.
    prop_oneof![1 => prop::sample::select(Class::ALL.to_vec()), 1 => Just(Class::Recordings)]
}

fn class_or_seal() -> impl Strategy<Value = Op> {
    let time = Time {
        secs: 1_000_003,
        nanos: 5,
    };
    prop_oneof![
        1 => (ino(), weighted(0.7, class())).prop_map(|(ino, class)| Op::SetClass { ino, class }),
        1 => (ino(), 0u64..2, any::<[u8; 32]>())
            .prop_map(move |(ino, size, hash)| Op::Seal { ino, size, ctime: time, hash }),
    ]
}

pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => create(),
        2 => (ino(), ino(), name()).prop_map(|(ino, parent, name)| Op::Link { ino, parent, name }),
        2 => (ino(), name(), caller()).prop_map(|(parent, name, caller)| Op::Unlink { parent, name, caller }),
        2 => (ino(), name(), caller()).prop_map(|(parent, name, caller)| Op::Rmdir { parent, name, caller }),
        6 => rename(),
        2 => set_attr(),
        3 => write(),
        2 => fallocate(),
        2 => attribute(),
        3 => class_or_seal(),
        1 => ino().prop_map(|ino| Op::Reap { ino }),
    ]
}

pub fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..most)
}

/// Turns an operation's numbers into inodes that exist in the model, directories where one is wanted, mostly.
pub fn aim(op: &Op, model: &Model) -> Op {
    let (all, directories, orphans) = (model.inodes(), model.directories(), model.orphans());
    let pick = |from: &[u64], number: u64| Ino(from[usize::try_from(number).expect("small") % from.len()]);
    let any = |ino: Ino| if ino.0 < 250 { pick(&all, ino.0) } else { ino };
    let directory = |ino: Ino| {
        if ino.0 < 240 {
            pick(&directories, ino.0)
        } else {
            any(ino)
        }
    };
    let mut op = op.clone();
    match &mut op {
        Op::Create { parent, .. } | Op::Unlink { parent, .. } | Op::Rmdir { parent, .. } => {
            *parent = directory(*parent);
        }
        Op::Link { ino, parent, .. } => (*ino, *parent) = (any(*ino), directory(*parent)),
        Op::Rename { from, to, .. } => (*from, *to) = (directory(*from), directory(*to)),
        // Whose directory a file without its first name has its class from, the model doesn't know.
        Op::SetClass { ino, class: None } => *ino = directory(*ino),
        // Mostly the file as it is.
        Op::Seal { ino, size, ctime, hash } => {
            *ino = any(*ino);
            if hash[0] < 200 && all.contains(&ino.0) {
                (*size, *ctime) = model.state(ino.0);
            }
        }
        Op::Reap { ino } if ino.0 < 200 && !orphans.is_empty() => *ino = pick(&orphans, ino.0),
        Op::Reap { ino }
        | Op::SetAttr { ino, .. }
        | Op::Write { ino, .. }
        | Op::Fallocate { ino, .. }
        | Op::SetClass { ino, .. }
        | Op::SetXattr { ino, .. }
        | Op::RemoveXattr { ino, .. } => *ino = any(*ino),
    }
    op
}
