//! What the cluster tests share. Every access to a mount that may hang is made on a thread of its own and awaited with
//! a limit; a thread that does hang is freed when the lab is taken down.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::clock::{now, pause};
use holdfast_tests::lab::{CheckVerdict, Lab, LabOptions, Node};

use apart::apart;

pub(crate) mod apart;
pub(crate) mod classes;
pub(crate) mod disks;
pub(crate) mod nats;
pub(crate) mod replace;
pub(crate) mod sampler;
pub(crate) mod watch;

pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// What a machine that is busy with other things may add to any time.
pub(crate) const SLACK: Duration = Duration::from_secs(3);

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) fn lab(options: LabOptions) -> Lab {
    lab_for(options, watch::TEST_LIMIT)
}

/// For a test that takes longer than others.
pub(crate) fn lab_for(options: LabOptions, limit: Duration) -> Lab {
    let lab = Lab::up(options).unwrap_or_else(|error| panic!("the lab comes up: {error:#}"));
    watch::watch(&lab, limit);
    lab
}

/// The active node, able to write, with both others up to date.
pub(crate) fn ready(lab: &Lab) -> Node {
    let active = lab.wait_ready(PATIENCE).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    lab.node(&active).clone()
}

pub(crate) fn wait_other(lab: &Lab, former: &Node) -> Node {
    let next = lab.wait_active_other_than(former.name(), PATIENCE).unwrap();
    lab.wait_writable(&next, PATIENCE).unwrap();
    lab.node(&next).clone()
}

/// Starts what doesn't run and asserts that the three replicas are the same.
pub(crate) fn assert_same(lab: &Lab) {
    for node in lab.nodes() {
        node.start().unwrap();
    }
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let outcome = lab.check().unwrap();
    assert_eq!(outcome.verdict, CheckVerdict::Same, "{}", outcome.said);
}

/// No daemon has ended: what was refused was refused, and nobody stopped by it.
pub(crate) fn assert_all_run(lab: &Lab) {
    for node in lab.nodes() {
        let runs = node.daemon("holdfast").is_some();
        assert!(runs, "{} died:\n{}", node.name(), node.log_tails(20));
    }
}

/// Something that goes on elsewhere.
pub(crate) struct Pending<T>(Receiver<T>);

impl<T> Pending<T> {
    /// None: not done by then.
    pub(crate) fn within(&self, limit: Duration) -> Option<T> {
        self.0.recv_timeout(limit).ok()
    }
}

pub(crate) fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
    let (done, pending) = channel();
    // Nobody listens any more after the limit.
    thread::spawn(move || drop(done.send(work())));
    Pending(pending)
}

/// A plain write() into a new file.
pub(crate) fn write(path: PathBuf, content: impl Into<Vec<u8>>) -> Pending<io::Result<()>> {
    let content = content.into();
    apart(move || fs::write(path, content))
}

/// A write() and an fsync of a new file.
pub(crate) fn write_synced(path: PathBuf, content: impl Into<Vec<u8>>) -> Pending<io::Result<()>> {
    let content = content.into();
    apart(move || {
        let mut file = File::create(path)?;
        file.write_all(&content)?;
        file.sync_all()
    })
}

pub(crate) fn read(path: PathBuf) -> Pending<io::Result<Vec<u8>>> {
    apart(move || fs::read(path))
}

/// What `read` gives, or a panic that names the file: for a mount that ought to answer.
pub(crate) fn content(path: &Path) -> Vec<u8> {
    read(path.to_owned())
        .within(PATIENCE)
        .unwrap_or_else(|| panic!("reading {} hangs", path.display()))
        .unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

pub(crate) const RECORD: usize = 512;

/// The bytes of a numbered record: every one depends on the number.
pub(crate) fn record(number: u64) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Appends numbered records, one after the other, until an error; knows how many were acknowledged.
pub(crate) struct Appender {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    ended: Pending<Option<io::Error>>,
}

impl Appender {
    /// With `sync`, each record is fsync'd before it counts.
    pub(crate) fn start(path: PathBuf, sync: bool) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, until) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        let ended = apart(move || append(&path, sync, &count, &until).err());
        Self {
            acknowledged,
            stop,
            ended,
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub(crate) fn wait_for(&self, count: u64) {
        let reached = holdfast_tests::clock::wait_for("acknowledged records", PATIENCE, || {
            Ok((self.acknowledged() >= count).then_some(()))
        });
        reached.unwrap_or_else(|error| panic!("{error:#}, there are {}", self.acknowledged()));
    }

    /// The number of acknowledged records at the end, and the error that ended it, if one did.
    pub(crate) fn finish(self) -> (u64, Option<io::Error>) {
        self.stop.store(true, Ordering::SeqCst);
        let error = self.ended.within(PATIENCE).expect("a write ends by its deadline");
        (self.acknowledged.load(Ordering::SeqCst), error)
    }
}

fn append(path: &Path, sync: bool, count: &AtomicU64, until: &AtomicBool) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    for number in 0.. {
        if until.load(Ordering::SeqCst) {
            break;
        }
        file.write_all(&record(number))?;
        if sync {
            file.sync_data()?;
        }
        count.store(number + 1, Ordering::SeqCst);
        pause(Duration::from_millis(2));
    }
    Ok(())
}

