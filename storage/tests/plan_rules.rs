//! Single rules that random operations would state less clearly.

mod model;

use bytes::Bytes;
use holdfast_storage::effects::Effect;
use holdfast_storage::key;
use holdfast_storage::op::{Caller, Fallocate, Op, Refusal, Rename, Reply, SetAttr};
use holdfast_storage::plan::{MAX_LINKS, Planned, plan};
use holdfast_storage::record::{Dirent, Inode};
use holdfast_storage::types::{Ino, MAX_FILE, MAX_WRITE};
use model::at;
use model::replica::Replica;

const USER: Caller = Caller {
    uid: 1000,
    gid: 100,
    umask: 0,
};

/// A file system and its clock.
struct Fs {
    replica: Replica,
    step: usize,
}

impl Fs {
    fn new() -> Self {
        Self {
            replica: Replica::formatted(at(0)),
            step: 0,
        }
    }

    fn try_run(&mut self, op: &Op) -> Result<(Reply, Vec<Effect>), Refusal> {
        self.step += 1;
        match plan(&self.replica, at(self.step), op) {
            Planned::Do { effects, reply, .. } => {
                self.replica.apply(&effects);
                Ok((reply, effects))
            }
            Planned::Refused(refusal) => Err(refusal),
            Planned::Need(keys) => panic!("needs {keys:?}"),
        }
    }

    fn run(&mut self, op: &Op) -> (Reply, Vec<Effect>) {
        self.try_run(op)
            .unwrap_or_else(|refusal| panic!("{op:?} is refused: {refusal}"))
    }

    fn create(&mut self, parent: Ino, name: &'static str, mode: u32) -> Ino {
        let op = Op::Create {
            parent,
            name: name.into(),
            mode,
            rdev: 0,
            target: Bytes::new(),
            class: None,
            caller: USER,
        };
        match self.run(&op).0 {
            Reply::Inode(ino, _) => ino,
            other => panic!("create answers {other:?}"),
        }
    }

    fn file(&mut self, name: &'static str, permissions: u32) -> Ino {
        self.create(Ino::ROOT, name, libc::S_IFREG | permissions)
    }

    fn directory(&mut self, parent: Ino, name: &'static str) -> Ino {
        self.create(parent, name, libc::S_IFDIR | 0o755)
    }

    fn inode(&self, ino: Ino) -> Inode {
        self.replica.inode(ino).expect("it's there")
    }

    fn cookie(&self, parent: Ino, name: &str) -> u64 {
        let value = &self.replica.meta[&key::dirent(parent, name.as_bytes())];
        Dirent::decode(value).expect("a sound entry").cookie
    }

    fn rename(&mut self, from: (Ino, &'static str), to: (Ino, &'static str), how: Rename) -> Result<Reply, Refusal> {
        let (from_name, to_name) = (from.1.into(), to.1.into());
        let op = Op::Rename {
            from: from.0,
            from_name,
            to: to.0,
            to_name,
            how,
            caller: USER,
        };
        Ok(self.try_run(&op)?.0)
    }
}

fn set_size(ino: Ino, size: u64, clear_setid: bool) -> Op {
    Op::SetAttr {
        ino,
        set: SetAttr {
            size: Some(size),
            clear_setid,
            ..SetAttr::default()
        },
    }
}

fn write(ino: Ino, offset: u64, data: &'static [u8], clear_setid: bool) -> Op {
    Op::Write {
        ino,
        offset,
        data: Bytes::from_static(data),
        clear_setid,
    }
}

fn permissions(inode: &Inode) -> u32 {
    inode.mode & 0o7777
}

#[test]
fn a_set_group_id_directory_gives_its_group_and_to_directories_its_bit() {
    let mut fs = Fs::new();
    let shared = fs.create(Ino::ROOT, "shared", libc::S_IFDIR | 0o2775);
    fs.run(&Op::SetAttr {
        ino: shared,
        set: SetAttr {
            gid: Some(7),
            ..SetAttr::default()
        },
    });
    assert_eq!(
        permissions(&fs.inode(shared)),
        0o2775,
        "chown takes nothing from a directory"
    );
    let file = fs.create(shared, "file", libc::S_IFREG | 0o644);
    let below = fs.create(shared, "below", libc::S_IFDIR | 0o755);
    assert_eq!((fs.inode(file).gid, permissions(&fs.inode(file))), (7, 0o644));
    assert_eq!((fs.inode(below).gid, permissions(&fs.inode(below))), (7, 0o2755));
    let elsewhere = fs.file("elsewhere", 0o644);
    assert_eq!(fs.inode(elsewhere).gid, USER.gid);
}

