//! What PostgreSQL, tar, git, rsync and a recorder do, as real system calls on the mount of an active node. One lab
//! serves all cases; at the end another node must show the same tree.

mod common;
#[path = "posix/growing.rs"]
mod growing;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use common::{PATIENCE, assert_same, lab, ready, seconds, start, wait_other};
use holdfast_tests::lab::LabOptions;
use holdfast_tests::process::run_ok;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, RawDir, RenameFlags, SeekFrom, Timespec, Timestamps, XattrFlags, fallocate, getxattr,
    listxattr, removexattr, renameat_with, seek, setxattr, statvfs, utimensat,
};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

type Case = (&'static str, fn(&Path));

/// Each gets a folder of its own.
const CASES: &[Case] = &[
    ("open flags", open_flags),
    ("appending", appending),
    ("direct I/O", direct_io),
    ("shared mapping", shared_mapping),
    ("a file shared by many", shared_by_many),
    ("a growing file", growing::growing),
    ("truncating", truncating),
    ("renaming", renaming),
    ("links", links),
    ("unlinked but open", unlinked_but_open),
    ("a big directory", big_directory),
    ("a hundred thousand names", hundred_thousand_names),
    ("what isn't there", not_there),
    ("copies of sparse files", sparse_copies),
    ("modes and owners", modes_and_owners),
    ("times", times),
    ("extended attributes", extended_attributes),
    ("access control lists", access_control_lists),
    ("file system figures", figures),
    ("allocating", allocating),
    ("holes", holes),
    ("syncing", syncing),
    ("special files", special_files),
    ("errors", errors),
    ("locks", locks),
    ("tar", tar),
    ("git", git),
    ("rsync", rsync),
    ("sqlite", sqlite_like),
];

#[test]
fn what_applications_do_works_and_is_the_same_on_the_next_node() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let mut failed = Vec::new();
    for (at, (name, case)) in CASES.iter().enumerate() {
        let folder = active.mnt().join(format!("case-{at:02}"));
        let outcome = start(move || {
            catch_unwind(AssertUnwindSafe(|| {
                fs::create_dir(&folder).unwrap();
                case(&folder);
            }))
        });
        match outcome.within(seconds(90)) {
            Some(Ok(())) => {}
            Some(Err(_panic)) => failed.push(*name),
            None => panic!("{name} hangs"),
        }
    }
    assert_eq!(failed, Vec::<&str>::new(), "these failed, see above");
    let before = tree(active.mnt());
    assert!(before.lines().count() > 1000, "{before}");
    assert_same(&lab);
    active.kill().unwrap();
    let next = wait_other(&lab, &active);
    let after = tree(next.mnt());
    for (before, after) in before.lines().zip(after.lines()) {
        assert_eq!(
            before,
            after,
            "the tree on {} and then on {}",
            active.name(),
            next.name()
        );
    }
    assert_eq!(before.lines().count(), after.lines().count());
    assert_same(&lab);
}

/// Every name with what `stat` says of it, and the hash of all content.
fn tree(root: PathBuf) -> String {
    let script = r#"cd "$0" && find . -mindepth 1 -path './.lab-probe*' -prune -o -path './case*' -printf '%p %y %m %U %G %n %s %T@ %l\n' | sort
        find . -type f -path './case*' -print0 | sort -z | xargs -0 sha256sum"#;
    let listed = start(move || run_ok(Command::new("sh").arg("-c").arg(script).arg(root), PATIENCE));
    listed.within(PATIENCE).expect("the listing ends").unwrap()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    options
}

fn open(path: &Path) -> File {
    options().truncate(false).open(path).unwrap()
}

fn errno<T: std::fmt::Debug>(outcome: io::Result<T>) -> i32 {
    outcome.expect_err("it ought to fail").raw_os_error().expect("an errno")
}

/// So that what is read comes from the daemon.
fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

fn shell(folder: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(folder);
    command.env("HOME", folder).env("GIT_CONFIG_NOSYSTEM", "1");
    run_ok(&mut command, seconds(80)).unwrap_or_else(|error| panic!("{error:#}"))
}

