//! Watches all nodes every 10 ms, from beside them: which holds the address, which accepts a write. Whether two ever did
//! at the same time is decided afterwards, from what was seen.
//!
//! It is a process of its own (`Watcher` starts it): whoever starts programs while it has a file open on a mount hands
//! that file on for a moment, and hangs if the mount does. So the demo itself opens none while there is a fault.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::clock::{Deadline, now, pause};
use crate::lab::netns::Netns;
use crate::lab::{Lab, Node};

pub const SAMPLE_EVERY: Duration = Duration::from_millis(10);
const FUSE_MAGIC: i64 = 0x6573_5546;

/// A look that found yes began and ended then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub began: Instant,
    pub ended: Instant,
}

/// What one node was seen to do: runs of yes, each unbroken by a no.
#[derive(Debug, Default)]
pub struct Track {
    runs: Vec<Vec<Seen>>,
    broken: bool,
    looks: u64,
}

impl Track {
    pub fn note(&mut self, began: Instant, yes: bool) {
        self.looks += 1;
        let seen = Seen { began, ended: now() };
        match (yes, self.runs.last_mut()) {
            (true, Some(run)) if !self.broken => run.push(seen),
            (true, _) => self.runs.push(vec![seen]),
            (false, _) => {}
        }
        self.broken = !yes;
    }

    /// Some look of this one that found yes lies wholly between two of the other's, which had no no in between.
    fn inside(&self, other: &Self) -> Option<Seen> {
        let spans = other
            .runs
            .iter()
            .filter_map(|run| Some((run.first()?.ended, run.last()?.began)));
        spans.into_iter().find_map(|(from, to)| {
            self.runs
                .iter()
                .flatten()
                .find(|seen| seen.began > from && seen.ended < to)
                .copied()
        })
    }
}

/// The two tracks show that both said yes at the same time.
pub fn overlap(one: &Track, other: &Track) -> Option<Seen> {
    one.inside(other).or_else(|| other.inside(one))
}

struct Watched {
    name: String,
    address: Mutex<Track>,
    writes: Mutex<Track>,
    /// A write that landed under the mount point.
    astray: AtomicBool,
}

struct Sampler {
    nodes: Vec<Arc<Watched>>,
    stop: Arc<AtomicBool>,
    began: Instant,
}

/// What the sampler can say at the end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub looks: u64,
    /// Sentences; none if no promise was seen broken.
    pub violations: Vec<String>,
}

impl Sampler {
    /// Two threads a node: one whose write hangs must not keep the others from looking.
    fn start(nodes: &[Node], vip: Ipv4Addr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut watched = Vec::new();
        for node in nodes {
            let one = Arc::new(Watched {
                name: node.name().to_owned(),
                address: Mutex::default(),
                writes: Mutex::default(),
                astray: AtomicBool::new(false),
            });
            let (watch, until, netns) = (Arc::clone(&one), Arc::clone(&stop), node.netns().clone());
            thread::spawn(move || watch_address(&watch, &until, &netns, vip));
            let (watch, until, file) = (
                Arc::clone(&one),
                Arc::clone(&stop),
                node.mnt().join(format!(".demo-{}", one.name)),
            );
            thread::spawn(move || watch_writes(&watch, &until, &file));
            watched.push(one);
        }
        Self {
            nodes: watched,
            stop,
            began: now(),
        }
    }

    /// Doesn't wait for a thread whose write hangs.
    fn finish(self) -> Verdict {
        self.stop.store(true, Ordering::Relaxed);
        let (mut looks, mut violations) = (0, Vec::new());
        for (at, one) in self.nodes.iter().enumerate() {
            if one.astray.load(Ordering::Relaxed) {
                violations.push(format!("a write on {} landed under its mount point", one.name));
            }
            looks += lock(&one.address).looks + lock(&one.writes).looks;
            for other in &self.nodes[at + 1..] {
                let both = |what: &str, seen: Seen| {
                    let when = seen.began.saturating_duration_since(self.began).as_secs_f64();
                    format!(
                        "{} and {} both {what}, {when:.2} s after the sampling began",
                        one.name, other.name
                    )
                };
                let addresses = overlap(&lock(&one.address), &lock(&other.address));
                violations.extend(addresses.map(|seen| both("held the VIP", seen)));
                let writes = overlap(&lock(&one.writes), &lock(&other.writes));
                violations.extend(writes.map(|seen| both("accepted writes", seen)));
            }
        }
        Verdict { looks, violations }
    }
}

/// Samples the lab at `dir` until the standard input ends, then prints the verdict.
pub fn watch(dir: &Path) -> Result<()> {
    let lab = Lab::open(dir)?;
    let sampler = Sampler::start(lab.nodes(), lab.vip());
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .context("waiting for the end of the input")?;
    let verdict = serde_json::to_string(&sampler.finish())?;
    // Whoever asked may have been interrupted: then nobody reads it.
    drop(writeln!(std::io::stdout(), "{verdict}"));
    Ok(())
}

