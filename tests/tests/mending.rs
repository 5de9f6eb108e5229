//! Rot and differences put in by hand, on a real cluster in use: found, said, and put right with what the others have.

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use bytes::Bytes;
use common::{
    Appender, PATIENCE, assert_records, assert_same, content, lab, ready, seconds, start, wait_logged, wait_other,
};
use holdfast_storage::data::{self, sums};
use holdfast_storage::key;
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::meta::{Change, Meta};
use holdfast_storage::record::{Inode, Xattrs};
use holdfast_storage::types::{BLOCK, Ino};
use holdfast_tests::clock::wait_for;
use holdfast_tests::lab::{CheckVerdict, Lab, LabOptions, Node};
use rustix::process::Signal;

const BLOCKS: u64 = 64;

/// Every block is its own.
fn bytes() -> Vec<u8> {
    let mut bytes = vec![0; (BLOCKS * BLOCK) as usize - 1000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Written on the active node and applied everywhere.
fn with_file(lab: &Lab, active: &Node, name: &str) -> Ino {
    let path = active.mnt().join(name);
    let written = start(move || {
        let file = File::create(path)?;
        file.write_all_at(&bytes(), 0)?;
        file.sync_all()?;
        file.metadata().map(|shown| Ino(shown.ino()))
    });
    let ino = written.within(PATIENCE).expect("writing ends").unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    for node in lab.nodes() {
        let applied = wait_for("the file in the store", PATIENCE, || {
            Ok((std::fs::read(stored(node, ino)).unwrap_or_default() == bytes()).then_some(()))
        });
        applied.unwrap();
    }
    ino
}

/// Where a node keeps the bytes of an inode.
fn stored(node: &Node, ino: Ino) -> PathBuf {
    node.dir().join("store").join(data::path(ino))
}

fn rot(node: &Node, ino: Ino, blocks: &[u64]) {
    let file = OpenOptions::new().write(true).open(stored(node, ino)).unwrap();
    for block in blocks {
        file.write_all_at(b"rotten", block * BLOCK + 17).unwrap();
    }
    file.sync_all().unwrap();
}

fn is_sound(node: &Node, ino: Ino) -> bool {
    std::fs::read(stored(node, ino)).unwrap() == bytes()
}

/// As the daemon gives it: the kernel's own copy is left out.
fn read_through(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let len = file.metadata()?.len() as usize;
    let mut buffer = holdfast_storage::disk::aligned::AlignedBuf::zeroed(len);
    let mut at = 0;
    while at < len {
        let got = file.read_at(&mut buffer[at..], at as u64)?;
        if got == 0 {
            break;
        }
        at += got;
    }
    Ok(buffer[..at.min(len)].to_vec())
}

fn holdfast(node: &Node, words: &[&str]) -> (Output, String) {
    let words: Vec<&str> = ["holdfast"].iter().chain(words).copied().collect();
    let output = node.exec_within(&words, seconds(60)).unwrap();
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    (output, said.concat())
}

/// A node that was just started isn't fit yet.
fn switch(from: &Node, to: &Node) {
    let switched = wait_for("the switch", PATIENCE, || {
        let (output, _) = holdfast(from, &["switchover", "--to", to.name()]);
        Ok(output.status.success().then_some(()))
    });
    switched.unwrap();
}

fn notices(node: &Node) -> String {
    holdfast(node, &["status"]).1
}

/// The alarm is to come within ten seconds.
fn wait_notice(node: &Node, words: &str, there: bool) {
    let seen = wait_for("the notice", seconds(10), || {
        Ok((notices(node).contains(words) == there).then_some(()))
    });
    seen.unwrap_or_else(|error| panic!("{error:#}: {words}, {there}: {}", notices(node)));
}

#[test]
fn a_read_that_meets_rot_gets_what_was_written() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let ino = with_file(&lab, &active, "file");
    rot(&active, ino, &[0, 7, 8, BLOCKS - 1]);
    let path = active.mnt().join("file");
    let read = start(move || read_through(&path))
        .within(PATIENCE)
        .expect("reading ends");
    assert!(read.unwrap() == bytes(), "other bytes than were written");
    assert!(is_sound(&active, ino), "its disk has the bytes again");
    let said = notices(&active);
    assert!(
        said.contains("4 blocks") && said.contains("given back their bytes"),
        "{said}"
    );
    assert_same(&lab);
}

/// Nobody has what was written: EIO, as long as that is so, and status says why.
#[test]
fn rot_without_a_peer_is_an_error_and_is_mended_when_one_is_back() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let ino = with_file(&lab, &active, "file");
    for node in lab.nodes() {
        rot(node, ino, &[3]);
    }
    let path = active.mnt().join("file");
    let read = start(move || read_through(&path))
        .within(PATIENCE)
        .expect("reading ends");
    assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EIO));
    let said = notices(&active);
    assert!(
        said.contains("1 block on this node's disk is damaged and not mended"),
        "{said}"
    );
    // Somebody has it after all.
    let odd = lab.others(active.name())[0];
    let file = OpenOptions::new().write(true).open(stored(odd, ino)).unwrap();
    file.write_all_at(&bytes()[3 * BLOCK as usize..4 * BLOCK as usize], 3 * BLOCK)
        .unwrap();
    file.sync_all().unwrap();
    let path = active.mnt().join("file");
    let read = start(move || read_through(&path))
        .within(PATIENCE)
        .expect("reading ends");
    assert!(read.unwrap() == bytes());
    let (output, said) = holdfast(lab.others(active.name())[1], &["scrub"]);
    assert!(output.status.success(), "{said}");
    assert_same(&lab);
}