#[test]
fn set_id_bits_go_with_a_write_a_truncation_a_chown_and_a_fallocate() {
    let chown = |ino| Op::SetAttr {
        ino,
        set: SetAttr {
            uid: Some(1),
            ..SetAttr::default()
        },
    };
    let allocate = |ino| Op::Fallocate {
        ino,
        offset: 0,
        len: 9,
        how: Fallocate::KeepSize,
    };
    let mut fs = Fs::new();
    for (before, after) in [
        (0o6755, 0o755),
        (0o4644, 0o644),
        (0o2755, 0o755),
        (0o6744, 0o2744),
        (0o2644, 0o2644),
    ] {
        for op in [
            |ino| write(ino, 0, b"x", true),
            |ino| set_size(ino, 0, true),
            chown,
            allocate,
        ] {
            let ino = fs.file("f", before);
            fs.run(&op(ino));
            assert_eq!(permissions(&fs.inode(ino)), after, "{before:o} after {:?}", op(ino));
            fs.run(&Op::Unlink {
                parent: Ino::ROOT,
                name: "f".into(),
                caller: USER,
            });
        }
        let ino = fs.file("f", before);
        fs.run(&write(ino, 0, b"x", false));
        fs.run(&set_size(ino, 0, false));
        assert_eq!(
            permissions(&fs.inode(ino)),
            before,
            "who may keep set-id bits keeps them"
        );
        fs.run(&Op::Unlink {
            parent: Ino::ROOT,
            name: "f".into(),
            caller: USER,
        });
    }
}

#[test]
fn shrinking_truncates_the_data_and_growing_does_not() {
    let mut fs = Fs::new();
    let ino = fs.file("f", 0o644);
    fs.run(&write(ino, 0, b"0123456789", false));
    let (_, effects) = fs.run(&set_size(ino, 4, false));
    assert!(effects.contains(&Effect::Truncate { ino, size: 4 }));
    let (_, effects) = fs.run(&set_size(ino, 8, false));
    assert!(matches!(effects.as_slice(), [Effect::Put { .. }]), "{effects:?}");
    assert_eq!(fs.replica.data[&ino.0].read(0, 8), b"0123\0\0\0\0");
}

#[test]
fn a_truncation_to_the_same_size_marks_the_times() {
    let mut fs = Fs::new();
    let ino = fs.file("f", 0o644);
    let (_, effects) = fs.run(&set_size(ino, 0, false));
    assert_eq!(effects.len(), 1);
    assert_eq!((fs.inode(ino).mtime, fs.inode(ino).ctime), (at(fs.step), at(fs.step)));
}

#[test]
fn zeroing_is_clipped_to_the_old_size() {
    let mut fs = Fs::new();
    let ino = fs.file("f", 0o644);
    fs.run(&write(ino, 0, b"0123456789", false));
    let zero = |offset, len, how| Op::Fallocate { ino, offset, len, how };
    let (_, effects) = fs.run(&zero(8, 100, Fallocate::Punch));
    assert!(effects.contains(&Effect::Zero { ino, offset: 8, len: 2 }));
    assert_eq!(
        fs.run(&zero(10, 100, Fallocate::Punch)).1.len(),
        1,
        "beyond the end only the times change"
    );
    let (_, effects) = fs.run(&zero(6, 14, Fallocate::Zero { keep_size: false }));
    assert!(effects.contains(&Effect::Zero { ino, offset: 6, len: 4 }));
    assert_eq!(fs.inode(ino).size, 20);
    let (_, effects) = fs.run(&zero(30, 5, Fallocate::Zero { keep_size: false }));
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert_eq!(fs.inode(ino).size, 35);
}

/// What the plan lets through and a disk refuses stops every node, at each start anew.
#[test]
fn the_largest_file_fits_on_a_real_disk() {
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", MAX_FILE - 1).unwrap();
}