fn open_flags(folder: &Path) {
    let path = folder.join("file");
    let new = || OpenOptions::new().write(true).create_new(true).open(&path);
    new().unwrap().write_all(b"content").unwrap();
    assert_eq!(errno(new()), libc::EEXIST);
    assert_eq!(errno(File::open(folder.join("none"))), libc::ENOENT);
    assert_eq!(errno(OpenOptions::new().write(true).open(folder)), libc::EISDIR);
    assert_eq!(
        errno(
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECTORY)
                .open(&path)
        ),
        libc::ENOTDIR
    );
    symlink("file", folder.join("link")).unwrap();
    let no_follow = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(folder.join("link"));
    assert_eq!(errno(no_follow), libc::ELOOP);
    drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    for flags in [libc::O_SYNC, libc::O_DSYNC] {
        let mut file = OpenOptions::new().append(true).custom_flags(flags).open(&path).unwrap();
        file.write_all(b"synced").unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), b"syncedsynced");
    let mode = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(folder.join("mode"))
        .unwrap();
    assert_eq!(mode.metadata().unwrap().mode() & 0o7777, 0o640);
}

fn appending(folder: &Path) {
    let script = r#"for who in one two three; do
        (i=0; while [ $i -lt 200 ]; do echo "$who $i"; i=$((i+1)); done >> log) & done; wait"#;
    shell(folder, script);
    let text = fs::read_to_string(folder.join("log")).unwrap();
    for who in ["one", "two", "three"] {
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(who)).collect();
        assert_eq!(lines, (0..200).map(|at| format!(" {at}")).collect::<Vec<_>>());
    }
}

fn direct_io(folder: &Path) {
    let path = folder.join("file");
    fs::write(&path, [1; 8192]).unwrap();
    let direct = options()
        .truncate(false)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap();
    let cached = File::open(&path).unwrap();
    let mut block = [0; 4096];
    cached.read_exact_at(&mut block, 4096).unwrap();
    direct.write_all_at(&[2; 4096], 4096).unwrap();
    cached.read_exact_at(&mut block, 4096).unwrap();
    assert_eq!(block, [2; 4096]);
    direct.read_exact_at(&mut block, 0).unwrap();
    assert_eq!(block, [1; 4096]);
}

fn shared_mapping(folder: &Path) {
    for (name, flags) in [("cached", 0), ("direct", libc::O_DIRECT)] {
        let path = folder.join(name);
        fs::write(&path, [0; 12288]).unwrap();
        let file = options().truncate(false).custom_flags(flags).open(&path).unwrap();
        // SAFETY: a new mapping of 12 KiB at an address of the kernel's choice, used within and ended below.
        unsafe {
            let both = ProtFlags::READ | ProtFlags::WRITE;
            let at = mmap(std::ptr::null_mut(), 12288, both, MapFlags::SHARED, &file, 0).unwrap();
            at.cast::<u8>().add(5000).copy_from(b"mapped".as_ptr(), 6);
            msync(at, 12288, MsyncFlags::SYNC).unwrap();
            at.cast::<u8>().add(9000).copy_from(b"later".as_ptr(), 5);
            munmap(at, 12288).unwrap();
        }
        file.sync_all().unwrap();
        drop_caches();
        let all = fs::read(&path).unwrap();
        assert_eq!((&all[5000..5006], &all[9000..9005]), (&b"mapped"[..], &b"later"[..]));
    }
}

/// Records that lie across pages and blocks, each written by one of several threads: by write, through a mapping, with syncs
/// between; each sees its own as it left it, through every way to read.
fn shared_by_many(folder: &Path) {
    const WRITERS: usize = 6;
    const RECORD: usize = 700;
    const RECORDS: usize = 600;
    const LENGTH: usize = RECORD * RECORDS;
    let path = folder.join("file");
    fs::write(&path, vec![0; LENGTH]).unwrap();
    let write = |writer: usize| {
        let mut random = StdRng::seed_from_u64(writer as u64);
        let file = options().truncate(false).open(&path).unwrap();
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the file is never shorter; ended below.
        let mapped = unsafe { mmap(std::ptr::null_mut(), LENGTH, both, MapFlags::SHARED, &file, 0) }.unwrap();
        let mut own = vec![[0; RECORD]; RECORDS / WRITERS];
        for _ in 0..1500 {
            let slot = random.random_range(0..own.len());
            let at = (slot * WRITERS + writer) * RECORD;
            let mut seen = [0; RECORD];
            match random.random_range(0..10) {
                0..4 => {
                    random.fill(&mut own[slot][..]);
                    file.write_all_at(&own[slot], at as u64).unwrap();
                }
                4..6 => {
                    random.fill(&mut own[slot][..]);
                    // SAFETY: within the mapping, and no other thread touches this record.
                    unsafe { mapped.cast::<u8>().add(at).copy_from(own[slot].as_ptr(), RECORD) }
                }
                6 => {
                    // SAFETY: as above.
                    unsafe { mapped.cast::<u8>().add(at).copy_to(seen.as_mut_ptr(), RECORD) }
                    assert_eq!(seen, own[slot], "record at {at} through the mapping");
                }
                7..9 => {
                    file.read_exact_at(&mut seen, at as u64).unwrap();
                    assert_eq!(seen, own[slot], "record at {at}");
                }
                _ => file.sync_data().unwrap(),
            }
        }
        // SAFETY: made above, and nothing uses it after this.
        unsafe { munmap(mapped, LENGTH) }.unwrap();
        own
    };
    let written: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    File::open(&path).unwrap().sync_all().unwrap();
    drop_caches();
    let all = fs::read(&path).unwrap();
    for (number, record) in all.chunks(RECORD).enumerate() {
        assert_eq!(record, written[number % WRITERS][number / WRITERS], "record {number}");
    }
}

