//! Classes: who gets which, what each waits for, and the seals of recordings.

use crate::fixture::{Fixture, errno, eventually};
use holdfast_fuse_mount::{ClassRule, Options};
use holdfast_replicator::api::{Failure, Wait};
use holdfast_storage::class::Class;
use rustix::fs::{XattrFlags, lgetxattr, listxattr, lremovexattr, lsetxattr};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

fn get(path: &Path, name: &str) -> io::Result<String> {
    let mut value = [0; 100];
    let len = lgetxattr(path, name, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}

fn class(path: &Path) -> String {
    get(path, "holdfast.class").unwrap()
}

fn set(path: &Path, class: &str) -> io::Result<()> {
    Ok(lsetxattr(
        path,
        "holdfast.class",
        class.as_bytes(),
        XattrFlags::empty(),
    )?)
}

fn seal(path: &Path) -> Option<String> {
    match get(path, "holdfast.seal") {
        Ok(seal) => Some(seal),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ENODATA));
            None
        }
    }
}

/// The seal follows the last close.
fn assert_sealed(path: &Path, bytes: &[u8]) {
    let expected = blake3::hash(bytes).to_hex().to_string();
    eventually("the seal", || seal(path).as_ref() == Some(&expected));
}

fn ruled() -> Fixture {
    let rule = |path: &[&'static str], class| ClassRule {
        path: path.iter().map(|name| (*name).into()).collect(),
        class,
    };
    Fixture::with(Options {
        classes: [
            rule(&["db"], Class::Database),
            rule(&["pbx", "recordings"], Class::Recordings),
            rule(&["pbx", "log"], Class::Logs),
            rule(&["prompts"], Class::Prompts),
            rule(&["safe"], Class::Durable),
        ]
        .into(),
        ..Options::default()
    })
}

#[test]
fn a_new_directory_gets_the_class_of_its_path_and_hands_it_down() {
    let fs = ruled();
    for made in ["recordings", "pbx/recordings/2026", "pbx/other/recordings", "db/log"] {
        fs::create_dir_all(fs.path(made)).unwrap();
    }
    assert_eq!(class(&fs.path(".")), "default");
    assert_eq!(
        class(&fs.path("recordings")),
        "default",
        "the name alone isn't the path"
    );
    assert_eq!(class(&fs.path("pbx")), "default");
    assert_eq!(class(&fs.path("pbx/recordings")), "recordings");
    assert_eq!(class(&fs.path("pbx/recordings/2026")), "recordings");
    assert_eq!(class(&fs.path("pbx/other/recordings")), "default");
    assert_eq!(class(&fs.path("db/log")), "database");
    fs::write(fs.path("db/log/a"), "a").unwrap();
    assert_eq!(class(&fs.path("db/log/a")), "database");
    fs::rename(fs.path("db/log/a"), fs.path("pbx/a")).unwrap();
    assert_eq!(class(&fs.path("pbx/a")), "database", "a class goes where its file goes");
    fs::write(fs.path("prompts"), "a file of that name").unwrap();
    assert_eq!(class(&fs.path("prompts")), "default");
}

#[test]
fn a_class_is_changed_and_taken_away_while_files_are_in_use() {
    let fs = Fixture::new();
    fs::create_dir_all(fs.path("a/b")).unwrap();
    set(&fs.path("a"), "logs").unwrap();
    assert_eq!(
        (class(&fs.path("a")), class(&fs.path("a/b"))),
        ("logs".into(), "default".into())
    );
    lremovexattr(fs.path("a/b"), "holdfast.class").unwrap();
    assert_eq!(class(&fs.path("a/b")), "logs", "what its directory has");
    let mut file = File::create(fs.path("a/b/f")).unwrap();
    file.write_all(b"1").unwrap();
    assert_eq!(fs.backend.waits().last(), Some(&Wait::Sequenced));
    set(&fs.path("a/b/f"), "durable").unwrap();
    file.write_all(b"2").unwrap();
    assert_eq!(fs.backend.waits().last(), Some(&Wait::Committed));
    lremovexattr(fs.path("a"), "holdfast.class").unwrap();
    assert_eq!(class(&fs.path("a")), "default");
}