#[test]
fn sizes_end_at_the_largest_file() {
    let mut fs = Fs::new();
    let ino = fs.file("f", 0o644);
    fs.run(&write(ino, MAX_FILE - 1, b"x", false));
    assert_eq!(fs.inode(ino).size, MAX_FILE);
    assert_eq!(fs.try_run(&write(ino, MAX_FILE, b"x", false)), Err(Refusal::TooLarge));
    assert_eq!(fs.try_run(&write(ino, u64::MAX, b"x", false)), Err(Refusal::TooLarge));
    assert_eq!(fs.try_run(&set_size(ino, MAX_FILE + 1, false)), Err(Refusal::TooLarge));
    let huge = Op::Write {
        ino,
        offset: 0,
        data: vec![0; MAX_WRITE + 1].into(),
        clear_setid: false,
    };
    assert_eq!(fs.try_run(&huge), Err(Refusal::Invalid));
}

#[test]
fn the_last_allowed_link_is_the_65000th() {
    let mut fs = Fs::new();
    let ino = fs.file("f", 0o644);
    let crowded = Inode {
        nlink: MAX_LINKS - 1,
        ..fs.inode(ino)
    };
    fs.replica.meta.insert(key::inode(ino), crowded.encode());
    let link = |name: &'static str| Op::Link {
        ino,
        parent: Ino::ROOT,
        name: name.into(),
    };
    fs.run(&link("g"));
    assert_eq!(fs.try_run(&link("h")), Err(Refusal::TooManyLinks));
}

#[test]
fn names_keep_their_place_in_a_directory() {
    let mut fs = Fs::new();
    let (_, new) = (fs.file("config", 0o644), fs.file("config.new", 0o644));
    let (old_place, new_place) = (fs.cookie(Ino::ROOT, "config"), fs.cookie(Ino::ROOT, "config.new"));
    fs.rename((Ino::ROOT, "config.new"), (Ino::ROOT, "config"), Rename::Replace)
        .expect("done");
    assert_eq!(
        fs.cookie(Ino::ROOT, "config"),
        old_place,
        "a name that is taken over is still shown once"
    );
    assert_eq!(fs.replica.list(Ino::ROOT, 0).len(), 1);
    fs.rename((Ino::ROOT, "config"), (Ino::ROOT, "other"), Rename::Replace)
        .expect("done");
    assert_eq!(
        fs.cookie(Ino::ROOT, "other"),
        old_place,
        "an entry is never shown twice"
    );
    assert_eq!(fs.replica.list(Ino::ROOT, 0)[0].1.ino, new);
    fs.file("later", 0o644);
    assert!(fs.cookie(Ino::ROOT, "later") > new_place, "no cookie comes twice");
}

#[test]
fn no_directory_comes_to_lie_below_itself() {
    let mut fs = Fs::new();
    let a = fs.directory(Ino::ROOT, "a");
    let b = fs.directory(a, "b");
    let c = fs.directory(b, "c");
    fs.file("f", 0o644);
    for to in [a, b, c] {
        assert_eq!(
            fs.rename((Ino::ROOT, "a"), (to, "x"), Rename::Replace),
            Err(Refusal::Invalid)
        );
    }
    assert_eq!(
        fs.rename((b, "c"), (Ino::ROOT, "a"), Rename::Replace),
        Err(Refusal::NotEmpty)
    );
    assert_eq!(
        fs.rename((b, "c"), (Ino::ROOT, "a"), Rename::Exchange),
        Err(Refusal::Invalid)
    );
    assert_eq!(
        fs.rename((Ino::ROOT, "a"), (b, "c"), Rename::Exchange),
        Err(Refusal::Invalid)
    );
    fs.rename((b, "c"), (Ino::ROOT, "f"), Rename::Exchange)
        .expect("a file and a directory change places");
    assert_eq!(
        (fs.inode(Ino::ROOT).nlink, fs.inode(b).nlink, fs.inode(c).parent),
        (4, 2, Ino::ROOT)
    );
}

#[test]
fn a_replaced_directory_is_orphaned_and_its_parent_loses_a_link() {
    let mut fs = Fs::new();
    let (a, b) = (fs.directory(Ino::ROOT, "a"), fs.directory(Ino::ROOT, "b"));
    assert_eq!(fs.inode(Ino::ROOT).nlink, 4);
    let reply = fs
        .rename((Ino::ROOT, "a"), (Ino::ROOT, "b"), Rename::Replace)
        .expect("done");
    assert_eq!(reply, Reply::Done { orphaned: Some(b) });
    assert_eq!(
        (fs.inode(Ino::ROOT).nlink, fs.inode(b).nlink, fs.inode(a).nlink),
        (3, 0, 2)
    );
    let into = Op::Create {
        parent: b,
        name: "x".into(),
        mode: libc::S_IFREG,
        rdev: 0,
        target: Bytes::new(),
        class: None,
        caller: USER,
    };
    assert_eq!(
        fs.try_run(&into),
        Err(Refusal::NotFound),
        "nothing comes into a removed directory"
    );
}