fn truncating(folder: &Path) {
    let path = folder.join("file");
    fs::write(&path, [7; 10_000]).unwrap();
    let file = open(&path);
    file.set_len(5000).unwrap();
    file.set_len(9000).unwrap();
    drop_caches();
    let all = fs::read(&path).unwrap();
    assert!(all.len() == 9000 && all[..5000] == [7; 5000] && all[5000..] == [0; 4000]);
    file.write_all_at(b"far", 1 << 40).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (1 << 40) + 3);
    file.set_len(3).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [7; 3]);
}

fn renaming(folder: &Path) {
    let path = |name: &str| folder.join(name);
    let rename =
        |from: &str, to: &str, flags| renameat_with(CWD, path(from), CWD, path(to), flags).map_err(io::Error::from);
    fs::write(path("a"), "a").unwrap();
    fs::write(path("b"), "b").unwrap();
    assert_eq!(errno(rename("a", "b", RenameFlags::NOREPLACE)), libc::EEXIST);
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap()),
        (b"b".to_vec(), b"a".to_vec())
    );
    let held = File::open(path("b")).unwrap();
    rename("a", "b", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(path("b")).unwrap(), b"b");
    let mut old = [0];
    held.read_exact_at(&mut old, 0).unwrap();
    assert_eq!(&old, b"a");
    fs::create_dir_all(path("dir/inner")).unwrap();
    assert_eq!(
        errno(rename("dir", "dir/inner/self", RenameFlags::empty())),
        libc::EINVAL
    );
    fs::create_dir(path("full")).unwrap();
    fs::write(path("full/file"), "").unwrap();
    assert_eq!(errno(rename("dir", "full", RenameFlags::empty())), libc::ENOTEMPTY);
    assert_eq!(errno(rename("dir", "b", RenameFlags::empty())), libc::ENOTDIR);
    assert_eq!(errno(rename("b", "dir", RenameFlags::empty())), libc::EISDIR);
    rename("dir", "moved", RenameFlags::empty()).unwrap();
    assert!(path("moved/inner").is_dir() && !path("dir").exists());
}

fn links(folder: &Path) {
    let path = |name: &str| folder.join(name);
    fs::write(path("one"), "content").unwrap();
    fs::hard_link(path("one"), path("two")).unwrap();
    assert_eq!(fs::metadata(path("one")).unwrap().nlink(), 2);
    assert_eq!(
        fs::metadata(path("one")).unwrap().ino(),
        fs::metadata(path("two")).unwrap().ino()
    );
    fs::remove_file(path("one")).unwrap();
    assert_eq!(
        (
            fs::read(path("two")).unwrap(),
            fs::metadata(path("two")).unwrap().nlink()
        ),
        (b"content".to_vec(), 1)
    );
    assert_eq!(errno(fs::hard_link(folder, path("folder"))), libc::EPERM);
    let target = "x".repeat(4000);
    symlink(&target, path("long")).unwrap();
    assert_eq!(fs::read_link(path("long")).unwrap(), Path::new(&target));
    fs::create_dir(path("dir")).unwrap();
    assert_eq!(fs::metadata(folder).unwrap().nlink(), 3);
}