#[test]
fn a_scrub_finds_rot_on_a_standby_and_mends_it_under_load() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let ino = with_file(&lab, &active, "file");
    let standby = lab.others(active.name())[0].clone();
    let records = active.mnt().join("records");
    let load = Appender::start(records.clone(), false);
    load.wait_for(50);
    let (output, said) = holdfast(&standby, &["scrub"]);
    assert!(output.status.success() && said.contains("sound: "), "{said}");
    rot(&standby, ino, &[1, 2, 40]);
    let (output, said) = holdfast(&standby, &["scrub"]);
    assert!(
        output.status.success() && said.contains("3 blocks damaged, 3 mended"),
        "{said}"
    );
    assert!(is_sound(&standby, ino));
    let (written, error) = load.finish();
    assert!(error.is_none(), "{error:?}");
    assert_records(&records, written);
    assert_same(&lab);
}

/// What the block should be is known at one index of the log alone, and only to the others.
/// The sixth block of the file is rotten on this node.
fn overwritten_in_part_it_is_mended(active: &Node, node: &Node, ino: Ino) {
    let path = active.mnt().join("file");
    let written = start(move || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(b"in part", 5 * BLOCK + 100)?;
        file.sync_all()
    });
    written.within(PATIENCE).expect("writing ends").unwrap();
    wait_logged(node, "holdfast", &["overwritten in part", "fit its checksum"]);
    let right = wait_for("the mended block", PATIENCE, || {
        let mut expected = bytes();
        expected[5 * BLOCK as usize + 100..][..7].copy_from_slice(b"in part");
        Ok((std::fs::read(stored(node, ino)).unwrap() == expected).then_some(()))
    });
    right.unwrap();
}

/// The third node is connected and says nothing: it isn't waited for longer than the one that asks waits.
#[test]
fn a_standby_is_mended_beside_a_mute_node() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let ino = with_file(&lab, &active, "file");
    let [standby, mute] = [0, 1].map(|at| lab.others(active.name())[at].clone());
    rot(&standby, ino, &[5]);
    mute.signal_daemon("holdfast", Signal::STOP).unwrap();
    overwritten_in_part_it_is_mended(&active, &standby, ino);
    mute.signal_daemon("holdfast", Signal::CONT).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert_same(&lab);
}

#[test]
fn rot_that_was_overwritten_in_part_is_mended_by_all_three() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let ino = with_file(&lab, &active, "file");
    let standby = lab.others(active.name())[0].clone();
    for node in [&standby, &active] {
        rot(node, ino, &[5]);
        overwritten_in_part_it_is_mended(&active, node, ino);
        // Back to where it was, for the next one.
        let path = active.mnt().join("file");
        let written = start(move || {
            let file = OpenOptions::new().write(true).open(path)?;
            file.write_all_at(&bytes()[5 * BLOCK as usize..][..BLOCK as usize], 5 * BLOCK)?;
            file.sync_all()
        });
        written.within(PATIENCE).expect("writing ends").unwrap();
        lab.wait_all_up_to_date(PATIENCE).unwrap();
        let back = wait_for("what was before", PATIENCE, || Ok(is_sound(node, ino).then_some(())));
        back.unwrap();
    }
    assert_same(&lab);
}

/// In order, and with all applied: a standby that is stopped before it hears that an entry is committed has it in its log alone.
fn stop(lab: &Lab, node: &Node) {
    assert_same(lab);
    node.signal_daemon("holdfast", Signal::TERM).unwrap();
    let ended = wait_for("the end of the daemon", PATIENCE, || {
        Ok(node.daemon("holdfast").is_none().then_some(()))
    });
    ended.unwrap();
}