#[test]
fn a_class_that_there_is_not_and_a_seal_by_hand_are_refused() {
    let fs = Fixture::new();
    fs::write(fs.path("a"), "a").unwrap();
    assert_eq!(errno(set(&fs.path("a"), "quick")), libc::EINVAL);
    assert_eq!(errno(set(&fs.path("a"), "")), libc::EINVAL);
    let sealed = lsetxattr(fs.path("a"), "holdfast.seal", b"00", XattrFlags::empty());
    assert_eq!(errno(sealed.map_err(io::Error::from)), libc::EPERM);
    let mut names = [0; 100];
    assert_eq!(
        listxattr(fs.path("a"), &mut names).unwrap(),
        0,
        "neither is in the list that copying takes along"
    );
}

#[test]
fn each_class_waits_for_what_it_promises() {
    let fs = ruled();
    fs::create_dir(fs.path("pbx")).unwrap();
    for (directory, write) in [
        ("plain", Wait::Received),
        ("db", Wait::Sequenced),
        ("pbx/recordings", Wait::Received),
        ("pbx/log", Wait::Sequenced),
        ("prompts", Wait::Sequenced),
        ("safe", Wait::Committed),
    ] {
        fs::create_dir(fs.path(directory)).unwrap();
        let path = fs.path(directory).join("a");
        let mut file = File::create(&path).unwrap();
        assert_eq!(fs.backend.waits().last(), Some(&write), "a new name in {directory}");
        file.write_all(b"x").unwrap();
        assert_eq!(fs.backend.waits().last(), Some(&write), "a write in {directory}");
        file.set_len(9).unwrap();
        assert_eq!(fs.backend.waits().last(), Some(&write), "a truncation in {directory}");
        let before = fs.backend.syncs();
        file.sync_all().unwrap();
        assert!(fs.backend.syncs() > before, "fsync in {directory}");
        drop(file);
        fs::remove_file(path).unwrap();
        assert_eq!(fs.backend.wait_of_removal(), Some(write), "a removal in {directory}");
    }
    // Between two directories the one that promises more counts.
    fs::write(fs.path("db/a"), "x").unwrap();
    fs::rename(fs.path("db/a"), fs.path("safe/a")).unwrap();
    assert_eq!(fs.backend.waits().last(), Some(&Wait::Committed));
}

#[test]
fn closing_waits_where_the_class_says_so() {
    let fs = ruled();
    fs::create_dir(fs.path("pbx")).unwrap();
    for (directory, syncs) in [("plain", 0), ("db", 0), ("pbx/log", 0), ("prompts", 1), ("safe", 0)] {
        fs::create_dir(fs.path(directory)).unwrap();
        let before = fs.backend.syncs();
        fs::write(fs.path(directory).join("a"), "x").unwrap();
        // A program that another test starts at this moment closes copies of this test's descriptors, too.
        let waited = fs.backend.syncs() - before;
        assert_eq!(waited > 0, syncs > 0, "{directory}");
        fs::read(fs.path(directory).join("a")).unwrap();
        assert_eq!(fs.backend.syncs() - before, waited, "who only reads waits for nothing");
    }
}

fn recordings() -> Fixture {
    let fs = ruled();
    fs::create_dir_all(fs.path("pbx/recordings")).unwrap();
    fs
}