fn unlinked_but_open(folder: &Path) {
    let path = folder.join("gone");
    let file = open(&path);
    file.write_all_at(b"before", 0).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all_at(b"after", 6).unwrap();
    file.sync_all().unwrap();
    drop_caches();
    let mut all = [0; 11];
    file.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all, b"beforeafter");
    fs::write(&path, "another").unwrap();
    file.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(&all, b"beforeafter");
}

fn big_directory(folder: &Path) {
    const COUNT: usize = 1500;
    for number in 0..COUNT {
        File::create(folder.join(format!("a-rather-long-name-of-a-file-{number:05}"))).unwrap();
    }
    let names = || -> BTreeSet<_> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    };
    assert_eq!(names().len(), COUNT);
    // Removing while reading leaves out nothing that stays.
    let mut seen = 0;
    for (at, entry) in fs::read_dir(folder).unwrap().enumerate() {
        let entry = entry.unwrap();
        assert!(entry.metadata().unwrap().is_file());
        seen += 1;
        if at % 3 == 0 {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_eq!((seen, names().len()), (COUNT, COUNT - COUNT.div_ceil(3)));
}

/// Names and the place behind each, from a place on.
fn names_from(dir: &File, place: u64) -> Vec<(Vec<u8>, u64)> {
    seek(dir, SeekFrom::Start(place)).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 1 << 16];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        found.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    found
}

fn hundred_thousand_names(folder: &Path) {
    const NAMES: usize = 100_000;
    setxattr(folder, "holdfast.class", b"database", XattrFlags::empty()).unwrap();
    thread::scope(|scope| {
        for quarter in 0..4 {
            scope.spawn(move || {
                for number in (quarter..NAMES).step_by(4) {
                    File::create(folder.join(format!("name-{number}"))).unwrap();
                }
            });
        }
    });
    let dir = File::open(folder).unwrap();
    let all = names_from(&dir, 0);
    let different: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
    assert_eq!((all.len(), different.len()), (NAMES + 2, NAMES + 2));
    // A place in the middle stays where it is while names before and behind it go.
    let (before, behind) = all.split_at(NAMES / 2);
    let place = before[before.len() - 1].1;
    assert_eq!(names_from(&dir, place), behind);
    let gone: BTreeSet<_> = before[100..600].iter().chain(&behind[100..600]).collect();
    for (name, _) in &gone {
        fs::remove_file(folder.join(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))).unwrap();
    }
    let left = behind.iter().filter(|entry| !gone.contains(entry));
    assert_eq!(names_from(&dir, place), left.cloned().collect::<Vec<_>>());
    assert_eq!(names_from(&dir, 0).len(), all.len() - gone.len());
}

/// What semantics.md says isn't supported is refused, not done by half.
fn not_there(folder: &Path) {
    let unnamed = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(folder);
    assert_eq!(errno(unnamed), libc::EOPNOTSUPP);
    let file = open(&folder.join("file"));
    file.write_all_at(&[9; 16384], 0).unwrap();
    for how in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(
            errno(fallocate(&file, how, 4096, 4096).map_err(io::Error::from)),
            libc::EOPNOTSUPP
        );
    }
    assert_eq!(fs::read(folder.join("file")).unwrap(), [9; 16384]);
    // As the kernel keeps them: VFS_CAP_REVISION_2, and CAP_NET_BIND_SERVICE permitted.
    let value = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capability = setxattr(folder.join("file"), "security.capability", &value, XattrFlags::empty());
    assert_eq!(errno(capability.map_err(io::Error::from)), libc::EOPNOTSUPP);
}

/// Onto the mount holes come by themselves; off it the programs have to be asked for them, as the runbook says.
fn sparse_copies(folder: &Path) {
    let script = r#"aside=$(mktemp -d); trap 'rm -rf "$aside"' EXIT
        truncate -s 8M "$aside/from"; printf x | dd of="$aside/from" bs=1 seek=5000000 conv=notrunc status=none
        cp --sparse=auto "$aside/from" auto; cp --sparse=always "$aside/from" always; rsync -aS "$aside/from" rsync
        tar -C "$aside" -Scf all.tar from; tar -Sxf all.tar
        cp --sparse=always always "$aside/cp"; rsync -aS always "$aside/rsync"
        for copy in auto always rsync from "$aside/cp" "$aside/rsync"; do cmp "$aside/from" "$copy"; done
        [ "$(du -k "$aside/cp" | cut -f1)" -lt 64 ]; [ "$(du -k "$aside/rsync" | cut -f1)" -lt 64 ]"#;
    shell(folder, script);
    for name in ["auto", "always", "rsync", "from"] {
        let file = File::open(folder.join(name)).unwrap();
        let data = seek(&file, SeekFrom::Data(0)).unwrap();
        let hole = seek(&file, SeekFrom::Hole(data)).unwrap();
        assert!(
            data > 4 << 20 && hole < data + (1 << 20),
            "{name}: data from {data} to {hole}"
        );
    }
}

