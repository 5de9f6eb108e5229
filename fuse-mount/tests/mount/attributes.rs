use crate::fixture::Fixture;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, statvfs, utimensat};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Runs a shell command as nobody.
fn as_nobody(script: &str, path: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
        .arg(path);
    command.stderr(std::process::Stdio::null()).status().unwrap().success()
}

#[test]
fn modes_owners_and_permissions() {
    let fs = Fixture::new();
    fs::set_permissions(fs.path("."), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(fs.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = fs.path("a");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(!as_nobody("cat \"$0\"", &path));
    assert!(!as_nobody("echo y > \"$0.new\"", &path));
    chown(&path, Some(65534), Some(65534)).unwrap();
    let stat = fs::metadata(&path).unwrap();
    assert_eq!(
        (stat.uid(), stat.gid(), stat.mode()),
        (65534, 65534, libc::S_IFREG | 0o600)
    );
    assert!(as_nobody("cat \"$0\"", &path));
    fs::set_permissions(fs.path("."), Permissions::from_mode(0o1777)).unwrap();
    assert!(as_nobody("echo y > \"$0.new\"", &path));
    let new = fs::metadata(fs.path("a.new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (65534, 65534));
}

#[test]
fn set_id_bits_go_when_others_write_and_on_every_chown() {
    let fs = Fixture::new();
    fs::set_permissions(fs.folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(fs.path("."), Permissions::from_mode(0o777)).unwrap();
    let path = fs.path("a");
    let arm = || fs::set_permissions(&path, Permissions::from_mode(0o6777)).unwrap();
    fs::write(&path, "x").unwrap();
    arm();
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"root")
        .unwrap();
    assert_eq!(mode(&path), 0o6777);
    assert!(as_nobody("echo more >> \"$0\"", &path));
    assert_eq!(mode(&path), 0o777);
    arm();
    assert!(as_nobody("truncate -s 1 \"$0\"", &path));
    assert_eq!(mode(&path), 0o777);
    arm();
    chown(&path, Some(1), None).unwrap();
    assert_eq!(mode(&path), 0o777);
}

type Moment = (i64, i64);

/// Sets the times of access and modification, and returns what is there then.
fn set_times(path: &Path, access: Moment, modify: Moment) -> (Moment, Moment) {
    let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(access),
        last_modification: time(modify),
    };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
    let stat = fs::metadata(path).unwrap();
    ((stat.atime(), stat.atime_nsec()), (stat.mtime(), stat.mtime_nsec()))
}

/// fuser negates the seconds of a time before 1970: with overflow checks in *its* code the first of all times ends a
/// FUSE thread, and any user may set it. The workspace's profile turns them off for fuser.
#[test]
fn the_ends_of_time_end_no_thread() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, "x").unwrap();
    let ends = ((i64::MIN, 0), (i64::MAX, 0));
    assert_eq!(set_times(&path, ends.0, ends.1), ends);
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, "x").unwrap();
    let set = |access, modify| set_times(&path, access, modify);
    let one = (1_000_000_000, 123_456_789);
    assert_eq!(set(one, (2_000_000_000, 1)), (one, (2_000_000_000, 1)));
    // 1.2 s before 1970 is -2 s and 800,000,000 ns.
    assert_eq!(set((-2, 800_000_000), (-1, 0)), ((-2, 800_000_000), (-1, 0)));
    assert_eq!(
        set((-2_000_000_000, 999_999_999), one),
        ((-2_000_000_000, 999_999_999), one)
    );
    assert_eq!(
        set((i64::from(u32::MAX) * 4, 5), (0, UTIME_OMIT)),
        ((i64::from(u32::MAX) * 4, 5), one)
    );
    let before = fs::metadata(&path).unwrap().ctime();
    let (_, now) = set((0, UTIME_OMIT), (0, UTIME_NOW));
    assert!(now.0 >= before);
}

#[test]
fn writing_changes_the_times() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, "x").unwrap();
    let before = fs::metadata(&path).unwrap();
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"y")
        .unwrap();
    let after = fs::metadata(&path).unwrap();
    assert!((after.mtime(), after.mtime_nsec()) > (before.mtime(), before.mtime_nsec()));
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    assert_eq!((after.len(), after.nlink()), (2, 1));
}

#[test]
fn the_space_is_shown() {
    let fs = Fixture::new();
    let stat = statvfs(fs.path(".")).unwrap();
    assert_eq!(
        (stat.f_frsize, stat.f_blocks, stat.f_bavail, stat.f_namemax),
        (4096, 1 << 20, 1 << 18, 255)
    );
}
