//! `holdfast check` on a real cluster: what it says of replicas that agree, and of one that doesn't.

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use common::{PATIENCE, assert_same, lab, ready, start};
use holdfast_storage::data;
use holdfast_storage::types::Ino;
use holdfast_tests::lab::{CheckVerdict, LabOptions};

/// A file's last byte, behind a hole that nobody can walk through.
const FAR: u64 = 5 << 40;

#[test]
fn a_byte_behind_a_hole_of_terabytes_is_compared() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let path = active.mnt().join("sparse");
    let written = start(move || {
        let file = File::create(path)?;
        file.write_all_at(b"first", 0)?;
        file.write_all_at(b"last", FAR)?;
        file.sync_all()?;
        file.metadata().map(|shown| Ino(shown.ino()))
    });
    let ino = written.within(PATIENCE).expect("writing ends").unwrap();
    let folder = active.mnt();
    let longest = start(move || {
        (0..3).try_for_each(|number| {
            let file = File::create(folder.join(format!("longest-{number}")))?;
            file.set_len(holdfast_storage::types::MAX_FILE)
        })
    });
    longest.within(PATIENCE).expect("truncating ends").unwrap();
    // Within the limit that every command of the lab has.
    assert_same(&lab);

    // On a running node: one that starts anew may mend it by redoing its log.
    let odd = lab.others(active.name())[0].clone();
    let stored = OpenOptions::new()
        .write(true)
        .open(odd.dir().join("store").join(data::path(ino)))
        .unwrap();
    stored.write_all_at(b"L", FAR).unwrap();
    stored.sync_all().unwrap();
    let outcome = lab.check().unwrap();
    assert_eq!(outcome.verdict, CheckVerdict::Different, "{}", outcome.said);
    assert!(
        outcome.said.contains(odd.name()) && outcome.said.contains("/sparse"),
        "{}",
        outcome.said
    );
}