fn modes_and_owners(folder: &Path) {
    let path = folder.join("file");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
    chown(&path, Some(1234), Some(4321)).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid()), (1234, 4321));
    // A change of owner takes the right to run as the owner away.
    assert_eq!(found.mode() & 0o7777, 0o751);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(words)
            .arg(&path);
        command.output().unwrap().status.success()
    };
    assert!(!as_nobody(&["cat"]), "permissions hold");
    fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    assert!(as_nobody(&["cat"]), "others are allowed in");
    assert!(!as_nobody(&["rm", "-f"]), "the folder isn't theirs");
    fs::create_dir(folder.join("shared")).unwrap();
    chown(folder.join("shared"), None, Some(77)).unwrap();
    fs::set_permissions(folder.join("shared"), Permissions::from_mode(0o2775)).unwrap();
    fs::write(folder.join("shared/file"), "").unwrap();
    assert_eq!(fs::metadata(folder.join("shared/file")).unwrap().gid(), 77);
}

fn times(folder: &Path) {
    let path = folder.join("file");
    fs::write(&path, "x").unwrap();
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    for (sec, nsec) in [(1_700_000_000, 123_456_789), (-5, 999_999_999), (1 << 33, 1)] {
        let both = Timestamps {
            last_access: time(sec, nsec),
            last_modification: time(sec, nsec),
        };
        utimensat(CWD, &path, &both, AtFlags::empty()).unwrap();
        drop_caches();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (sec, nsec));
        assert_eq!((found.atime(), found.atime_nsec()), (sec, nsec));
    }
    let before = fs::metadata(&path).unwrap();
    fs::write(&path, "y").unwrap();
    let after = fs::metadata(&path).unwrap();
    assert!(
        after.mtime() < 1 << 33 && after.mtime() > 1_700_000_000,
        "a write sets the time"
    );
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
}

fn extended_attributes(folder: &Path) {
    let path = folder.join("file");
    fs::write(&path, "x").unwrap();
    let get = |name: &str| {
        let mut value = vec![0; 70_000];
        getxattr(&path, name, &mut value)
            .map(|len| value[..len].to_vec())
            .map_err(io::Error::from)
    };
    let set = |name: &str, value: &[u8], flags| setxattr(&path, name, value, flags).map_err(io::Error::from);
    set("user.one", b"1", XattrFlags::CREATE).unwrap();
    set("trusted.two", &[2; 60_000], XattrFlags::empty()).unwrap();
    assert_eq!(
        (get("user.one").unwrap(), get("trusted.two").unwrap()),
        (b"1".to_vec(), vec![2; 60_000])
    );
    assert_eq!(errno(set("user.one", b"x", XattrFlags::CREATE)), libc::EEXIST);
    assert_eq!(errno(set("user.none", b"x", XattrFlags::REPLACE)), libc::ENODATA);
    let mut list = vec![0; 1000];
    let len = listxattr(&path, &mut list).unwrap();
    let names: BTreeSet<_> = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(names, BTreeSet::from([&b"user.one"[..], b"trusted.two"]));
    removexattr(&path, "user.one").unwrap();
    assert_eq!(errno(get("user.one")), libc::ENODATA);
}

