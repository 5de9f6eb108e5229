//! `holdfast import`: a tree with everything that a file system can hold comes in as it is, through changes,
//! interruptions and a failover; and what can't be done is said before anything is.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::disks::{Disks, command};
use common::{PATIENCE, assert_same, lab, ready, wait_other};
use holdfast_tests::clock::{pause, wait_for};
use holdfast_tests::lab::options::find_binaries;
use holdfast_tests::lab::{Lab, LabOptions, Node};
use rustix::fs::{SeekFrom, XattrFlags, lgetxattr, lsetxattr, seek};
use tempfile::TempDir;

fn folder() -> TempDir {
    // Where extended attributes, ACLs and holes are: /tmp may have none of them.
    tempfile::Builder::new()
        .prefix("holdfast-import-")
        .tempdir_in("/var/tmp")
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Everything that can be in a tree.
fn tree(source: &Path) {
    let at = |name: &str| source.join(name);
    for directory in ["postgresql/base/1", "pbx/recordings/2026", "pbx/log", "empty", "odd"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    for number in 0..300 {
        fs::write(
            at("postgresql/base/1").join(number.to_string()),
            bytes(number * 37, number as u64),
        )
        .unwrap();
    }
    fs::write(at("pbx/recordings/2026/call.wav"), bytes(9_000_001, 1)).unwrap();
    fs::write(at("pbx/log/day"), "a line\n").unwrap();
    fs::write(at("nothing"), "").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(3 << 30).unwrap();
    sparse.write_all_at(&bytes(10_000, 2), 1 << 30).unwrap();
    sparse.write_all_at(b"end", (3 << 30) - 3).unwrap();
    fs::hard_link(at("pbx/recordings/2026/call.wav"), at("odd/the same call")).unwrap();
    fs::hard_link(at("nothing"), at("empty/nothing")).unwrap();
    symlink("../nowhere/at all", at("odd/dangling")).unwrap();
    symlink("/etc/hostname", at("odd/absolute")).unwrap();
    fs::write(source.join("odd").join(OsStr::from_bytes(b"new\nline \xff\xfe")), "odd").unwrap();
    drop(UnixListener::bind(at("odd/socket")).unwrap());
    command(&["mkfifo", text(&at("odd/pipe"))]);
    command(&["mknod", text(&at("odd/null")), "c", "1", "3"]);
    command(&["chown", "-R", "1234:2345", text(&at("postgresql"))]);
    command(&["chown", "-h", "77:88", text(&at("odd/dangling"))]);
    fs::set_permissions(at("postgresql"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(at("pbx"), PermissionsExt::from_mode(0o3775)).unwrap();
    fs::set_permissions(at("pbx/log/day"), PermissionsExt::from_mode(0o4711)).unwrap();
    fs::set_permissions(at("nothing"), PermissionsExt::from_mode(0o000)).unwrap();
    command(&["setfacl", "-m", "u:1234:rwx,g:99:r-x,m::rw", text(&at("pbx/log/day"))]);
    command(&["setfacl", "-d", "-m", "u:1234:rwx", text(&at("pbx/log"))]);
    for (name, value) in [
        ("user.note", "for the file"),
        ("trusted.t", "only root's"),
        ("security.s", "x"),
    ] {
        lsetxattr(at("pbx/log/day"), name, value.as_bytes(), XattrFlags::empty()).unwrap();
        lsetxattr(at("pbx/log"), name, value.as_bytes(), XattrFlags::empty()).unwrap();
    }
    for (path, time) in [
        ("nothing", "1969-12-31 23:00:00.123456789 UTC"),
        ("postgresql/base", "2001-02-03 04:05:06.000000001 UTC"),
        ("odd/dangling", "2011-11-11 11:11:11.5 UTC"),
        ("pbx/recordings/2026/call.wav", "2026-01-01 00:00:00.999999999 UTC"),
    ] {
        command(&["touch", "-h", "-d", time, text(&at(path))]);
    }
    command(&["chmod", "750", text(source)]);
    // A file that was written just now could be written again without its time showing it.
    command(&[
        "find",
        text(source),
        "-newermt",
        "-1 hour",
        "-exec",
        "touch",
        "-h",
        "-d",
        "-1 day",
        "{}",
        "+",
    ]);
}

/// What rsync would still change: nothing.
fn assert_as_in(source: &Path, mount: &Path) {
    let said = command(&[
        "rsync",
        "-aHAXn",
        "--checksum",
        "--delete",
        // To the nanosecond.
        "--modify-window=-1",
        "--itemize-changes",
        &format!("{}/", text(source)),
        &format!("{}/", text(mount)),
    ]);
    assert_eq!(said, "", "rsync would change the copy of {}", source.display());
    // Names that are one file in the copy and not in the source, it doesn't see.
    let groups = |top: &Path| {
        let said = command(&["find", text(top), "-type", "f", "-printf", "%P:%n\\n"]);
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(groups(source), groups(mount), "names and links");
}

fn import(lab: &Lab, node: &Node, words: &[&str]) -> (Option<i32>, String) {
    let output: Output = lab
        .exec(node.name(), &[&["holdfast", "import"], words].concat())
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code(), said)
}

fn imported(lab: &Lab, node: &Node, words: &[&str]) -> String {
    let (code, said) = import(lab, node, words);
    assert_eq!(code, Some(0), "{words:?}: {said}");
    said
}

/// Writes on and on to a file, as a PBX does.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            while !until.load(Ordering::SeqCst) {
                file.write_all(b"another line of the log\n").unwrap();
                pause(std::time::Duration::from_millis(1));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.thread.take().unwrap().join());
    }
}

#[test]
fn a_tree_comes_in_as_it_is_while_it_is_in_use_and_at_its_end() {
    let source = folder();
    let source = source.path();
    tree(source);
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let mount = active.mnt();

    let writer = Writer::start(source.join("pbx/log/live"));
    let said = imported_or_changing(&lab, &active, text(source));
    assert!(said.contains("pbx/log/live") && said.contains("--final"), "{said}");
    // With somebody writing it can't be final.
    let (code, said) = import(&lab, &active, &[text(source), "--final"]);
    assert!(code == Some(1) && said.contains("Stop the PBX"), "{code:?} {said}");
    drop(writer);

    // Between the passes: grown, shrunk, changed in the middle, punched, renamed, removed, become something else.
    let at = |name: &str| source.join(name);
    let call = OpenOptions::new()
        .write(true)
        .open(at("pbx/recordings/2026/call.wav"))
        .unwrap();
    call.write_all_at(b"in the middle", 5_000_000).unwrap();
    drop(call);
    let sparse = OpenOptions::new().write(true).open(at("sparse")).unwrap();
    command(&[
        "fallocate",
        "--punch-hole",
        "-o",
        "1073741824",
        "-l",
        "8192",
        text(&at("sparse")),
    ]);
    sparse.write_all_at(b"new", 5000).unwrap();
    sparse.set_len(2 << 30).unwrap();
    drop(sparse);
    fs::rename(at("postgresql/base/1/17"), at("postgresql/base/1/seventeen")).unwrap();
    fs::remove_dir_all(at("empty")).unwrap();
    fs::write(at("empty"), "a file now").unwrap();
    fs::remove_file(at("odd/dangling")).unwrap();
    fs::create_dir(at("odd/dangling")).unwrap();
    fs::remove_file(at("odd/the same call")).unwrap();
    fs::write(at("odd/the same call"), "another one").unwrap();
    command(&["setfacl", "-b", text(&at("pbx/log/day"))]);
    lsetxattr(at("pbx/log/day"), "user.note", b"changed", XattrFlags::empty()).unwrap();
    command(&["chown", "5:6", text(&at("postgresql/base/1/20"))]);
    // A change of content that neither size nor time show: found by --thorough alone.
    let time = fs::metadata(at("postgresql/base/1/200")).unwrap().modified().unwrap();
    let hidden = OpenOptions::new()
        .write(true)
        .open(at("postgresql/base/1/200"))
        .unwrap();
    hidden.write_all_at(b"hidden", 100).unwrap();
    hidden.set_modified(time).unwrap();
    drop(hidden);
    // What changes as the pass begins counts as changed beside it.
    pause(std::time::Duration::from_millis(50));

    let said = imported(&lab, &active, &[text(source), "--final", "--thorough"]);
    assert!(said.contains("Everything is as in the source"), "{said}");
    assert_as_in(source, &mount);
    let copy = File::open(mount.join("sparse")).unwrap();
    assert_eq!(
        seek(&copy, SeekFrom::Data(8192)),
        Ok((1 << 30) + 8192),
        "holes stay holes"
    );
    let mut class = [0; 32];
    let len = lgetxattr(mount.join("postgresql/base"), "holdfast.class", &mut class).unwrap();
    assert_eq!(&class[..len], b"database", "the configuration's classes are given");
    assert_same(&lab);

    let (code, said) = import(&lab, &active, &[text(source)]);
    assert!(
        code == Some(1) && said.contains("isn't empty"),
        "it is the PBX's now: {said}"
    );
}

/// A pass beside a writer: one file or another is changing.
fn imported_or_changing(lab: &Lab, node: &Node, source: &str) -> String {
    let (code, said) = import(lab, node, &[source]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("changed while they were copied"), "{said}");
    said
}

#[test]
fn an_import_goes_on_where_it_was_killed_and_on_another_node() {
    let source = folder();
    let source = source.path();
    for directory in 0..10 {
        let directory = source.join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for number in 0..60 {
            fs::write(directory.join(number.to_string()), bytes(100_000, number)).unwrap();
        }
    }
    command(&["find", text(source), "-exec", "touch", "-d", "-1 day", "{}", "+"]);
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    // Outside of the node, whose death it is to outlive.
    let begin = |node: &Node| {
        let mut command = Command::new(find_binaries(None).unwrap().join("holdfast"));
        command.args(["import", text(source), "--socket", text(&node.files().socket())]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let some_are_there = |node: &Node, most: usize| {
        let there = wait_for("files to come in", PATIENCE, || {
            let count = (0..10)
                .filter_map(|at| fs::read_dir(node.mnt().join(format!("d{at}"))).ok())
                .map(Iterator::count)
                .sum::<usize>();
            Ok((count > most).then_some(()))
        });
        there.unwrap();
    };
    let mut killed = begin(&active);
    some_are_there(&active, 100);
    killed.kill().unwrap();
    killed.wait().unwrap();

    let ended = begin(&active);
    some_are_there(&active, 200);
    active.kill().unwrap();
    let output = ended.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("call this once more"), "{said}");

    let next = wait_other(&lab, &active);
    let said = imported(&lab, &next, &[text(source), "--final"]);
    assert!(said.contains("Everything is as in the source"), "{said}");
    assert!(
        !said.contains(" 0 unchanged"),
        "what was there was copied again: {said}"
    );
    assert_as_in(source, &next.mnt());
    assert_same(&lab);
}

#[test]
fn what_there_is_no_room_for_is_not_begun() {
    let source = folder();
    let huge = source.path().join("huge");
    command(&["fallocate", "-l", "600M", text(&huge)]);
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options());
    let active = ready(&lab);
    let (code, said) = import(&lab, &active, &[text(source.path())]);
    assert!(code == Some(1) && said.contains("nothing was done"), "{said}");
    assert_eq!(fs::read_dir(active.mnt()).unwrap().count(), 0);
    // Holes need no room.
    command(&["fallocate", "--punch-hole", "-o", "0", "-l", "600M", text(&huge)]);
    imported(&lab, &active, &[text(source.path()), "--final"]);
    assert_as_in(source.path(), &active.mnt());
}

#[test]
fn what_cannot_be_imported_is_said_before_anything_is_done() {
    let source = folder();
    let other = folder();
    fs::write(source.path().join("a"), "a").unwrap();
    command(&["touch", "-d", "-1 day", text(&source.path().join("a"))]);
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let refused = |node: &Node, words: &[&str], why: &str| {
        let (code, said) = import(&lab, node, words);
        assert!(code == Some(1) && said.contains(why), "{words:?}: {code:?} {said}");
    };
    let mount = active.mnt();
    refused(&active, &["/no/such/place"], "reading the directory /no/such/place");
    refused(&active, &[text(&source.path().join("a"))], "reading the directory");
    refused(&active, &["/"], "contain each other");
    refused(&active, &[text(lab.dir())], "contain each other");
    refused(&active, &[text(&mount)], "contain each other");
    refused(
        &active,
        &[text(source.path()), "--into", "../elsewhere"],
        "not a directory below the mount",
    );
    fs::write(mount.join("mine"), "mine").unwrap();
    refused(&active, &[text(source.path())], "isn't empty");
    assert_eq!(fs::read(mount.join("mine")).unwrap(), b"mine");
    let standby = lab.others(active.name())[0].clone();
    refused(
        &standby,
        &[text(source.path())],
        &format!("call it on {}", active.name()),
    );

    imported(&lab, &active, &[text(source.path()), "--into", "part"]);
    refused(&active, &[text(other.path()), "--into", "part"], "was begun in");
    imported(&lab, &active, &[text(source.path()), "--into", "part", "--final"]);
    assert_as_in(source.path(), &mount.join("part"));

    // A volume that isn't mounted, on the same path; one that is gone from inside; a part while the whole is under way.
    let volume = source.path().join("volume");
    fs::create_dir(&volume).unwrap();
    command(&["mount", "-t", "tmpfs", "none", text(&volume)]);
    fs::write(volume.join("kept"), "kept").unwrap();
    let recent = import(&lab, &active, &[text(source.path()), "--into", "whole"]);
    command(&["umount", text(&volume)]);
    assert!(recent.1.contains("another file system is mounted here"), "{}", recent.1);
    refused(
        &active,
        &[text(source.path()), "--into", "whole", "--final"],
        "mount it and call this once more",
    );
    refused(
        &active,
        &[text(other.path()), "--into", "whole/part"],
        "above it isn't finished",
    );
    assert_eq!(fs::read(mount.join("whole/volume/kept")).unwrap(), b"kept");
    fs::remove_dir(&volume).unwrap();
    let moved = source.path().with_extension("moved");
    fs::rename(source.path(), &moved).unwrap();
    fs::create_dir(source.path()).unwrap();
    refused(
        &active,
        &[text(source.path()), "--into", "whole", "--final"],
        "was begun in",
    );
    fs::remove_dir(source.path()).unwrap();
    fs::rename(&moved, source.path()).unwrap();
    assert_eq!(fs::read(mount.join("whole/a")).unwrap(), b"a");
    fs::remove_file(source.path().join("a")).unwrap();
    refused(
        &active,
        &[text(source.path()), "--into", "whole", "--final"],
        "is its volume mounted?",
    );
    // Nor with what `mkfs` makes; and what is mounted inside the copy isn't the copy's, however deep.
    fs::create_dir(source.path().join("lost+found")).unwrap();
    refused(
        &active,
        &[text(source.path()), "--into", "whole", "--final"],
        "is its volume mounted?",
    );
    fs::write(source.path().join("b"), "b").unwrap();
    let deep = mount.join("whole/gone/deep");
    fs::create_dir_all(&deep).unwrap();
    command(&["mount", "-t", "tmpfs", "none", text(&deep)]);
    fs::write(deep.join("archive"), "kept").unwrap();
    let (code, said) = import(&lab, &active, &[text(source.path()), "--into", "whole"]);
    let kept = fs::read(deep.join("archive"));
    command(&["umount", text(&deep)]);
    // The earlier volume's mark may be met first: either way nothing of it goes.
    assert!(code == Some(1) && said.contains("mounted"), "{said}");
    assert_eq!(kept.unwrap(), b"kept");
    // The mount by another name.
    let again = other.path().join("again");
    fs::create_dir(&again).unwrap();
    command(&["mount", "--bind", text(&mount), text(&again)]);
    let (code, said) = import(&lab, &active, &[text(other.path()), "--into", "loop"]);
    command(&["umount", text(&again)]);
    assert!(code == Some(1) && said.contains("the mount itself"), "{said}");
    assert_same(&lab);
}
