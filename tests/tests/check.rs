//! `holdfast check` on a real cluster: what it says of replicas that agree, and of one that doesn't.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{PATIENCE, Pending, apart::apart, assert_same, lab, lab_for, ready, seconds, start};
use holdfast_storage::data;
use holdfast_storage::types::Ino;
use holdfast_tests::clock::now;
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

/// One change in a folder, the next one for the next number.
type Step = fn(&Path, u64) -> io::Result<()>;

/// All that changes data, names and attributes, as fast as it goes, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    workers: Vec<Pending<io::Result<()>>>,
}

impl Load {
    fn start(folder: &Path) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let work: [Step; 4] = [overwrite, rename, cut, dress];
        let worker = |(number, step): (usize, Step)| {
            let (stop, done, folder) = (stop.clone(), done.clone(), folder.join(number.to_string()));
            apart(move || {
                fs::create_dir(&folder)?;
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    step(&folder, round)?;
                    round += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let workers = work.into_iter().enumerate().map(worker).collect();
        Self { stop, done, workers }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.within(PATIENCE).expect("a load ends").expect("nothing fails");
        }
        self.done.load(Ordering::Relaxed)
    }
}

fn opened(path: PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// Pieces of a file of 64 MiB, at places that look random.
fn overwrite(folder: &Path, round: u64) -> io::Result<()> {
    let at = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (64 << 20);
    let len = 1 + (at % 40_000) as usize;
    opened(folder.join("file"))?.write_all_at(&vec![round as u8; len], at)
}

/// A file is made, gets another one's name, and one goes.
fn rename(folder: &Path, round: u64) -> io::Result<()> {
    let path = |number: u64| folder.join((number % 97).to_string());
    fs::write(folder.join("new"), round.to_le_bytes())?;
    fs::rename(folder.join("new"), path(round))?;
    fs::remove_file(path(round.wrapping_mul(31))).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// A file grows, is cut, and grows again.
fn cut(folder: &Path, round: u64) -> io::Result<()> {
    let file = opened(folder.join("file"))?;
    file.write_all_at(&[round as u8; 10_000], (round % 61) * 7_777)?;
    file.set_len((round % 53) * 9_001)
}

/// Attributes of some files.
fn dress(folder: &Path, round: u64) -> io::Result<()> {
    let path = folder.join((round % 11).to_string());
    let file = opened(path.clone())?;
    file.set_permissions(PermissionsExt::from_mode(0o600 + (round % 8) as u32))?;
    let value = round.to_le_bytes();
    Ok(rustix::fs::setxattr(
        &path,
        "user.round",
        &value,
        rustix::fs::XattrFlags::empty(),
    )?)
}

/// While everything changes all the time a check sees no difference, and no alarm is raised. `scripts/checks.sh` does it for an hour.
#[test]
fn under_the_heaviest_load_no_difference_is_seen() {
    let length = std::env::var("HOLDFAST_CHECK_SECONDS").map_or(15, |text| text.parse().expect("a number of seconds"));
    let length = Duration::from_secs(length);
    let lab = lab_for(LabOptions::default(), length + seconds(600));
    let active = ready(&lab);
    let load = Load::start(&active.mnt());
    let began = now();
    let (mut checks, mut said) = (0, now());
    while began.elapsed() < length || checks < 2 {
        for words in [&["holdfast", "check"][..], &["holdfast", "check", "--quick"]] {
            let output = active.exec_within(words, seconds(300)).unwrap();
            let text = [&output.stdout, &output.stderr]
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .concat();
            assert!(output.status.success(), "{words:?}: {text}");
            checks += 1;
            if said.elapsed() > seconds(60) {
                said = now();
                eprintln!("{checks} checks in {:.0?}: {text}", began.elapsed());
            }
        }
        let status = active.exec_within(&["holdfast", "status"], seconds(20)).unwrap();
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(
            !status.contains("doesn't hold the same") && !status.contains("damaged"),
            "{status}"
        );
    }
    let done = load.finish();
    eprintln!(
        "{checks} checks in {:.0?} beside {done} changes: no difference",
        began.elapsed()
    );
    assert_same(&lab);
}
