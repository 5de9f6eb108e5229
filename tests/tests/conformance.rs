//! What system calls answer on the mount and on a local file system: line by line the same.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{assert_same, lab, ready, seconds, start};
use holdfast_tests::lab::LabOptions;
use holdfast_tests::process::run_ok;

const CALLS: &str = include_str!("conformance/calls.py");

/// What the kernel's protocol (FUSE_HANDLE_KILLPRIV_V2) leaves out: S_ISGID where the group may not execute, which isn't
/// a set-id bit but a mark for mandatory locks, which Linux no longer has.
const DIFFERENT: &[&str] = &[
    "set_id_bits: 2767 written by another:",
    "set_id_bits: 2767 truncated by another:",
    "set_id_bits: 2767 opened with O_TRUNC:",
];

fn calls(folder: PathBuf) -> Vec<String> {
    let done = start(move || {
        let mut command = Command::new("python3");
        run_ok(command.args(["-c", CALLS]).arg(folder), seconds(120))
    });
    let said = done.within(seconds(130)).expect("the calls end");
    let said = said.unwrap_or_else(|error| panic!("{error:#}"));
    said.lines().map(str::to_owned).collect()
}

fn fresh(inside: &Path) -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("conformance-")
        .tempdir_in(inside)
        .unwrap();
    // The calls of other users come through it.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn system_calls_answer_as_on_a_local_file_system() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let here = fresh(&active.mnt());
    let there = fresh(Path::new("/var/tmp"));
    let (here, there) = (calls(here.path().to_owned()), calls(there.path().to_owned()));
    let differ: Vec<String> = here
        .iter()
        .zip(&there)
        .filter(|(here, there)| here != there)
        .filter(|(here, _)| !DIFFERENT.iter().any(|known| here.starts_with(known)))
        .map(|(here, there)| format!("mount: {here}\nlocal: {there}"))
        .collect();
    assert!(
        differ.is_empty(),
        "{} lines differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
    assert_eq!(here.len(), there.len());
    assert!(here.len() > 250, "only {} lines", here.len());
    assert_same(&lab);
}
