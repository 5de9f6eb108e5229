use crate::fixture::{Fixture, errno, eventually, folder, open_folder};
use crate::memory::{Memory, now_ms};
use holdfast_fuse_mount::{Backend, MountError, Mounted, Options};
use holdfast_replicator::api::Failure;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[test]
fn without_a_lease_nothing_is_answered_until_it_is_back() {
    let fs = Fixture::new();
    fs::write(fs.path("a"), "x").unwrap();
    fs.backend.suspend();
    let (read, write) = (fs.path("other"), fs.path("new"));
    let reader = thread::spawn(move || errno(fs::metadata(read)));
    let writer = thread::spawn(move || File::create(write).and_then(|mut file| file.write_all(b"y")));
    eventually("both are held", || fs.backend.held() >= 2);
    assert!(!reader.is_finished() && !writer.is_finished());
    fs.backend.resume();
    assert_eq!(reader.join().unwrap(), libc::ENOENT);
    writer.join().unwrap().unwrap();
    assert_eq!(fs::read_to_string(fs.path("new")).unwrap(), "y");
}

#[test]
fn every_request_ends_by_its_deadline() {
    let fs = Fixture::with(Options {
        deadline: Duration::from_millis(500),
        ..Options::default()
    });
    let file = File::create(fs.path("a")).unwrap();
    fs.backend.suspend();
    let start = now_ms();
    assert_eq!(errno(File::create(fs.path("b"))), libc::EIO);
    assert_eq!(errno(fs::metadata(fs.path("c"))), libc::EIO);
    assert_eq!(errno(file.sync_all()), libc::EIO);
    let took = now_ms() - start;
    assert!((1000..4000).contains(&took), "{took} ms");
    fs.backend.resume();
}

#[test]
fn aborting_frees_a_hanging_reader_at_once() {
    let mut fs = Fixture::new();
    fs::write(fs.path("a"), "x").unwrap();
    fs.backend.suspend();
    let path = fs.path("hanging");
    let reader = thread::spawn(move || errno(fs::metadata(path)));
    eventually("the reader hangs", || fs.backend.held() == 1);
    let start = now_ms();
    fs.mounted.take().unwrap().end();
    let error = reader.join().unwrap();
    assert!(now_ms() - start < 1000);
    assert!(
        [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO].contains(&error),
        "{error}"
    );
    assert!(
        fs::read_dir(fs.path(".")).unwrap().next().is_none(),
        "the bare directory is there again"
    );
}

#[test]
fn after_an_unknown_outcome_the_kernel_asks_again() {
    let fs = Fixture::new();
    let path = fs.path("a");
    // A name that the kernel takes for missing, and which is there all the same.
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    fs.backend.fail_next(Failure::Deadline);
    assert_eq!(errno(fs::create_dir(&path)), libc::EIO);
    eventually("the directory shows", || {
        fs::metadata(&path).is_ok_and(|stat| stat.is_dir())
    });
    // Attributes that it takes for unchanged.
    let file = File::create(fs.path("f")).unwrap();
    fs.backend.fail_next(Failure::Deadline);
    assert_eq!(errno(file.set_len(77)), libc::EIO);
    eventually("the size shows", || fs::metadata(fs.path("f")).unwrap().len() == 77);
    // A name that it takes for present.
    fs.backend.fail_next(Failure::Deadline);
    assert_eq!(errno(fs::remove_dir(&path)), libc::EIO);
    eventually("the directory has gone", || fs::metadata(&path).is_err());
}

#[test]
fn a_change_that_was_not_taken_says_try_again() {
    let fs = Fixture::new();
    fs.backend.fail_next(Failure::NotActive);
    assert_eq!(errno(fs::create_dir(fs.path("a"))), libc::EAGAIN);
}

#[test]
fn orphans_of_an_earlier_mount_are_reaped() {
    let fs = Fixture::new();
    let file = File::create(fs.path("a")).unwrap();
    fs::remove_file(fs.path("a")).unwrap();
    let backend = fs.backend.clone();
    drop(fs);
    drop(file);
    assert_eq!(backend.orphans().unwrap().len(), 1);
    let folder = folder();
    let mounted = Mounted::active(
        &folder.path().join("mnt"),
        Arc::new(backend.clone()),
        Options::default(),
    )
    .unwrap();
    eventually("the orphan is reaped", || backend.orphans().unwrap().is_empty());
    mounted.end();
    open_folder(&folder.path().join("mnt"));
}

#[test]
fn the_directory_underneath_is_closed_while_nothing_is_mounted() {
    let mut fs = Fixture::new();
    let point = fs.path(".");
    fs::write(fs.path("a"), "x").unwrap();
    fs.mounted.take().unwrap().end();
    assert_eq!(fs::metadata(&point).unwrap().mode() & 0o7777, 0);
    assert_eq!(errno(fs::write(point.join("underneath"), "x")), libc::EPERM);
    // And the next mount takes it as it is.
    fs.mounted = Some(Mounted::active(&point, Arc::new(fs.backend.clone()), Options::default()).unwrap());
    assert_eq!(fs::read_to_string(fs.path("a")).unwrap(), "x");
}

fn refused(path: &std::path::Path) -> MountError {
    match Mounted::active(path, Arc::new(Memory::new()), Options::default()) {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error,
    }
}

#[test]
fn a_bad_mount_point_is_refused_and_left_alone() {
    let folder = folder();
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("precious"), "x").unwrap();
    assert!(refused(&full).to_string().contains("precious"));
    fs::write(full.join("more"), "x").unwrap();
    assert!(matches!(
        refused(&full.join("precious")),
        MountError::NotDirectory { .. }
    ));

    let fs = Fixture::new();
    let error = refused(&fs.path("."));
    assert!(matches!(error, MountError::InUse { .. }), "{error}");
    assert!(fs.mounted.as_ref().unwrap().is_alive());
    fs.backend.suspend();
    assert!(refused(&fs.path(".")).to_string().contains("has not answered"));
}

#[test]
fn a_mount_that_a_dead_daemon_left_is_replaced() {
    let mut fs = Fixture::new();
    let mounted = fs.mounted.take().unwrap();
    let number = mounted.connection().to_string();
    // What the kernel does when the last holder of the device dies.
    fs::write(
        std::path::Path::new("/sys/fs/fuse/connections")
            .join(number)
            .join("abort"),
        "1",
    )
    .unwrap();
    eventually("the session ends", || !mounted.is_alive());
    std::mem::forget(mounted);
    assert_eq!(errno(fs::metadata(fs.path("."))), libc::ENOTCONN);
    fs.mounted = Some(Mounted::active(&fs.path("."), Arc::new(fs.backend.clone()), Options::default()).unwrap());
    assert!(fs::metadata(fs.path(".")).unwrap().is_dir());
    fs.mounted.take().unwrap().end();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(fs.folder.path().to_str().unwrap()), "no mount is left");
}

#[test]
fn unmounting_from_outside_is_noticed() {
    let fs = Fixture::new();
    rustix::mount::unmount(fs.path("."), rustix::mount::UnmountFlags::empty())
        .map_err(io::Error::from)
        .unwrap();
    eventually("the mount is known to be gone", || {
        !fs.mounted.as_ref().unwrap().is_alive()
    });
}