/// Stops a node, changes its store by hand, and starts it.
fn change_store(lab: &Lab, node: &Node, change: impl FnOnce(&Rocks) -> Vec<Change>) {
    stop(lab, node);
    let meta = Rocks::open(&node.dir().join("store/meta")).unwrap();
    let changes = change(&meta);
    meta.write(changes).unwrap();
    meta.flush().unwrap();
    drop(meta);
    node.start().unwrap();
    lab.wait_ready(PATIENCE).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
}

/// A byte with a checksum that fits it, an xattr, a time and a name: as a fault of the software would leave it.
fn differences(meta: &Rocks, store: &Path, ino: Ino) -> Vec<Change> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(store.join(data::path(ino)))
        .unwrap();
    let mut block = vec![0; BLOCK as usize];
    file.read_exact_at(&mut block, 9 * BLOCK).unwrap();
    block[1] ^= 1;
    file.write_all_at(&block, 9 * BLOCK).unwrap();
    file.sync_all().unwrap();
    let get = |key: &Bytes| meta.get(key).unwrap().expect("is there");
    let group = key::sums(ino, 0);
    let mut sums = get(&group).to_vec();
    sums[9 * 16..10 * 16].copy_from_slice(&sums::of(&block));
    let attributes = key::inode(ino);
    let mut inode = Inode::decode(&get(&attributes)).unwrap();
    inode.mtime.nanos ^= 1;
    let xattrs = key::xattrs(ino);
    let mut named = Xattrs::decode(&get(&xattrs)).unwrap();
    named.0.insert("user.colour".into(), "green".into());
    vec![
        Change::Put(group, sums.into()),
        Change::Put(attributes, inode.encode()),
        Change::Put(xattrs, named.encode()),
        Change::Delete(key::dirent(Ino::ROOT, b"second")),
    ]
}

