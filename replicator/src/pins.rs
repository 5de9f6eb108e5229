//! Which store each peer has. A peer that comes back with another one has lost what it had confirmed, so it must not count
//! as the same member; it is ignored until its store is one that was copied from a leader, later than the one known.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Kept in memory alone where there is no writer.
#[derive(Default)]
pub struct Pins {
    known: BTreeMap<u64, Known>,
    strange: BTreeSet<u64>,
    writer: Option<Writer>,
}

/// Writes what is known to the store's folder on a thread of its own: whoever learns it mustn't wait for a busy disk.
struct Writer {
    texts: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
    /// What was handed over last.
    last: String,
}

impl Writer {
    fn start(file: PathBuf, last: String) -> io::Result<Self> {
        let (texts, handed) = channel();
        let thread = std::thread::Builder::new()
            .name("hf-peers".into())
            .spawn(move || write_all(&file, &handed))?;
        Ok(Self {
            texts: Some(texts),
            thread: Some(thread),
            last,
        })
    }

    fn hand_over(&mut self, text: String) {
        if text != self.last
            && let Some(texts) = &self.texts
        {
            self.last.clone_from(&text);
            let _a_thread_that_has_ended_has_said_why = texts.send(text);
        }
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
fn write_all(file: &Path, texts: &Receiver<String>) {
    let mut unwritten: Option<String> = None;
    loop {
        let next = match unwritten {
            Some(_) => texts.recv_timeout(AGAIN),
            None => texts.recv().map_err(RecvTimeoutError::from),
        };
        let is_last = next == Err(RecvTimeoutError::Disconnected);
        let newest = texts.try_iter().last().or(next.ok());
        let before = unwritten.take();
        let Some(text) = newest.or(before) else {
            return;
        };
        if let Err(error) = write(file, &text) {
            tracing::warn!(file = %file.display(), %error, "peers' store ids couldn't be written; they are remembered as long as this process lives");
            unwritten = Some(text);
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
    std::fs::rename(new, path)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    store: String,
    /// Log index up to which it was copied; 0: it wasn't.
    joined: u64,
}

impl Known {
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
            strange: BTreeSet::new(),
            writer: Some(Writer::start(file, written)?),
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
        let seen = Known {
            store: store_id.to_owned(),
            joined,
        };
        let known = self.known.entry(peer).or_insert_with(|| seen.clone());
        if joined > known.joined {
            *known = seen;
        }
        let fits = known.store == store_id;
        if fits {
            self.strange.remove(&peer);
        } else {
            self.strange.insert(peer);
        }
        let text = Self::text(&self.known);
        if let Some(writer) = &mut self.writer {
            writer.hand_over(text);
        }
        fits
    }

    /// Whatever its store's id: it holds another file system.
    pub fn set_strange(&mut self, peer: u64) {
        self.strange.insert(peer);
    }

    pub fn is_strange(&self, peer: u64) -> bool {
        self.strange.contains(&peer)
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
}