/// All acknowledged records are there, and nothing but records follows.
pub(crate) fn assert_records(path: &Path, acknowledged: u64) {
    let bytes = content(path);
    let name = path.display();
    let found = (bytes.len() / RECORD) as u64;
    assert!(
        found >= acknowledged,
        "{name}: {found} records of {acknowledged} acknowledged ones"
    );
    for (number, bytes) in (0..).zip(bytes.chunks(RECORD)) {
        assert!(
            bytes == &record(number)[..bytes.len()],
            "{name}: record {number} is wrong"
        );
    }
}

/// Reads a file again and again, opening it anew each time; for what a mount answers that shouldn't.
pub(crate) struct Reader {
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    pub(crate) content: Vec<u8>,
}

impl Reader {
    pub(crate) fn start(path: PathBuf) -> Self {
        let (answers, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (into, until) = (Arc::clone(&answers), Arc::clone(&stop));
        apart(move || {
            while !until.load(Ordering::SeqCst) {
                let asked = now();
                if let Ok(content) = fs::read(&path) {
                    let answered = now();
                    into.lock().unwrap().push(Answer {
                        asked,
                        answered,
                        content,
                    });
                }
                pause(Duration::from_millis(10));
            }
        });
        Self { answers, stop }
    }

    /// What was read successfully. Doesn't wait for a read that hangs.
    pub(crate) fn finish(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::SeqCst);
        self.answers.lock().unwrap().clone()
    }
}

/// A file that is open, and whose closing may hang: closed on a thread of its own.
pub(crate) struct Held(Option<File>);

impl Held {
    pub(crate) fn new(file: File) -> Self {
        Self(Some(file))
    }

    pub(crate) fn file(&self) -> File {
        self.0
            .as_ref()
            .expect("there until the drop")
            .try_clone()
            .expect("a free descriptor")
    }

    pub(crate) fn write_at(&self, content: &'static [u8], offset: u64) -> Pending<io::Result<usize>> {
        let file = Held::new(self.file());
        start(move || file.0.as_ref().expect("there until the drop").write_at(content, offset))
    }

    pub(crate) fn sync(&self) -> Pending<io::Result<()>> {
        let file = Held::new(self.file());
        start(move || file.0.as_ref().expect("there until the drop").sync_all())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let file = self.0.take();
        thread::spawn(move || drop(file));
    }
}

/// The text of a daemon's log.
pub(crate) fn log(node: &Node, daemon: &str) -> String {
    let text = fs::read(node.files().log(daemon)).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits until a daemon's log contains all these words in one line.
pub(crate) fn wait_logged(node: &Node, daemon: &str, words: &[&str]) {
    let found = holdfast_tests::clock::wait_for("a line in the log", seconds(20), || {
        let text = log(node, daemon);
        Ok(text
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
            .then_some(()))
    });
    if let Err(error) = found {
        panic!(
            "{error:#} with {words:?} of {daemon} on {}:\n{}",
            node.name(),
            log(node, daemon)
        );
    }
}

/// Whether the node's interface holds the address.
pub(crate) fn holds_vip(lab: &Lab, node: &str) -> bool {
    let output = lab.exec(node, &["ip", "-o", "-4", "addr", "show"]).unwrap();
    String::from_utf8_lossy(&output.stdout).contains(&format!(" {}/", lab.vip()))
}