/// The sampling process.
pub struct Watcher {
    child: Child,
}

impl Watcher {
    /// `program` has `watch` as its command of that name.
    pub fn start(program: &Path, dir: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .arg("watch")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Ok(Self {
            child: command.spawn().context("starting the sampler")?,
        })
    }

    pub fn finish(mut self) -> Result<Verdict> {
        drop(self.child.stdin.take());
        let output = self.child.stdout.take().context("the sampler has no output")?;
        let (sender, line) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            drop(BufReader::new(output).read_line(&mut text));
            drop(sender.send(text));
        });
        let line = line
            .recv_timeout(Duration::from_secs(10))
            .context("the sampler doesn't answer")?;
        serde_json::from_str(&line).context("the sampler ended early")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Not waited for: one of its writes may hang until the mounts are gone.
        drop(self.child.kill());
    }
}

fn lock(track: &Mutex<Track>) -> std::sync::MutexGuard<'_, Track> {
    track.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch_address(watched: &Watched, stop: &AtomicBool, netns: &Netns, vip: Ipv4Addr) {
    let mut entered = None;
    while !stop.load(Ordering::Relaxed) {
        let next = Deadline::after(SAMPLE_EVERY);
        // A node that has lost its power comes back in another one. Without one it has no address.
        let there = netns.inode();
        if there.is_some() && there != entered {
            entered = netns.enter_thread().ok().and(there);
        }
        let began = now();
        let held = there.is_some() && there == entered && has_address(vip);
        lock(&watched.address).note(began, held);
        pause(next.left());
    }
}

/// Whether the calling thread's network has that address.
fn has_address(wanted: Ipv4Addr) -> bool {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs fills in the pointer or fails; the list is freed once, below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return false;
    }
    let (mut at, mut found) = (list, false);
    while !at.is_null() {
        // SAFETY: `at` is an entry of the list that getifaddrs made and that isn't freed yet.
        let entry = unsafe { &*at };
        // SAFETY: an address that isn't null begins with its family.
        if !entry.ifa_addr.is_null() && i32::from(unsafe { (*entry.ifa_addr).sa_family }) == libc::AF_INET {
            // SAFETY: of this family it is a sockaddr_in; it may lie unaligned.
            let address = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            found |= Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)) == wanted;
        }
        at = entry.ifa_next;
    }
    // SAFETY: the list came from getifaddrs and isn't used any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

fn watch_writes(watched: &Watched, stop: &AtomicBool, file: &PathBuf) {
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let next = Deadline::after(SAMPLE_EVERY);
        count += 1;
        let began = now();
        let accepted = match try_write(file, count) {
            Ok(true) => true,
            Ok(false) => {
                watched.astray.store(true, Ordering::Relaxed);
                false
            }
            Err(_refused) => false,
        };
        lock(&watched.writes).note(began, accepted);
        pause(next.left());
    }
}

/// Opens anew each time: an old file handle belongs to an old role. False: written, but not into a mount.
fn try_write(path: &PathBuf, count: u64) -> Result<bool> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .context("opening")?;
    let kind = rustix::fs::fstatfs(&file).context("asking for the file system")?.f_type;
    file.write_at(&count.to_le_bytes(), 0).context("writing")?;
    Ok(kind == FUSE_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Seen, Track, overlap};
    use crate::clock::now;

    fn track(runs: &[&[(u64, u64)]]) -> Track {
        let start = now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let seen = |(began, ended): &(u64, u64)| Seen {
            began: at(*began),
            ended: at(*ended),
        };
        // All tracks of a test count from about the same moment; their times differ by much more.
        Track {
            runs: runs.iter().map(|run| run.iter().map(seen).collect()).collect(),
            ..Track::default()
        }
    }

    #[test]
    fn a_change_of_owner_is_no_overlap_and_alternation_is() {
        let first = track(&[&[(0, 10), (2000, 2010)], &[(9000, 9010), (9500, 9510)]]);
        let second = track(&[&[(4000, 4010), (6000, 6010)]]);
        assert_eq!(overlap(&first, &second), None);
        let intruder = track(&[&[(1000, 1010)]]);
        assert!(overlap(&first, &intruder).is_some());
        assert!(overlap(&intruder, &first).is_some());
    }

    #[test]
    fn a_write_that_hung_over_a_change_proves_nothing() {
        let held = track(&[&[(0, 10), (2000, 5000)]]);
        let next = track(&[&[(3000, 3010), (6000, 6010)]]);
        assert_eq!(overlap(&held, &next), None);
    }
}