#[test]
fn renames_between_names_of_one_inode_do_nothing() {
    let mut fs = Fs::new();
    let ino = fs.file("a", 0o644);
    fs.run(&Op::Link {
        ino,
        parent: Ino::ROOT,
        name: "b".into(),
    });
    let before = fs.replica.clone();
    for how in [Rename::Replace, Rename::Exchange] {
        fs.rename((Ino::ROOT, "a"), (Ino::ROOT, "b"), how).expect("done");
        fs.rename((Ino::ROOT, "a"), (Ino::ROOT, "a"), how).expect("done");
    }
    assert_eq!(fs.replica, before);
    assert_eq!(
        fs.rename((Ino::ROOT, "a"), (Ino::ROOT, "b"), Rename::NoReplace),
        Err(Refusal::Exists)
    );
}

#[test]
fn an_orphan_lives_until_it_is_reaped_and_no_longer() {
    let mut fs = Fs::new();
    let ino = fs.file("f", 0o644);
    fs.run(&write(ino, 0, b"data", false));
    assert!(fs.run(&Op::Reap { ino }).1.is_empty(), "what has a name isn't reaped");
    let unlink = Op::Unlink {
        parent: Ino::ROOT,
        name: "f".into(),
        caller: USER,
    };
    assert_eq!(fs.run(&unlink).0, Reply::Done { orphaned: Some(ino) });
    fs.run(&write(ino, 4, b" and more", false));
    let back = Op::Link {
        ino,
        parent: Ino::ROOT,
        name: "back".into(),
    };
    assert_eq!(fs.try_run(&back), Err(Refusal::NotFound));
    let (_, effects) = fs.run(&Op::Reap { ino });
    assert_eq!(
        effects,
        [
            Effect::Delete { key: key::inode(ino) },
            Effect::Delete { key: key::orphan(ino) },
            Effect::Purge { ino }
        ]
    );
    assert!(fs.run(&Op::Reap { ino }).1.is_empty(), "once is enough");
    assert_eq!(fs.try_run(&write(ino, 0, b"x", false)), Err(Refusal::NotFound));
    assert_eq!(fs.file("f", 0o644), Ino(ino.0 + 1), "its number doesn't come back");
}

#[test]
fn damaged_records_are_refused_and_change_nothing() {
    let mut fs = Fs::new();
    let (a, _) = (fs.directory(Ino::ROOT, "a"), fs.file("f", 0o644));
    let unlink = Op::Unlink {
        parent: Ino::ROOT,
        name: "f".into(),
        caller: USER,
    };
    let create = Op::Create {
        parent: a,
        name: "x".into(),
        mode: libc::S_IFREG,
        rdev: 0,
        target: Bytes::new(),
        class: None,
        caller: USER,
    };
    let sound = fs.replica.clone();
    let victims = [
        (key::inode(Ino::ROOT), &unlink),
        (key::dirent(Ino::ROOT, b"f"), &unlink),
        (key::inode(Ino(3)), &unlink),
        (key::inode(a), &create),
        (key::own(key::NEXT_INO), &create),
    ];
    for (key, op) in victims {
        fs.replica.meta.insert(key.clone(), Bytes::from_static(b"rot"));
        assert_eq!(fs.try_run(op), Err(Refusal::Damaged), "with a damaged {key:?}");
        fs.replica = sound.clone();
    }
    fs.replica.meta.remove(&key::inode(Ino(3)));
    assert_eq!(fs.try_run(&unlink), Err(Refusal::Damaged), "a name that leads nowhere");
    let lost = Inode {
        parent: a,
        ..fs.inode(a)
    };
    fs.replica = sound;
    fs.directory(a, "b");
    fs.replica.meta.insert(
        key::inode(a),
        Inode {
            entries: 1,
            nlink: 3,
            ..lost
        }
        .encode(),
    );
    let c = fs.directory(Ino::ROOT, "c");
    assert_ne!(c, a);
    assert_eq!(
        fs.rename((Ino::ROOT, "c"), (a, "c"), Rename::Replace),
        Err(Refusal::Damaged),
        "a ring of parents"
    );
}
