//! docs/semantics.md, line by line and in each class: what each call has waited for when it returns. The calls run while what
//! they have to wait for can't happen; none of those may return before it can.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::apart::apart;
use common::classes::{CLASSES, directory_of};
use common::disks::Disks;
use common::replace::{replace, version, version_in};
use common::{PATIENCE, Pending, assert_same, content, lab, ready, seconds, wait_other, write};
use holdfast_tests::clock::pause;
use holdfast_tests::lab::{Lab, LabOptions, Node};
use rustix::fs::{FallocateFlags, RenameFlags, XattrFlags, fallocate, lremovexattr, lsetxattr, renameat_with};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// Far longer than any of these calls takes.
const HELD: Duration = Duration::from_millis(700);
const SOON: Duration = Duration::from_secs(3);

/// A call, given a directory of its own in which lie the files `old` and `other` (10,000 bytes each) and the directory `dir`.
type Call = fn(&Path) -> io::Result<()>;

fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(dir.join("old"))
}

fn write_with(dir: &Path, flags: i32) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(dir.join("old"))?;
    // The kernel gives the descriptor up on a thread of its own: it may be held as well.
    let written = file.write_at(b"new", 100).map(drop);
    std::mem::forget(file);
    written
}

/// Every call that promises two disks, whatever the class.
const DURABLE: [(&str, Call); 7] = [
    ("fsync", |dir| {
        let file = open(dir)?;
        file.write_all_at(b"new", 0)?;
        file.sync_all()
    }),
    ("fdatasync", |dir| {
        let file = open(dir)?;
        file.write_all_at(b"new", 0)?;
        file.sync_data()
    }),
    ("O_SYNC", |dir| write_with(dir, libc::O_SYNC)),
    ("O_DSYNC", |dir| write_with(dir, libc::O_DSYNC)),
    ("msync", |dir| {
        let file = open(dir)?;
        // SAFETY: a new mapping of one page at an address of the kernel's choice, used within and ended below.
        unsafe {
            let at = mmap(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?;
            at.cast::<u8>().write_volatile(b'n');
            let synced = msync(at, 4096, MsyncFlags::SYNC);
            munmap(at, 4096)?;
            synced?;
        }
        Ok(())
    }),
    ("fsync of a directory", |dir| {
        fs::write(dir.join("dir/new"), "")?;
        File::open(dir.join("dir"))?.sync_all()
    }),
    ("replace by rename, then fsync of the directory", |dir| {
        fs::write(dir.join("tmp"), "new")?;
        fs::rename(dir.join("tmp"), dir.join("old"))?;
        File::open(dir)?.sync_all()
    }),
];

/// Every call that changes something.
const CHANGES: [(&str, Call); 19] = [
    ("write", |dir| open(dir)?.write_all_at(b"new", 0)),
    ("append", |dir| {
        OpenOptions::new().append(true).open(dir.join("old"))?.write_all(b"new")
    }),
    ("creat", |dir| File::create_new(dir.join("new")).map(drop)),
    ("mkdir", |dir| fs::create_dir(dir.join("new"))),
    ("mknod", |dir| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join("fifo"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .map_err(io::Error::from)
    }),
    ("symlink", |dir| symlink("old", dir.join("link"))),
    ("link", |dir| fs::hard_link(dir.join("old"), dir.join("link"))),
    ("unlink", |dir| fs::remove_file(dir.join("old"))),
    ("rmdir", |dir| fs::remove_dir(dir.join("dir"))),
    ("rename", |dir| fs::rename(dir.join("old"), dir.join("new"))),
    ("rename over", |dir| fs::rename(dir.join("old"), dir.join("other"))),
    ("RENAME_EXCHANGE", |dir| {
        let at = rustix::fs::CWD;
        Ok(renameat_with(
            at,
            dir.join("old"),
            at,
            dir.join("other"),
            RenameFlags::EXCHANGE,
        )?)
    }),
    ("truncate", |dir| open(dir)?.set_len(5)),
    ("fallocate", |dir| {
        Ok(fallocate(open(dir)?, FallocateFlags::empty(), 0, 20_000)?)
    }),
    ("punch", |dir| {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(open(dir)?, how, 0, 4096)?)
    }),
    ("chmod", |dir| {
        fs::set_permissions(dir.join("old"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
    }),
    ("chown", |dir| {
        std::os::unix::fs::lchown(dir.join("old"), Some(12), Some(34))
    }),
    ("utimensat", |dir| open(dir)?.set_modified(std::time::UNIX_EPOCH)),
    ("setxattr, removexattr", |dir| {
        let file = dir.join("old");
        lsetxattr(&file, "user.new", b"x", XattrFlags::empty())?;
        Ok(lremovexattr(&file, "user.new")?)
    }),
];

/// A directory for each class and call, ready for the call.
fn prepare(active: &Node, calls: &[(&str, Call)]) -> Vec<(String, PathBuf, Call)> {
    let mut prepared = Vec::new();
    for class in CLASSES {
        let root = directory_of(class, &active.mnt());
        for (at, (name, call)) in calls.iter().enumerate() {
            let dir = root.join(at.to_string());
            fs::create_dir_all(dir.join("dir")).unwrap();
            for file in ["old", "other"] {
                fs::write(dir.join(file), [b'o'; 10_000]).unwrap();
            }
            prepared.push((format!("{name} in {class}"), dir, *call));
        }
    }
    File::open(active.mnt()).unwrap().sync_all().unwrap();
    prepared
}

fn call_all(prepared: Vec<(String, PathBuf, Call)>) -> Vec<(String, Pending<io::Result<()>>)> {
    let call = |(name, dir, call): (String, PathBuf, Call)| (name, apart(move || call(&dir)));
    prepared.into_iter().map(call).collect()
}

fn assert_held(calls: &[(String, Pending<io::Result<()>>)]) {
    let early: Vec<_> = calls
        .iter()
        .filter_map(|(name, call)| Some((name, call.within(Duration::ZERO)?)))
        .collect();
    assert!(early.is_empty(), "returned too early: {early:?}");
}

fn assert_all_succeed(lab: &Lab, calls: Vec<(String, Pending<io::Result<()>>)>) {
    for (name, call) in calls {
        match call.within(PATIENCE) {
            Some(Ok(())) => {}
            outcome => panic!("{name}: {outcome:?}\n{}", lab.log_tails(10)),
        }
    }
}

#[test]
fn no_sync_of_any_kind_returns_before_a_second_disk_has_it_in_any_class() {
    let disks = Disks::ext4([900; 3]);
    let lab = lab(disks.options().set("mount.request_deadline_ms", 20_000));
    let active = ready(&lab);
    let prepared = prepare(&active, &DURABLE);
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let standbys: Vec<_> = lab.others(active.name()).into_iter().cloned().collect();
    let frozen = [0, 1].map(|at| disks.of(standbys[at].name()).freeze());
    let calls = call_all(prepared);
    pause(HELD);
    assert_held(&calls);
    drop(frozen);
    assert_all_succeed(&lab, calls);
    assert_same(&lab);
}

#[test]
fn no_change_returns_before_a_second_node_has_it_where_the_class_says_so() {
    let lab = lab(LabOptions::default().set("mount.request_deadline_ms", 20_000));
    let active = ready(&lab);
    let (waiting, free): (Vec<_>, Vec<_>) = prepare(&active, &CHANGES).into_iter().partition(|(name, _, _)| {
        ["default", "recordings", "durable"]
            .iter()
            .any(|class| name.ends_with(class))
    });
    for standby in lab.others(active.name()) {
        standby.pause().unwrap();
    }
    let began = holdfast_tests::clock::now();
    let waiting = call_all(waiting);
    pause(Duration::from_millis(300));
    assert_held(&waiting);
    for standby in lab.others(active.name()) {
        standby.resume().unwrap();
    }
    // Else the role is lost by rule, and that is another test's.
    assert!(began.elapsed() < seconds(3), "this machine is too busy for this test");
    assert_all_succeed(&lab, waiting);
    assert_all_succeed(&lab, call_all(free));
    assert_same(&lab);
}

#[test]
fn an_fsync_waits_for_every_name_whatever_file_it_is_of() {
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options().set("mount.request_deadline_ms", 20_000));
    let active = ready(&lab);
    let root = active.mnt();
    for name in ["old", "dir", "other"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::write(root.join("old/file"), "old").unwrap();
    File::open(&root).unwrap().sync_all().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let standbys: Vec<_> = lab.others(active.name()).into_iter().cloned().collect();
    let frozen = [0, 1].map(|at| disks.of(standbys[at].name()).freeze());
    // By itself this waits for memory alone.
    let named = write(root.join("dir/new"), "new").within(SOON);
    assert!(matches!(named, Some(Ok(()))), "{named:?}");
    let sync = |path: &str| {
        let path = root.join(path);
        apart(move || File::open(path)?.sync_all())
    };
    let synced = [sync("old/file"), sync("other")];
    for synced in &synced {
        let early = synced.within(Duration::from_millis(800));
        assert!(early.is_none(), "a name elsewhere is on one disk: {early:?}");
    }
    drop(frozen);
    for synced in &synced {
        synced.within(PATIENCE).expect("fsync returns").unwrap();
    }
    assert_same(&lab);
}

#[test]
fn a_file_replaced_by_rename_is_the_old_or_the_new_one_after_a_crash_in_every_class() {
    let lab = lab(LabOptions::default());
    let mut active = ready(&lab);
    for class in CLASSES {
        let root = directory_of(class, &active.mnt());
        fs::write(root.join("file"), version(0)).unwrap();
        File::open(&root).unwrap().sync_all().unwrap();
    }
    for round in 0..3 {
        let replaced = CLASSES.map(|class| replace(active.mnt().join(class)));
        pause(Duration::from_millis(400 + 150 * round));
        active.kill().unwrap();
        let next = wait_other(&lab, &active);
        for (class, replaced) in CLASSES.iter().zip(replaced) {
            let last = replaced.within(PATIENCE).expect("it ends with its mount");
            let found = content(&next.mnt().join(class).join("file"));
            let number = version_in(&found).unwrap_or_else(|| panic!("{class}: empty, or a mixture of versions"));
            // What was only sequenced may be lost; what a second node had isn't.
            if ["default", "recordings", "durable"].contains(class) {
                assert!(number >= last, "{class}: version {number}, but {last} had been renamed");
            }
        }
        active.start().unwrap();
        lab.wait_all_up_to_date(PATIENCE).unwrap();
        active = next;
    }
    assert_same(&lab);
}
