//! Classes on a real cluster: each line of docs/semantics.md about them, and that a failover keeps them.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::classes::{CLASSES, directory_of};
use common::disks::Disks;
use common::{Held, PATIENCE, Pending, assert_same, content, lab, ready, start, wait_other, write};
use holdfast_tests::lab::{LabOptions, Node};
use rustix::fs::lgetxattr;

const MIB: usize = 1 << 20;
/// Long enough for anything that isn't held.
const SOON: Duration = Duration::from_secs(3);

fn attribute(path: &Path, name: &str) -> io::Result<String> {
    let mut value = [0; 100];
    let len = lgetxattr(path, name, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}

fn class(path: &Path) -> String {
    attribute(path, "holdfast.class").unwrap()
}

fn seal(path: &Path) -> Option<String> {
    attribute(path, "holdfast.seal").ok()
}

/// The seal follows the last close.
fn assert_sealed(path: &Path, bytes: &[u8]) {
    let expected = blake3::hash(bytes).to_hex().to_string();
    let sealed = holdfast_tests::clock::wait_for("a seal", PATIENCE, || {
        Ok((seal(path).as_ref() == Some(&expected)).then_some(()))
    });
    sealed.unwrap_or_else(|error| panic!("{error:#}: {:?}, not {expected}", seal(path)));
}

/// A directory of each class, of the same name.
fn directories(active: &Node) {
    for class in CLASSES {
        directory_of(class, &active.mnt());
    }
}

/// close(2) with its outcome, which dropping a file doesn't tell.
fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor was given up by its owner just now, and is closed here once.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn write_and_close(path: PathBuf) -> Pending<io::Result<()>> {
    start(move || {
        let mut file = File::create(path)?;
        file.write_all(b"x")?;
        close(file)
    })
}

/// In a process of its own: whatever this one starts meanwhile would close its copies of the descriptors first, and
/// wait for that.
fn write_and_sync(path: PathBuf) -> Pending<bool> {
    start(move || {
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=1", "count=1", "conv=fsync"]);
        let output = command.arg(format!("of={}", path.display())).output();
        output.is_ok_and(|output| output.status.success())
    })
}

/// With the peers stopped, only what waits for no peer returns while the lease runs.
#[test]
fn only_sequenced_classes_return_what_no_other_node_has() {
    let lab = lab(LabOptions::default().set("mount.request_deadline_ms", 6000));
    let active = ready(&lab);
    directories(&active);
    let files = CLASSES.map(|class| Held::new(File::create(active.mnt().join(class).join("a")).unwrap()));
    for standby in lab.others(active.name()) {
        standby.pause().unwrap();
    }
    let pending = files.each_ref().map(|file| file.write_at(b"here alone", 0));
    for (class, pending) in CLASSES.iter().zip(&pending) {
        let sequenced = ["database", "logs", "prompts"].contains(class);
        // Some of the lease is left for certain; a loaded machine may use that up.
        let outcome = pending.within(Duration::from_millis(if sequenced { 700 } else { 100 }));
        if sequenced {
            assert!(matches!(outcome, Some(Ok(_))), "{class}: {outcome:?}");
        } else {
            assert!(outcome.is_none(), "{class} returned what no other node has");
        }
    }
    // Nor do these run ahead without a bound: of more than 4 MiB, no second node having any, the rest waits.
    static MUCH: [u8; 6 * MIB] = [b'm'; 6 * MIB];
    let much = files[1].write_at(&MUCH, 0).within(Duration::from_millis(400));
    assert!(much.is_none(), "6 MiB that no other node has: {much:?}");
    for standby in lab.others(active.name()) {
        standby.resume().unwrap();
    }
    lab.wait_ready(PATIENCE).unwrap();
    assert_same(&lab);
}

/// With the peers' disks held, what waits for a second disk doesn't return; all else does.
#[test]
fn closing_and_writing_wait_for_disks_where_the_class_says_so() {
    let disks = Disks::ext4([900; 3]);
    let lab = lab(disks.options().set("mount.request_deadline_ms", 20_000));
    let active = ready(&lab);
    directories(&active);
    let held = |class: &str| Held::new(File::create(active.mnt().join(class).join("held")).unwrap());
    let logs = [held("logs"), held("logs")];
    let standbys: Vec<_> = lab.others(active.name()).into_iter().cloned().collect();
    let frozen = [0, 1].map(|at| disks.of(standbys[at].name()).freeze());

    let closed = CLASSES.map(|class| (class, write_and_close(active.mnt().join(class).join("closed"))));
    for (class, closed) in &closed {
        let waits = ["recordings", "prompts", "durable"].contains(class);
        let outcome = closed.within(if waits { Duration::from_millis(700) } else { SOON });
        if waits {
            assert!(outcome.is_none(), "{class}: closed with one disk: {outcome:?}");
        } else {
            assert!(matches!(outcome, Some(Ok(()))), "{class}: {outcome:?}");
        }
    }
    let synced = CLASSES.map(|class| write_and_sync(active.mnt().join(class).join("synced")));
    for (class, synced) in CLASSES.iter().zip(&synced) {
        let early = synced.within(Duration::from_millis(300));
        assert!(early.is_none(), "{class}: fsync returned with one disk: {early:?}");
    }
    // Logs run ahead of the disks by no more than a MiB; the second that has passed by now ends that, too.
    static LINES: [u8; MIB] = [b'l'; MIB];
    let first = logs[0]
        .write_at(&LINES[..MIB / 2], 0)
        .within(Duration::from_millis(700));
    assert!(first.is_none(), "logs more than a second ahead of the disks: {first:?}");
    drop(frozen);
    for (class, closed) in &closed {
        if let Some(outcome) = closed.within(PATIENCE) {
            outcome.unwrap_or_else(|error| panic!("{class}: {error}"));
        }
    }
    for synced in &synced {
        assert!(synced.within(PATIENCE).expect("fsync returns"));
    }

    // The amount alone: quicker than a second.
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let frozen = [0, 1].map(|at| disks.of(standbys[at].name()).freeze());
    let within = logs[0].write_at(&LINES[..MIB / 2], 0);
    let beyond = logs[1].write_at(&LINES[..MIB * 3 / 4], 0);
    let outcomes = [
        within.within(Duration::from_millis(900)),
        beyond.within(Duration::from_millis(1)),
    ];
    drop(frozen);
    // They began side by side, so either may be the one that is within.
    let returned = outcomes.iter().filter(|outcome| matches!(outcome, Some(Ok(_)))).count();
    assert_eq!(
        returned, 1,
        "one is within a MiB ahead of the disks, both are beyond: {outcomes:?}"
    );
    assert_same(&lab);
}

#[test]
fn classes_and_seals_outlive_their_node() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    directories(&active);
    let bytes: Vec<u8> = (0..2_000_003_u32).map(|at| (at % 253) as u8).collect();
    let call = |node: &Node| node.mnt().join("recordings/call.wav");
    let mut file = File::create(call(&active)).unwrap();
    file.write_all(&bytes).unwrap();
    // A call goes on while the node dies.
    let mut open = File::create(active.mnt().join("recordings/open.wav")).unwrap();
    open.write_all(&bytes[..64_000]).unwrap();
    let open = Held::new(open);
    close(file).unwrap();
    assert_sealed(&call(&active), &bytes);
    write(active.mnt().join("prompts/hello.wav"), bytes.clone())
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    active.kill().unwrap();
    drop(open);

    let next = wait_other(&lab, &active);
    for name in CLASSES {
        assert_eq!(class(&next.mnt().join(name)), name);
    }
    assert_eq!(seal(&call(&next)), Some(blake3::hash(&bytes).to_hex().to_string()));
    assert_eq!(content(&call(&next)), bytes);
    assert_eq!(content(&next.mnt().join("prompts/hello.wav")), bytes);
    // What was received of the call is there, and that nobody ended it can be seen.
    let open = next.mnt().join("recordings/open.wav");
    assert_eq!(content(&open), &bytes[..64_000]);
    assert_eq!(seal(&open), None);
    let file = OpenOptions::new().write(true).open(&open).unwrap();
    file.write_all_at(b"RIFF", 0).unwrap();
    close(file).unwrap();
    let mut mended = bytes[..64_000].to_vec();
    mended[..4].copy_from_slice(b"RIFF");
    assert_sealed(&open, &mended);
    assert_same(&lab);
}

