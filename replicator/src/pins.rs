//! Which store each peer has. A peer that comes back with another one has lost what it had confirmed, so it must not count
//! as the same member; it is ignored until its store is one that was copied from a leader, later than the one known, or the
//! third node vouches for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Such a failure is said again after so many.
const COMPLAIN_EVERY: u32 = 60;

/// Kept in memory alone where there is no writer.
#[derive(Default)]
pub struct Pins {
    known: BTreeMap<u64, Known>,
    /// What each peer said last that it has.
    shown: BTreeMap<u64, Known>,
    /// They hold another file system, whatever their store's id.
    apart: BTreeSet<u64>,
    /// The text with which a peer's store is written down.
    since: BTreeMap<u64, u64>,
    writer: Option<Writer>,
}

/// Writes what is known to the store's folder on a thread of its own: whoever learns it mustn't wait for a busy disk.
struct Writer {
    texts: Option<Sender<Numbered>>,
    thread: Option<JoinHandle<()>>,
    /// What was handed over last.
    last: Numbered,
    /// Number of the text that is stable.
    written: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Numbered {
    number: u64,
    text: String,
}

impl Writer {
    fn start(file: PathBuf, text: String) -> io::Result<Self> {
        let (texts, handed) = channel();
        let written = Arc::new(AtomicU64::new(0));
        let done = written.clone();
        let thread = std::thread::Builder::new()
            .name("hf-peers".into())
            .spawn(move || write_all(&file, &handed, &done))?;
        Ok(Self {
            texts: Some(texts),
            thread: Some(thread),
            last: Numbered { number: 0, text },
            written,
        })
    }