#[test]
fn differences_put_in_by_hand_are_named_and_mended() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let ino = with_file(&lab, &active, "file");
    let path = active.mnt().join("file");
    let made = start(move || {
        rustix::fs::setxattr(&path, "user.colour", b"red", rustix::fs::XattrFlags::empty())?;
        File::create(path.with_file_name("second"))?.sync_all()
    });
    made.within(PATIENCE).expect("ends").unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let odd = lab.others(active.name())[0].clone();
    change_store(&lab, &odd, |meta| differences(meta, &odd.dir().join("store"), ino));

    let active = ready(&lab);
    // The same was applied; that the store holds something else shows when it is read.
    let (output, said) = holdfast(&active, &["check", "--quick"]);
    assert!(output.status.success(), "{said}");
    let (output, said) = holdfast(&odd, &["scrub"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("different: ") && said.contains("holdfast check --repair"),
        "{said}"
    );
    let (output, said) = holdfast(&active, &["check", "--quick"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{} is the odd one out", odd.name())), "{said}");
    wait_notice(&active, &format!("{} doesn't hold the same", odd.name()), true);

    let (output, said) = holdfast(&active, &["check"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let named = [
        format!("attributes (size, owner, mode, times) of inode {ino} (/file)"),
        format!("extended attributes of inode {ino} (/file)"),
        "the name \"second\" in directory 1".into(),
        format!("data of inode {ino} at {}, 4096 bytes (/file)", 9 * BLOCK),
    ];
    for difference in &named {
        let line = said.lines().find(|line| line.contains(difference.as_str()));
        let line = line.unwrap_or_else(|| panic!("{difference} isn't named in:\n{said}"));
        assert!(line.contains(&format!("{} is the odd one out", odd.name())), "{line}");
    }
    assert!(said.contains("different: 4 differences"), "{said}");

    // It takes the role from none that is as good as the third.
    let because = format!("{}: no, because it doesn't hold the same as the two others", odd.name());
    wait_notice(&active, &because, true);
    let (output, said) = holdfast(&active, &["switchover", "--to", odd.name()]);
    assert!(
        !output.status.success() && said.contains("doesn't hold the same as the two others"),
        "{said}"
    );
    for _ in 0..3 {
        let before = ready(&lab);
        before.kill().unwrap();
        let after = wait_other(&lab, &before);
        assert!(after.name() != odd.name(), "the odd one out became active");
        before.start().unwrap();
        lab.wait_all_up_to_date(PATIENCE).unwrap();
    }
    let active = ready(&lab);

    let load = Appender::start(active.mnt().join("records"), false);
    load.wait_for(50);
    let (output, said) = holdfast(&active, &["check", "--repair"]);
    assert!(
        output.status.success() && said.contains("same now: 4 differences mended"),
        "{said}"
    );
    load.finish();
    assert_same(&lab);
    let (output, said) = holdfast(&active, &["check", "--quick"]);
    assert!(output.status.success(), "{said}");
    wait_notice(&active, "doesn't hold the same", false);
    // As a reader sees it there.
    switch(&active, &odd);
    assert!(content(&odd.mnt().join("file")) == bytes());
    assert!(content(&odd.mnt().join("second")).is_empty());
    let outcome = lab.check().unwrap();
    assert_eq!(outcome.verdict, CheckVerdict::Same, "{}", outcome.said);
}

/// While it is active its differences may be in the kernel's memory and the PBX's.
#[test]
fn an_active_node_that_differs_is_mended_after_it_gave_the_role_away() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    with_file(&lab, &active, "file");
    let odd = lab.others(active.name())[0].clone();
    change_store(&lab, &odd, |_| vec![Change::Delete(key::dirent(Ino::ROOT, b"file"))]);
    // Nobody has looked yet.
    switch(&ready(&lab), &odd);
    let (output, said) = holdfast(&odd, &["check", "--repair"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("it is active: move the role") && !said.contains("  mended"),
        "{said}"
    );
    let (output, said) = holdfast(&odd, &["scrub"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // What changes has the digests compared.
    let path = odd.mnt().join("other");
    start(move || File::create(path))
        .within(PATIENCE)
        .expect("ends")
        .unwrap();
    wait_notice(&odd, &format!("{} doesn't hold the same", odd.name()), true);
    let active = lab.others(odd.name())[0].clone();
    switch(&odd, &active);
    let (output, said) = holdfast(&active, &["check", "--repair"]);
    assert!(output.status.success() && said.contains("same now: "), "{said}");
    wait_notice(&active, "doesn't hold the same", false);
    assert_same(&lab);
}

fn document_in(said: &str) -> &str {
    let (begin, end) = (said.find('{'), said.rfind('}'));
    &said[begin.expect("a document")..=end.expect("its end")]
}

/// What can be seen and put right with one disk alone, and the rest when the peers are there.
#[test]
fn the_store_of_a_stopped_node_is_looked_at() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let ino = with_file(&lab, &active, "file");
    let odd = lab.others(active.name())[0].clone();
    let store = odd.dir().join("store");
    let check = |more: &[&str]| {
        let words = ["check", "--store", store.to_str().expect("UTF-8")];
        let (output, said) = holdfast(&odd, &[words.as_slice(), more].concat());
        (output.status.code(), said)
    };
    let (code, said) = check(&[]);
    assert!(code == Some(2) && said.contains("is in use"), "{said}");
    stop(&lab, &odd);
    let (code, said) = check(&[]);
    assert!(
        code == Some(0) && said.contains("stopped in order") && said.contains("sound: "),
        "{said}"
    );

    rot(&odd, ino, &[2, 60]);
    let stray = store.join(data::path(Ino(ino.0 + 1000)));
    std::fs::write(&stray, "nobody's").unwrap();
    let meta = Rocks::open(&store.join("meta")).unwrap();
    meta.write(vec![Change::Delete(key::dirent(Ino::ROOT, b"file"))])
        .unwrap();
    meta.flush().unwrap();
    drop(meta);
    let wrong = [
        format!("inode {ino} "),
        "the block at 8192 doesn't fit its checksum".to_owned(),
        "the block at 245760 doesn't fit its checksum".to_owned(),
        "directory 1 has 0 names, 1 in the order of listing, and counts 1".to_owned(),
        "links and 0 names".to_owned(),
        "aren't those that were applied".to_owned(),
        format!("belongs to inode {}, which isn't there", ino.0 + 1000),
    ];
    let (code, said) = check(&[]);
    assert!(code == Some(1) && said.contains("not sound"), "{said}");
    for wrong in &wrong {
        assert!(said.contains(wrong), "{wrong} isn't in: {said}");
    }
    assert!(stray.exists(), "nothing was to be changed");
    // What isn't sound may be what belonged to the stray.
    let (code, said) = check(&["--repair"]);
    assert!(code == Some(1) && said.contains("left where it is"), "{said}");
    assert!(stray.exists());
    let (code, said) = check(&["--json"]);
    let document: serde_json::Value = serde_json::from_str(document_in(&said)).unwrap();
    assert_eq!((code, &document["wrong"]), (Some(1), &serde_json::json!(5)), "{said}");

    odd.start().unwrap();
    lab.wait_ready(PATIENCE).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let (output, said) = holdfast(&odd, &["scrub"]);
    assert!(output.status.success() && said.contains("2 mended"), "{said}");
    let (output, said) = holdfast(&active, &["check", "--repair"]);
    assert!(output.status.success() && said.contains("same now"), "{said}");
    stop(&lab, &odd);
    let (code, said) = check(&["--repair"]);
    assert!(code == Some(0) && said.contains("sound now: 1 mended"), "{said}");
    assert!(!stray.exists());
    let (code, said) = check(&[]);
    assert_eq!(code, Some(0), "{said}");
}