/// `holdfast classes` on a node, its output, and whether it succeeded.
fn classes(lab: &holdfast_tests::lab::Lab, node: &Node, words: &[&str]) -> (String, bool) {
    let command = [&["holdfast", "classes"], words].concat();
    let output = lab.exec(node.name(), &command).unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.success())
}

#[test]
fn the_operator_sees_and_changes_classes() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let at = |name: &str| active.mnt().join(name);
    for made in [
        "postgresql/base",
        "pbx/recordings/may",
        "pbx/log",
        "archive/old/deep",
        "archive/own",
    ] {
        fs::create_dir_all(at(made)).unwrap();
    }
    fs::write(at("archive/old/deep/file"), "x").unwrap();
    for (path, expected) in [
        (".", "default"),
        ("postgresql/base", "database"),
        ("pbx", "default"),
        ("pbx/recordings/may", "recordings"),
        ("pbx/log", "logs"),
        ("archive/old/deep/file", "default"),
    ] {
        assert_eq!(class(&at(path)), expected, "{path}");
    }
    let text = |name: &str| at(name).to_str().unwrap().to_owned();
    let run = |words: &[&str]| {
        let (said, good) = classes(&lab, &active, words);
        assert!(good, "{words:?}: {said}");
        said
    };
    let refused = |words: &[&str]| {
        let (said, good) = classes(&lab, &active, words);
        assert!(!good, "{words:?}: {said}");
        said
    };
    run(&["set", "logs", &text("archive/own")]);
    let said = run(&["set", "prompts", "--all", &text("archive")]);
    assert!(said.contains("prompts"), "{said}");
    assert_eq!(class(&at("archive/old/deep/file")), "prompts");
    assert_eq!(class(&at("archive/own")), "logs", "it has one of its own");
    let all = run(&[]);
    for line in [
        "/archive: set by hand",
        "/archive/own: set by hand",
        "/postgresql: named in [classes]",
    ] {
        assert!(all.contains(line), "{line:?} isn't in\n{all}");
    }
    assert!(all.contains("/pbx/prompts: when it is made"), "{all}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(json["given"].as_array().unwrap().len(), 5, "{json:#}");
    let shown = run(&["show", &text("archive/old/deep/file")]);
    assert!(
        shown.contains("class prompts") && shown.contains("of /archive"),
        "{shown}"
    );
    run(&["clear", &text("archive"), "--all"]);
    assert_eq!(class(&at("archive/old/deep/file")), "default");
    assert!(refused(&["set", "fast", &text("archive")]).contains("one of default"));
    assert!(refused(&["set", "logs", &text("archive/old/deep/file")]).contains("belong to directories"));
    assert!(refused(&["show", "/proc"]).contains("not on a Holdfast file system"));

    // From a standby the list can be had, the files can't.
    let standby = lab.others(active.name())[0].clone();
    let (said, good) = classes(&lab, &standby, &[]);
    assert!(good && said.contains("/archive/own"), "{said}");
    let (said, good) = classes(
        &lab,
        &standby,
        &["show", standby.mnt().join("archive").to_str().unwrap()],
    );
    assert!(!good && said.contains("isn't active on this machine"), "{said}");

    // As a program that isn't root's: it may look and not touch.
    let as_nobody = |words: &[&str]| {
        let all = [
            &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"],
            words,
        ]
        .concat();
        lab.exec(active.name(), &all).unwrap()
    };
    let own = at("archive/own");
    fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let own = own.to_str().unwrap();
    let got = as_nobody(&["getfattr", "--only-values", "-n", "holdfast.class", own]);
    assert_eq!(String::from_utf8_lossy(&got.stdout), "logs");
    let set = as_nobody(&["setfattr", "-n", "holdfast.class", "-v", "default", own]);
    assert!(!set.status.success());
    assert_eq!(class(Path::new(own)), "logs");
    fs::remove_dir(own).unwrap();
    assert!(!run(&[]).contains("/archive/own"));
    assert_same(&lab);
}