    /// Whether it is another one than before.
    fn hand_over(&mut self, text: String) -> bool {
        let is_new = text != self.last.text;
        if is_new && let Some(texts) = &self.texts {
            let number = self.last.number + 1;
            self.last = Numbered { number, text };
            let _a_thread_that_has_ended_has_said_why = texts.send(self.last.clone());
        }
        is_new
    }
}

/// The last one is written before it ends.
impl Drop for Writer {
    fn drop(&mut self) {
        self.texts = None;
        if let Some(thread) = self.thread.take() {
            let _it_never_panics = thread.join();
        }
    }
}

/// What can't be written is tried again.
fn write_all(file: &Path, texts: &Receiver<Numbered>, written: &AtomicU64) {
    let mut unwritten: Option<Numbered> = None;
    let mut failures = 0;
    loop {
        let next = match unwritten {
            Some(_) => texts.recv_timeout(AGAIN),
            None => texts.recv().map_err(RecvTimeoutError::from),
        };
        let is_last = matches!(next, Err(RecvTimeoutError::Disconnected));
        let newest = texts.try_iter().last().or(next.ok());
        let before = unwritten.take();
        let Some(text) = newest.or(before) else {
            return;
        };
        match write(file, &text.text) {
            Ok(()) => {
                failures = 0;
                written.store(text.number, Ordering::Release);
            }
            Err(error) => {
                if failures % COMPLAIN_EVERY == 0 {
                    tracing::warn!(file = %file.display(), %error, "which stores the peers have can't be written down: a peer that is new, or has a new store, isn't heard until it is");
                }
                failures += 1;
                unwritten = Some(text);
            }
        }
        if is_last {
            return;
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    store: String,
    /// Log index up to which it was copied; 0: it wasn't.
    joined: u64,
}

impl Known {
    /// As `NodeState::third_store` says it.
    fn print(&self) -> u64 {
        let hash = blake3::hash(self.store.as_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (store, joined) = text.split_once(' ').unwrap_or((text, "0"));
        Some(Self {
            store: store.to_owned(),
            joined: joined.parse().ok()?,
        })
    }
}

impl Pins {
    /// From the store's folder: a line a peer, its number, its store's id, and up to where that was copied.
    pub fn load(store: &Path) -> io::Result<Self> {
        let file = store.join("peers");
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let bad = |line: &str| {
            let why = format!("{}: line {line:?} isn't a number and a store id", file.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let known = Self::parse(&text).map_err(bad)?;
        let written = Self::text(&known);
        Ok(Self {
            known,
            writer: Some(Writer::start(file, written)?),
            ..Self::default()
        })
    }

    /// The error is the line that makes no sense.
    pub(crate) fn parse(text: &str) -> Result<BTreeMap<u64, Known>, &str> {
        let parse = |line| {
            let (id, known) = str::split_once(line, ' ')?;
            Some((id.parse().ok()?, Known::parse(known)?))
        };
        text.lines().map(|line| parse(line).ok_or(line)).collect()
    }

    pub(crate) fn text(known: &BTreeMap<u64, Known>) -> String {
        known
            .iter()
            .map(|(id, known)| format!("{id} {} {}\n", known.store, known.joined))
            .collect()
    }

    /// Remembers a peer's store at first sight, and one that was copied later than the one known.
    pub fn accepts(&mut self, peer: u64, store_id: &str, joined: u64) -> bool {
        let shown = Known {
            store: store_id.to_owned(),
            joined,
        };
        let known = self.known.entry(peer).or_insert_with(|| shown.clone());
        if joined > known.joined {
            *known = shown.clone();
        }
        self.shown.insert(peer, shown);
        self.apart.remove(&peer);
        self.write_down(peer);
        !self.is_strange(peer)
    }

    /// This peer, which is heard itself, knows the third node with the store of which this is the print. If that is what the
    /// third one has shown here, it is known with it from now on and returned: the store that this node knew has confirmed
    /// nothing that the two count on, or this peer would know it, too. Not while this node leads: it may have counted on what
    /// that store confirmed in its term, and gives the new one a copy.
    pub fn vouched(&mut self, by: u64, print: u64) -> Option<u64> {
        let is_older =
            |peer: &u64, shown: &Known| self.known.get(peer).is_some_and(|known| known.joined > shown.joined);
        let fits = |(peer, shown): &(&u64, &Known)| {
            **peer != by && self.is_strange(**peer) && shown.print() == print && !is_older(peer, shown)
        };
        let (peer, shown) = self
            .shown
            .iter()
            .find(fits)
            .map(|(peer, shown)| (*peer, shown.clone()))?;
        self.known.insert(peer, shown);
        self.write_down(peer);
        (!self.is_strange(peer)).then_some(peer)
    }

    /// Print of the store with which the node that is neither this one nor `to` is known for good; 0: with none.
    pub fn vouches(&self, to: u64) -> u64 {
        let third = self.known.iter().find(|(peer, _)| **peer != to);
        third.map_or(
            0,
            |(peer, known)| if self.is_written(*peer) { known.print() } else { 0 },
        )
    }

    fn write_down(&mut self, peer: u64) {
        let text = Self::text(&self.known);
        if let Some(writer) = &mut self.writer
            && writer.hand_over(text)
        {
            self.since.insert(peer, writer.last.number);
        }
    }

    fn is_written(&self, peer: u64) -> bool {
        let since = self.since.get(&peer).copied().unwrap_or(0);
        let written = |writer: &Writer| writer.written.load(Ordering::Acquire);
        self.writer.as_ref().is_none_or(|writer| written(writer) >= since)
    }

    /// Whether what it says may count. Not before its store is written down: else a crash here would leave the way open
    /// for the store that it had before, whose confirmations are other ones.
    pub fn is_heard(&self, peer: u64) -> bool {
        !self.is_strange(peer) && self.is_written(peer)
    }

    /// Whatever its store's id: it holds another file system.
    pub fn set_apart(&mut self, peer: u64) {
        self.apart.insert(peer);
    }

    pub fn is_strange(&self, peer: u64) -> bool {
        let shown = self.shown.get(&peer).zip(self.known.get(&peer));
        self.apart.contains(&peer) || shown.is_some_and(|(shown, known)| shown.store != known.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_copy_takes_the_place_of_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Pins::load(folder.path()).unwrap();
        let mut pins = load();
        assert!(pins.accepts(2, "aa", 0));
        assert!(!pins.accepts(2, "bb", 0) && pins.is_strange(2));
        drop(pins);
        let mut pins = load();
        assert!(!pins.accepts(2, "bb", 0));
        assert!(pins.accepts(2, "bb", 70) && !pins.is_strange(2));
        drop(pins);
        let mut pins = load();
        assert!(pins.accepts(2, "bb", 70));
        for (store, joined) in [("aa", 0), ("cc", 69), ("cc", 70)] {
            assert!(!pins.accepts(2, store, joined), "{store} {joined}");
        }
        assert!(pins.accepts(2, "dd", 71));
    }

    #[test]
    fn lines_without_a_copy_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("peers"), "2 aa\n").unwrap();
        let mut pins = Pins::load(folder.path()).unwrap();
        assert!(pins.accepts(2, "aa", 0) && !pins.accepts(2, "bb", 0));
    }

    fn is_heard_soon(pins: &Pins, peer: u64) -> bool {
        (0..1000).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            pins.is_heard(peer)
        })
    }

    #[test]
    fn nobody_is_heard_before_its_store_is_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let mut pins = Pins::load(folder.path()).unwrap();
        assert!(pins.accepts(2, "aa", 0) && is_heard_soon(&pins, 2));
        assert_eq!(
            std::fs::read_to_string(folder.path().join("peers")).unwrap(),
            "2 aa 0\n"
        );
        let in_the_way = folder.path().join("peers.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(pins.accepts(2, "aa", 0) && pins.is_heard(2), "nothing new");
        assert!(pins.accepts(3, "cc", 0) && pins.accepts(2, "bb", 7));
        assert!(!pins.is_heard(2) && !pins.is_heard(3));
        std::fs::remove_dir(&in_the_way).unwrap();
        assert!(is_heard_soon(&pins, 2) && pins.is_heard(3));
        assert!(!pins.accepts(2, "dd", 0) && !pins.is_heard(2), "strange");
    }

    #[test]
    fn the_third_node_vouches_for_a_store() {
        let mut pins = Pins::default();
        assert_eq!(pins.vouches(3), 0);
        let other = {
            let mut pins = Pins::default();
            pins.accepts(2, "bb", 0);
            pins
        };
        assert!(pins.accepts(2, "aa", 0) && pins.accepts(3, "cc", 0));
        assert_eq!(pins.vouched(3, other.vouches(1)), None, "what it has isn't strange");
        assert!(!pins.accepts(2, "bb", 0));
        assert_eq!(pins.vouched(3, 0), None);
        assert_eq!(pins.vouched(3, pins.vouches(3)), None, "for the store that it had");
        assert_eq!(pins.vouched(2, other.vouches(1)), None, "nobody vouches for itself");
        assert!(pins.is_strange(2));
        assert_eq!(pins.vouched(3, other.vouches(1)), Some(2));
        assert!(!pins.is_strange(2) && pins.is_heard(2));
        assert!(!pins.accepts(2, "aa", 0), "the old one is the strange one now");
        assert!(pins.accepts(2, "dd", 9) && !pins.accepts(2, "bb", 0));
        assert_eq!(pins.vouched(3, other.vouches(1)), None, "a copy is later");
        pins.accepts(2, "bb", 0);
        pins.set_apart(2);
        assert_eq!(pins.vouched(3, other.vouches(1)), None, "another file system stays one");
        assert!(pins.is_strange(2));
    }
}
