use crate::fixture::{Fixture, errno, eventually};
use holdfast_fuse_mount::Options;
use holdfast_replicator::api::Failure;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::time::Duration;

#[test]
fn a_name_comes_and_goes() {
    let fs = Fixture::new();
    let path = fs.path("a");
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    fs::write(&path, "hello").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
    assert_eq!(
        errno(OpenOptions::new().write(true).create_new(true).open(&path)),
        libc::EEXIST
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert_eq!(errno(fs::remove_file(&path)), libc::ENOENT);
    fs::write(&path, "again").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "again");
}

#[test]
fn a_directory_counts_its_children() {
    let fs = Fixture::new();
    fs::create_dir(fs.path("d")).unwrap();
    assert_eq!(fs::metadata(fs.path("d")).unwrap().nlink(), 2);
    fs::create_dir(fs.path("d/e")).unwrap();
    let before = fs::metadata(fs.path("d")).unwrap();
    assert_eq!((before.nlink(), before.len(), before.blksize()), (3, 4096, 4096));
    assert_eq!(errno(fs::remove_dir(fs.path("d"))), libc::ENOTEMPTY);
    fs::remove_dir(fs.path("d/e")).unwrap();
    let after = fs::metadata(fs.path("d")).unwrap();
    assert_eq!(after.nlink(), 2);
    assert!((after.mtime(), after.mtime_nsec()) > (before.mtime(), before.mtime_nsec()));
    assert_eq!(errno(fs::remove_file(fs.path("d"))), libc::EISDIR);
    fs::write(fs.path("f"), "").unwrap();
    assert_eq!(errno(fs::remove_dir(fs.path("f"))), libc::ENOTDIR);
    fs::remove_dir(fs.path("d")).unwrap();
}

#[test]
fn rename_replaces_refuses_and_exchanges() {
    let fs = Fixture::new();
    let (a, b) = (fs.path("a"), fs.path("b"));
    let rename = |flags| renameat_with(CWD, &a, CWD, &b, flags).map_err(std::io::Error::from);
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let before = fs::metadata(&a).unwrap();
    assert_eq!(errno(rename(RenameFlags::NOREPLACE)), libc::EEXIST);
    assert_eq!(errno(rename(RenameFlags::WHITEOUT)), libc::EINVAL);
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read_to_string(&a).unwrap(), fs::read_to_string(&b).unwrap()),
        ("b".into(), "a".into())
    );
    let after = fs::metadata(&b).unwrap();
    assert_eq!(after.ino(), before.ino());
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    fs::rename(&a, &b).unwrap();
    assert_eq!(fs::read_to_string(&b).unwrap(), "b");
    assert_eq!(errno(fs::metadata(&a)), libc::ENOENT);
    assert_eq!(errno(rename(RenameFlags::EXCHANGE)), libc::ENOENT);
    fs::create_dir_all(fs.path("d/e")).unwrap();
    assert_eq!(errno(fs::rename(fs.path("d"), fs.path("d/e/f"))), libc::EINVAL);
    fs::rename(fs.path("d/e"), fs.path("e")).unwrap();
    assert_eq!(fs::metadata(fs.path("d")).unwrap().nlink(), 2);
    eventually("the replaced file is reaped", || fs.backend.inodes() == 4);
}

#[test]
fn hard_and_symbolic_links() {
    let fs = Fixture::new();
    let (a, b, s) = (fs.path("a"), fs.path("b"), fs.path("s"));
    fs::write(&a, "text").unwrap();
    let before = fs::metadata(&a).unwrap();
    fs::hard_link(&a, &b).unwrap();
    let both = fs::metadata(&a).unwrap();
    assert_eq!((both.nlink(), fs::metadata(&b).unwrap().ino()), (2, before.ino()));
    assert!((both.ctime(), both.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    fs::remove_file(&a).unwrap();
    let one = fs::metadata(&b).unwrap();
    assert_eq!(one.nlink(), 1);
    assert!((one.ctime(), one.ctime_nsec()) > (both.ctime(), both.ctime_nsec()));
    symlink("b", &s).unwrap();
    assert_eq!(fs::read_link(&s).unwrap().to_str(), Some("b"));
    assert_eq!(fs::read_to_string(&s).unwrap(), "text");
    assert_eq!(fs::symlink_metadata(&s).unwrap().len(), 1);
    symlink("x".repeat(4000), fs.path("long")).unwrap();
    assert_eq!(fs::read_link(fs.path("long")).unwrap().as_os_str().len(), 4000);
    assert_eq!(errno(fs::hard_link(fs.path("."), fs.path("dir"))), libc::EPERM);
}

#[test]
fn special_files_keep_their_kind() {
    let fs = Fixture::new();
    let make = |name: &str, kind, dev| mknodat(CWD, fs.path(name), kind, Mode::from_raw_mode(0o600), dev).unwrap();
    make("pipe", FileType::Fifo, 0);
    make("socket", FileType::Socket, 0);
    make("device", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make("plain", FileType::RegularFile, 0);
    let kind = |name: &str| fs::metadata(fs.path(name)).unwrap();
    assert!(kind("pipe").file_type().is_fifo());
    assert!(kind("socket").file_type().is_socket());
    assert!(kind("device").file_type().is_char_device() && kind("device").rdev() == rustix::fs::makedev(1, 3));
    assert!(kind("plain").file_type().is_file());
    // Devices may lie there, but aren't opened (MS_NODEV).
    assert_eq!(errno(File::open(fs.path("device"))), libc::EACCES);
}

#[test]
fn names_have_a_length() {
    let fs = Fixture::new();
    let (fits, long) = ("n".repeat(255), "n".repeat(256));
    fs::write(fs.path(&fits), "").unwrap();
    assert_eq!(errno(fs::write(fs.path(&long), "")), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::metadata(fs.path(&long))), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::create_dir(fs.path(&long))), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::rename(fs.path(&fits), fs.path(&long))), libc::ENAMETOOLONG);
}