/// The same commands on a local file system say the same.
fn access_control_lists(folder: &Path) {
    let script = r#"
        umask 027; touch plain; mkdir dir; setfacl -m u:1000:rw,g:100:r plain; getfacl -n plain; stat -c %A plain
        chmod 604 plain; getfacl -n plain; chmod 660 plain; getfacl -n plain
        setfacl -m m::r plain; stat -c %a plain; setfacl -x u:1000 plain; getfacl -n plain; setfacl -b plain; getfacl -n plain
        stat -c %a plain; getfattr -m- -d plain
        setfacl -d -m u:1000:rwx,g::rx,o::- dir; getfacl -n dir; (umask 0; touch dir/open); touch dir/file; mkdir dir/sub
        mkfifo dir/fifo; ln -s x dir/link; : > dir/made; mkdir -m 700 dir/closed; install -m 640 plain dir/installed
        find dir ! -type l | sort | getfacl -n -; stat -c '%n %A' dir/*; setfacl -k dir; touch dir/later; getfacl -n dir/later; getfattr -m- dir
        setfacl -m u:1000:- dir/file; cp -a dir copy; find copy ! -type l | sort | getfacl -n -; rsync -aHAX dir/ synced/; find synced ! -type l | sort | getfacl -n -
        chgrp 100 plain; chmod 2775 plain; setfacl -m g:5:rw plain; stat -c %A plain
        setpriv --reuid=1000 --regid=1000 --clear-groups sh -c 'cat dir/open; echo x >> dir/open; cat dir/file' 2>&1 || true
        setfacl -d -m u::x plain 2>&1 || true; setfacl -m u:1000:r dir/link 2>&1 || true; mv dir moved; getfacl -n moved/open
        setfacl -m u::rw-,g::r--,o::- plain; stat -c %a plain; (umask 077; mkdir -p deep/er; stat -c %a deep/er)
    "#;
    let local = tempfile::tempdir_in("/var/tmp").unwrap();
    // The way to a file of someone else's.
    fs::set_permissions(local.path(), Permissions::from_mode(0o755)).unwrap();
    let (here, there) = (shell(folder, script), shell(local.path(), script));
    for (number, (here, there)) in here.lines().zip(there.lines()).enumerate() {
        assert_eq!(here, there, "line {number}");
    }
    assert_eq!(here.lines().count(), there.lines().count());
    assert!(here.lines().count() > 150, "{here}");
}

fn figures(folder: &Path) {
    let found = statvfs(folder).unwrap();
    assert!(found.f_blocks > found.f_bfree && found.f_bavail > 0 && found.f_namemax == 255);
    let path = folder.join("file");
    fs::write(&path, [1; 10_000]).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() >= 20);
}

fn allocating(folder: &Path) {
    let path = folder.join("file");
    fs::write(&path, [9; 16384]).unwrap();
    let file = open(&path);
    let call = |flags, offset, len| fallocate(&file, flags, offset, len).map_err(io::Error::from);
    call(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 4096).unwrap();
    call(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 10_000, 100).unwrap();
    drop_caches();
    let all = fs::read(&path).unwrap();
    assert!(all[..4096] == [9; 4096] && all[4096..8192] == [0; 4096] && all[8192..10_000] == [9; 1808]);
    assert!(all[10_000..10_100] == [0; 100] && all[10_100..] == [9; 6284]);
    call(FallocateFlags::empty(), 16384, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20480);
    assert_eq!(errno(call(FallocateFlags::COLLAPSE_RANGE, 0, 4096)), libc::EOPNOTSUPP);
}

fn holes(folder: &Path) {
    let file = open(&folder.join("file"));
    file.write_all_at(&[1; 4096], 8192).unwrap();
    file.set_len(65536).unwrap();
    let seek = |to| seek(&file, to).map_err(io::Error::from);
    assert_eq!(
        (seek(SeekFrom::Data(0)).unwrap(), seek(SeekFrom::Hole(8192)).unwrap()),
        (8192, 12288)
    );
    assert_eq!(errno(seek(SeekFrom::Data(12288))), libc::ENXIO);
}

fn syncing(folder: &Path) {
    let file = open(&folder.join("file"));
    file.write_all_at(b"content", 0).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    fs::rename(folder.join("file"), folder.join("renamed")).unwrap();
    File::open(folder).unwrap().sync_all().unwrap();
    rustix::fs::syncfs(&file).unwrap();
}

fn special_files(folder: &Path) {
    shell(
        folder,
        "mkfifo pipe; (echo through > pipe) & read line < pipe; [ \"$line\" = through ]; wait",
    );
    let socket = folder.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    drop(listener);
}

fn errors(folder: &Path) {
    let path = |name: &str| folder.join(name);
    fs::create_dir_all(path("dir/inner")).unwrap();
    fs::write(path("file"), "").unwrap();
    assert_eq!(errno(fs::remove_dir(path("dir"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::remove_dir(path("file"))), libc::ENOTDIR);
    assert_eq!(errno(fs::remove_file(path("dir"))), libc::EISDIR);
    assert_eq!(errno(fs::create_dir(path("dir"))), libc::EEXIST);
    assert_eq!(errno(fs::write(path(&"n".repeat(256)), "")), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::metadata(path("file/below"))), libc::ENOTDIR);
    fs::write(path(&"n".repeat(255)), "").unwrap();
    assert_eq!(errno(open(&path("file")).set_len(i64::MAX as u64)), libc::EFBIG);
    let raw = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"not-\xFF-text");
    fs::write(folder.join(raw), "named in bytes").unwrap();
    assert!(
        fs::read_dir(folder)
            .unwrap()
            .any(|entry| entry.unwrap().file_name() == raw)
    );
}

fn locks(folder: &Path) {
    let path = folder.join("file");
    let (one, other) = (open(&path), open(&path));
    let take = |file: &File, how| rustix::fs::flock(file, how).map_err(io::Error::from);
    take(&one, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(
        errno(take(&other, rustix::fs::FlockOperation::NonBlockingLockShared)),
        libc::EWOULDBLOCK
    );
    drop(one);
    take(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
}

fn tar(folder: &Path) {
    let script = r#"mkdir src; cp -a /etc/default /etc/init.d /etc/alternatives src/ 2>/dev/null || true
        mkdir src/deep; for i in $(seq 50); do head -c $((i * 997)) /bin/bash > src/deep/file-$i; done
        ln src/deep/file-1 src/deep/hard; ln -s ../none src/deep/dangling; truncate -s 1M src/deep/sparse
        tar -cf all.tar src; mkdir out; tar -xpf all.tar -C out --numeric-owner
        tar -df all.tar -C out; diff -r --no-dereference src out/src; tar -Sczf sparse.tgz src/deep/sparse; tar -tzf sparse.tgz >/dev/null"#;
    shell(folder, script);
}

fn git(folder: &Path) {
    let script = r#"git init -q src; cd src; git config user.email none@example.org; git config user.name none
        for i in $(seq 5); do mkdir -p d$i; for j in $(seq 20); do head -c $((i * j * 101)) /bin/bash > d$i/f$j; done; git add -A; git commit -qm $i; done
        git checkout -q -b other HEAD~2; echo x > d1/f1; git commit -qam other; git gc -q; cd ..
        git clone -q --no-hardlinks src dst; cd dst; git fsck --full --strict; git checkout -q other; [ -z "$(git status --porcelain)" ]
        cd ..; git clone -q src linked; cd linked; git fsck --full; git log --oneline | wc -l"#;
    shell(folder, script);
}

fn rsync(folder: &Path) {
    let script = r#"mkdir src; cp -a /etc/default /etc/init.d src/; rsync -aHAX src/ dst/; diff -r --no-dereference src dst
        head -c 300000 /bin/bash > src/large; rsync -a src/ dst/; printf middle | dd of=src/large bs=1 seek=150000 conv=notrunc status=none
        rsync -aI --inplace --no-whole-file src/ dst/; cmp src/large dst/large; rm -r src/init.d; rsync -a --delete src/ dst/; [ ! -e dst/init.d ]"#;
    shell(folder, script);
}

/// As SQLite in WAL mode does: a shared mapping that grows with its file, locks, and a log that is reset.
fn sqlite_like(folder: &Path) {
    let shared = open(&folder.join("db-shm"));
    shared.set_len(32768).unwrap();
    // SAFETY: two new mappings of 32 KiB of the same file, used within and ended below.
    unsafe {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        let map = || mmap(std::ptr::null_mut(), 32768, both, MapFlags::SHARED, &shared, 0).unwrap();
        let (one, other) = (map(), map());
        one.cast::<u8>().add(100).write_volatile(42);
        assert_eq!(other.cast::<u8>().add(100).read_volatile(), 42);
        munmap(one, 32768).unwrap();
        munmap(other, 32768).unwrap();
    }
    let log = open(&folder.join("db-wal"));
    for round in 0..3_u8 {
        for frame in 0..20 {
            log.write_all_at(&[round; 4120], frame * 4120).unwrap();
        }
        log.sync_data().unwrap();
        log.set_len(0).unwrap();
    }
    fs::remove_file(folder.join("db-wal")).unwrap();
}
