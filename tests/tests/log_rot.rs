//! A node whose log can't be read where a peer needs it.

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{PATIENCE, apart::apart, assert_same, lab, ready, seconds, wait_logged};
use holdfast_tests::lab::LabOptions;

const MIB: usize = 1 << 20;
/// Stands at the beginning of each MiB.
const MARK: &[u8] = b"what a peer lacks, once in each MiB";

/// Enough that the active node's memory no longer has the first of it.
const MIBS: usize = 64;

fn write(path: PathBuf) {
    let written = apart(move || {
        let file = File::create(path)?;
        let mut piece = vec![7; MIB];
        piece[..MARK.len()].copy_from_slice(MARK);
        for number in 0..MIBS {
            file.write_all_at(&piece, (number * MIB) as u64)?;
        }
        file.sync_all()
    });
    written.within(seconds(60)).expect("writing ends").unwrap();
}

/// Flips a bit of the first entry with the mark, in whichever segment has it.
fn damage(log: &Path) {
    let mut segments: Vec<PathBuf> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "seg"))
        .collect();
    segments.sort();
    for segment in segments {
        let bytes = fs::read(&segment).unwrap();
        if let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK) {
            let file = OpenOptions::new().write(true).open(&segment).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            file.sync_all().unwrap();
            return;
        }
    }
    panic!("no segment of {} has what was written", log.display());
}

/// It gives its role to the other one, which has what the peer lacks; at its next start it says that its log is damaged, and with
/// an empty store it comes back.
#[test]
fn the_role_moves_to_a_node_whose_log_can_be_read() {
    let lab = lab(LabOptions {
        log_mib: 256,
        ..LabOptions::default()
    });
    let active = ready(&lab);
    let away = lab.others(active.name())[0].clone();
    away.kill().unwrap();
    write(active.mnt().join("file"));
    damage(&active.dir().join("store/log"));
    away.start().unwrap();
    let next = lab.wait_active_other_than(active.name(), PATIENCE).unwrap();
    lab.wait_writable(&next, PATIENCE).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert_same(&lab);

    active.kill().unwrap();
    active.start().unwrap();
    wait_logged(&active, "holdfast", &["damaged at log/"]);
    active.kill().unwrap();
    fs::remove_dir_all(active.dir().join("store")).unwrap();
    active.start().unwrap();
    lab.wait_all_up_to_date(seconds(90)).unwrap();
    assert_same(&lab);
}

/// Nobody else has it: the peer gets a copy.
#[test]
fn a_peer_gets_a_copy_where_no_log_can_be_read() {
    let lab = lab(LabOptions {
        log_mib: 256,
        ..LabOptions::default()
    });
    let active = ready(&lab);
    let [away, other] = [0, 1].map(|at| lab.others(active.name())[at].clone());
    away.kill().unwrap();
    write(active.mnt().join("file"));
    damage(&active.dir().join("store/log"));
    damage(&other.dir().join("store/log"));
    away.start().unwrap();
    wait_logged(&away, "holdfast", &["what differed has been copied"]);
    lab.wait_all_up_to_date(seconds(90)).unwrap();
    assert_same(&lab);
}