#[test]
fn a_recording_is_sealed_when_its_last_writer_has_closed_it() {
    let fs = recordings();
    let path = fs.path("pbx/recordings/call.wav");
    let mut bytes: Vec<u8> = (0..3_000_001_u32).map(|at| (at % 251) as u8).collect();
    let mut file = File::create(&path).unwrap();
    for chunk in bytes.chunks(3200) {
        file.write_all(chunk).unwrap();
    }
    // As a recorder does at the end: the length into the header.
    bytes[4..8].copy_from_slice(b"SIZE");
    file.write_all_at(b"SIZE", 4).unwrap();
    let second = OpenOptions::new().append(true).open(&path).unwrap();
    drop(file);
    // Seals are made in the order of closing, and the kernel tells of this file's closing before the other's.
    fs::write(fs.path("pbx/recordings/other"), "o").unwrap();
    assert_sealed(&fs.path("pbx/recordings/other"), b"o");
    assert_eq!(seal(&path), None, "somebody may still write");
    let times = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
    };
    let before = times(&path);
    drop(second);
    assert_sealed(&path, &bytes);
    assert_eq!(times(&path), before, "a seal is no change");

    fs::rename(&path, fs.path("pbx/recordings/kept.wav")).unwrap();
    let path = fs.path("pbx/recordings/kept.wav");
    assert_sealed(&path, &bytes);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(seal(&path), None, "a changed byte breaks it");
    drop(file);
    bytes[0] = b'x';
    assert_sealed(&path, &bytes);
    fs::write(&path, "").unwrap();
    assert_sealed(&path, b"");
}

#[test]
fn what_a_mapping_writes_after_the_file_was_closed_is_sealed_at_its_end() {
    let fs = recordings();
    let path = fs.path("pbx/recordings/mapped");
    fs::write(&path, [0; 8192]).unwrap();
    assert_sealed(&path, &[0; 8192]);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // SAFETY: a fresh mapping of 8192 bytes of a file that is so long; it is written inside and unmapped once.
    unsafe {
        let map = mmap(
            std::ptr::null_mut(),
            8192,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )
        .unwrap();
        drop(file);
        map.cast::<u8>().add(5000).write(7);
        munmap(map, 8192).unwrap();
    }
    let mut expected = [0; 8192];
    expected[5000] = 7;
    assert_sealed(&path, &expected);
}

#[test]
fn many_recordings_end_at_once_and_each_has_its_seal() {
    let fs = recordings();
    std::thread::scope(|threads| {
        for number in 0..16_u8 {
            let path = fs.path(&format!("pbx/recordings/{number}"));
            threads.spawn(move || {
                let bytes = vec![number; 1_000_000 + usize::from(number) * 100_000];
                fs::write(&path, &bytes).unwrap();
                assert_sealed(&path, &bytes);
                // A change of owner or mode breaks no seal, neither before nor after it is there.
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                assert!(seal(&path).is_some());
            });
        }
    });
}

#[test]
fn a_close_that_cannot_be_known_to_be_durable_says_so() {
    let fs = ruled();
    fs::create_dir(fs.path("prompts")).unwrap();
    let mut file = File::create(fs.path("prompts/a")).unwrap();
    file.write_all(b"x").unwrap();
    fs.backend.fail_syncs(Failure::Deadline);
    let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
    // SAFETY: the descriptor was given up by its owner just now, and is closed here once.
    let closed = unsafe { libc::close(fd) };
    assert_eq!(
        (closed, io::Error::last_os_error().raw_os_error()),
        (-1, Some(libc::EIO))
    );
}

#[test]
fn a_recording_whose_writer_forks_is_not_sealed_before_its_end() {
    let fs = recordings();
    let path = fs.path("pbx/recordings/a");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"one").unwrap();
    // The child closes its copy of the descriptor when it becomes another program.
    assert!(std::process::Command::new("true").status().unwrap().success());
    // What the thread that seals does comes in order: another file's seal says that its turn has passed.
    fs::write(fs.path("pbx/recordings/b"), "b").unwrap();
    assert_sealed(&fs.path("pbx/recordings/b"), b"b");
    assert_eq!(seal(&path), None);
    file.write_all(b"two").unwrap();
    drop(file);
    assert_sealed(&path, b"onetwo");
}

#[test]
fn an_unlinked_recording_is_closed_without_a_seal() {
    let fs = recordings();
    let path = fs.path("pbx/recordings/a");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"x").unwrap();
    fs::remove_file(&path).unwrap();
    drop(file);
    assert!(!path.exists());
}
