//! The lab itself: it leaves nothing behind, and two of them don't disturb each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_tests::lab::{CheckVerdict, Lab, LabOptions, cluster_status, mounts, take_down::take_down};
use holdfast_tests::process::run;

const PATIENCE: Duration = Duration::from_secs(30);

fn lab() -> Lab {
    Lab::up(LabOptions::default()).expect("the lab comes up")
}

/// What of a lab can be seen on the machine.
fn traces(dir: &Path, id: &str) -> Vec<String> {
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = namespaces.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| name.contains(id)).collect();
    found.extend(
        mounts::below(dir)
            .expect("the mount table")
            .iter()
            .map(|point| point.display().to_string()),
    );
    found.extend(processes_of(dir));
    found.extend(dir.exists().then(|| dir.display().to_string()));
    found
}

/// Processes whose command line names the folder: a lab's daemons and units all do.
fn processes_of(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&*dir.to_string_lossy())).collect()
}

#[test]
fn down_leaves_nothing_behind() {
    let lab = lab();
    let (dir, id) = (lab.dir().to_owned(), lab.id().as_str().to_owned());
    let active = lab.wait_active(PATIENCE).unwrap();
    fs::write(lab.node(&active).mnt().join("file"), "content").unwrap();
    assert!(!processes_of(&dir).is_empty());
    lab.down(false).unwrap();
    assert_eq!(traces(&dir, &id), Vec::<String>::new());
}

#[test]
fn down_works_on_a_lab_in_every_bad_state() {
    let lab = lab();
    let (dir, id) = (lab.dir().to_owned(), lab.id().as_str().to_owned());
    lab.node("n1").kill().unwrap();
    lab.node("n2").pause().unwrap();
    lab.cut("n3").unwrap();
    // As if its maker had died: nobody but the folder knows of it.
    std::mem::forget(lab);
    take_down(&dir, false).unwrap();
    assert_eq!(traces(&dir, &id), Vec::<String>::new());
}

#[test]
fn down_finds_a_lab_whose_notes_are_gone() {
    let lab = lab();
    let (dir, id) = (lab.dir().to_owned(), lab.id().as_str().to_owned());
    std::mem::forget(lab);
    fs::remove_file(dir.join("lab.json")).unwrap();
    take_down(&dir, false).unwrap();
    // Without the notes nothing says that the folder was the lab's own.
    fs::remove_dir(&dir).expect("nothing is left in the folder");
    assert_eq!(traces(&dir, &id), Vec::<String>::new());
}

#[test]
fn files_of_others_in_the_folder_stay() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(folder.path().join("mine"), "kept").unwrap();
    let options = LabOptions {
        dir: Some(folder.path().to_owned()),
        ..LabOptions::default()
    };
    Lab::up(options).unwrap().down(false).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["mine"]);
}

#[test]
fn a_folder_that_is_not_a_labs_is_refused() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(folder.path().join("n1")).unwrap();
    let options = LabOptions {
        dir: Some(folder.path().to_owned()),
        ..LabOptions::default()
    };
    let error = Lab::up(options).unwrap_err();
    assert!(error.to_string().contains("isn't a lab's"), "{error:#}");
    let error = take_down(folder.path(), false).unwrap_err();
    assert!(error.to_string().contains("there is no lab"), "{error:#}");
    assert!(folder.path().join("n1").exists());
}

#[test]
fn two_labs_stand_side_by_side() {
    let (one, other) = (lab(), lab());
    let active = one.wait_active(PATIENCE).unwrap();
    fs::write(one.node(&active).mnt().join("only-here"), "1").unwrap();
    let second = other.wait_active(PATIENCE).unwrap();
    assert!(!other.node(&second).mnt().join("only-here").exists());
    one.down(false).unwrap();
    fs::write(other.node(&second).mnt().join("still-works"), "2").unwrap();
    other.wait_all_up_to_date(PATIENCE).unwrap();
    assert_eq!(other.check().unwrap().verdict, CheckVerdict::Same);
}

#[test]
fn kept_files_are_there_at_the_next_up() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = || LabOptions {
        dir: Some(folder.path().to_owned()),
        ..LabOptions::default()
    };
    let lab = Lab::up(options()).unwrap();
    let active = lab.wait_active(PATIENCE).unwrap();
    let file = fs::File::create(lab.node(&active).mnt().join("kept")).unwrap();
    file.sync_all().unwrap();
    drop(file);
    lab.down(true).unwrap();
    let lab = Lab::up(options()).unwrap();
    let active = lab.wait_active(PATIENCE).unwrap();
    assert!(lab.node(&active).mnt().join("kept").exists());
}

#[test]
fn cuts_are_silent_and_healed() {
    let lab = lab();
    let reaches = |from: &str, to: &str| {
        let address = lab.id().address(to).to_string();
        lab.exec(from, &["ping", "-q", "-c1", "-W1", &address])
            .unwrap()
            .status
            .success()
    };
    lab.cut_between("n1", "n2").unwrap();
    assert!(!reaches("n1", "n2") && !reaches("n2", "n1"));
    assert!(reaches("n1", "n3") && reaches("n3", "n2"));
    lab.cut("n3").unwrap();
    assert!(!reaches("n1", "n3"));
    assert_eq!(lab.cuts().unwrap(), ["n1:n2", "n3"]);
    lab.heal().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert!(reaches("n1", "n2") && reaches("n1", "n3"));
}

#[test]
fn paused_and_killed_processes_are_shown_as_such() {
    let lab = lab();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let states = |node: &str| -> Vec<String> {
        let view = cluster_status::with_processes(lab.nodes());
        let list = cluster_status::entry(&view, node)["processes"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.iter()
            .map(|process| process["state"].as_str().unwrap_or("?").to_owned())
            .collect()
    };
    let active = lab.wait_active(PATIENCE).unwrap();
    let standby = lab.others(&active)[0].clone();
    standby.pause().unwrap();
    assert!(states(standby.name()).iter().all(|state| state == "stopped"));
    standby.resume().unwrap();
    standby.kill().unwrap();
    assert_eq!(states(standby.name()), Vec::<String>::new());
    assert_eq!(standby.start().unwrap(), ["holdfast", "vip-agent"]);
    assert_eq!(standby.start().unwrap(), Vec::<&str>::new());
    lab.wait_all_up_to_date(PATIENCE).unwrap();
}

#[test]
fn the_command_passes_input_output_and_exit_code_through() {
    let lab = lab();
    let program = Path::new(env!("CARGO_BIN_EXE_holdfast-lab"));
    let script = "read line; echo \"got $line\"; echo \"$HOLDFAST_SOCKET\"; holdfast status --json | grep -q '\"asked\": \"n2\"' && exit 7";
    let mut command = Command::new(program);
    command
        .args(["exec", "--dir"])
        .arg(lab.dir())
        .args(["n2", "--", "bash", "-c", script]);
    let output = holdfast_tests::process::run_with_input(&mut command, b"word\n", PATIENCE).unwrap();
    let socket = lab.node("n2").files().socket();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("got word\n{}\n", socket.display())
    );
    assert_eq!(output.status.code(), Some(7));
    let again = run(Command::new(program).args(["up", "--dir"]).arg(lab.dir()), PATIENCE).unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("already up"));
}