#[test]
fn an_unlinked_file_lives_while_it_is_open_and_is_reaped_after() {
    let fs = Fixture::new();
    let path = fs.path("a");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all(b" after").unwrap();
    let mut text = String::new();
    std::os::unix::fs::FileExt::read_at(&file, &mut [0; 1], 0).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before after");
    assert_eq!(fs.backend.inodes(), 2);
    drop(file);
    eventually("the file without names is reaped", || fs.backend.inodes() == 1);
}

#[test]
fn a_removed_directory_is_reaped_when_nobody_stands_in_it() {
    let fs = Fixture::new();
    fs::create_dir(fs.path("d")).unwrap();
    let open = File::open(fs.path("d")).unwrap();
    fs::remove_dir(fs.path("d")).unwrap();
    assert_eq!(
        errno(rustix::fs::mkdirat(&open, "x", Mode::RWXU).map_err(std::io::Error::from)),
        libc::ENOENT
    );
    assert_eq!(fs.backend.inodes(), 2);
    drop(open);
    eventually("the directory is reaped", || fs.backend.inodes() == 1);
}

#[test]
fn what_a_removal_in_doubt_left_behind_is_found_and_what_is_open_of_it_stays() {
    let fs = Fixture::with(Options {
        deadline: Duration::from_millis(300),
        ..Options::default()
    });
    for name in ["open", "closed", "from", "over"] {
        fs::write(fs.path(name), name).unwrap();
    }
    let open = File::open(fs.path("open")).unwrap();
    for name in ["open", "closed"] {
        fs.backend.fail_next(Failure::Deadline);
        assert_eq!(errno(fs::remove_file(fs.path(name))), libc::EIO);
    }
    fs.backend.fail_next(Failure::Deadline);
    assert_eq!(errno(fs::rename(fs.path("from"), fs.path("over"))), libc::EIO);
    eventually("the closed ones are reaped", || fs.backend.inodes() == 3);
    let mut text = String::new();
    (&open).read_to_string(&mut text).unwrap();
    assert_eq!(text, "open");
    drop(open);
    eventually("the open one, too", || fs.backend.inodes() == 2);
}

#[test]
fn a_reaping_that_failed_is_done_again() {
    let fs = Fixture::with(Options {
        deadline: Duration::from_millis(300),
        ..Options::default()
    });
    fs::write(fs.path("a"), "").unwrap();
    let open = File::open(fs.path("a")).unwrap();
    fs::remove_file(fs.path("a")).unwrap();
    fs.backend.refuse_reap();
    drop(open);
    eventually("it is reaped", || fs.backend.inodes() == 1);
}

#[test]
fn the_umask_and_modes_of_new_files_are_as_asked() {
    let fs = Fixture::new();
    let mask = fs::metadata("/proc/self")
        .map(|_| rustix::process::umask(Mode::from_raw_mode(0o027)))
        .unwrap();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(fs.path("f"));
    let dir = fs::create_dir(fs.path("d"));
    rustix::process::umask(mask);
    file.and(dir).unwrap();
    assert_eq!(fs::metadata(fs.path("f")).unwrap().mode(), libc::S_IFREG | 0o640);
    assert_eq!(fs::metadata(fs.path("d")).unwrap().mode(), libc::S_IFDIR | 0o750);
}
