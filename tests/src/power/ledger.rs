//! What was acknowledged, from the notes of the load's units, and whether all of it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::load::RECORDINGS;
use super::look::Seen;

/// One acknowledgement. Names are relative to the mount; numbers are the file's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A write has returned: two machines have it.
    Received(String, u64),
    /// A sync has returned: two disks have it.
    Durable(String, u64),
    /// The close of a recording has returned: as durable, and nothing more follows.
    Sealed(String, u64),
    /// A setting has replaced the one before, and the sync of its folder has returned.
    Setting(u64),
}

impl Note {
    pub fn line(&self) -> String {
        match self {
            Self::Received(name, end) => format!("received {name} {end}"),
            Self::Durable(name, end) => format!("durable {name} {end}"),
            Self::Sealed(name, end) => format!("sealed {name} {end}"),
            Self::Setting(number) => format!("setting - {number}"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (kind, name, number) = (words.next()?, words.next()?.to_owned(), words.next()?.parse().ok()?);
        match kind {
            "received" => Some(Self::Received(name, number)),
            "durable" => Some(Self::Durable(name, number)),
            "sealed" => Some(Self::Sealed(name, number)),
            "setting" => Some(Self::Setting(number)),
            _ => None,
        }
    }
}

/// Sums over a whole run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub recorded_bytes: u64,
    pub recordings: u64,
    pub records: u64,
    pub settings: u64,
}

#[derive(Debug, Default)]
pub struct Ledger {
    received: BTreeMap<String, u64>,
    /// What was received before something that is durable now: changes form one order, so it is durable as well.
    ordered: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    sealed: BTreeSet<String>,
    /// Removed, with a sync of the folder: never to be seen again.
    gone: BTreeSet<String>,
    setting: u64,
    totals: Totals,
    /// How far each file of notes has been read.
    read: BTreeMap<PathBuf, u64>,
}

impl Ledger {
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Takes in what was noted since the last time. A line that isn't whole yet is left for the next.
    pub fn read(&mut self, notes: &Path) -> Result<()> {
        let Ok(file) = File::open(notes) else {
            // The unit has never run on this node.
            return Ok(());
        };
        let from = self.read.entry(notes.to_owned()).or_default();
        let length = file.metadata().context("asking for the length of notes")?.len();
        let mut bytes = vec![0; usize::try_from(length - *from)?];
        file.read_exact_at(&mut bytes, *from)
            .with_context(|| format!("reading {}", notes.display()))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        *from += whole as u64;
        let text = std::str::from_utf8(&bytes[..whole]).context("odd bytes in notes")?;
        for line in text.lines() {
            let note = Note::parse(line).with_context(|| format!("odd line in {}: {line}", notes.display()))?;
            self.take(note);
        }
        Ok(())
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Received(name, end) => {
                let before = self.received.insert(name, end).unwrap_or(0);
                self.totals.recorded_bytes += end.saturating_sub(before);
            }
            Note::Durable(name, end) => {
                self.durable.insert(name, end);
                self.totals.records += 1;
            }
            Note::Sealed(name, end) => {
                self.durable.insert(name.clone(), end);
                self.sealed.insert(name);
                self.totals.recordings += 1;
            }
            Note::Setting(number) => {
                self.setting = self.setting.max(number);
                self.totals.settings += 1;
            }
        }
    }

    /// A change that began after the last `read` is durable.
    pub fn order(&mut self) {
        self.ordered.clone_from(&self.received);
    }

    /// More than one node has lost its memory: what was only received by then may be lost, unless it is `order`ed.
    pub fn excuse_received(&mut self) {
        self.received = std::mem::take(&mut self.ordered);
    }

    /// Sentences about what isn't as it was acknowledged; none if all is.
    pub fn judge(&self, seen: &Seen) -> Vec<String> {
        let mut broken = Vec::new();
        for (promise, floor) in [("durable", &self.durable), ("received", &self.received)] {
            for (name, end) in floor {
                match seen.files.get(name) {
                    None => broken.push(format!("{name} is missing; {end} bytes were acknowledged as {promise}")),
                    Some(file) if file.length < *end => broken.push(format!(
                        "{name} has {} bytes; {end} were acknowledged as {promise}",
                        file.length
                    )),
                    Some(_) => {}
                }
            }
        }
        for (name, file) in &seen.files {
            if let Some(at) = file.wrong {
                broken.push(format!("{name} is wrong at byte {at} of {}", file.length));
            }
            if self.gone.contains(name) {
                broken.push(format!("{name} was removed and synced, and is there again"));
            }
            let end = self.durable.get(name).filter(|_| self.sealed.contains(name));
            if end.is_some_and(|end| file.length > *end) {
                broken.push(format!(
                    "{name} has {} bytes, more than when it was closed",
                    file.length
                ));
            }
        }
        match seen.setting {
            Some(number) if number >= self.setting => {}
            Some(number) => broken.push(format!("setting {number} is there; {} was acknowledged", self.setting)),
            None if self.setting > 0 => broken.push("the setting is missing, or a mixture of two".into()),
            None => {}
        }
        broken
    }

    /// Files that nobody writes any more, all but the newest so many of each kind: what a PBX would have moved away.
    pub fn old(&self, keep: usize) -> Vec<String> {
        let (recordings, records): (Vec<_>, Vec<_>) =
            self.durable.keys().partition(|name| name.starts_with(RECORDINGS));
        let closed = recordings.into_iter().filter(|name| self.sealed.contains(*name));
        let old = |names: Vec<&String>| {
            let count = names.len().saturating_sub(keep);
            names.into_iter().take(count).cloned().collect::<Vec<_>>()
        };
        // Names begin with the time: the oldest come first.
        [old(closed.collect()), old(records)].concat()
    }

    pub fn removed(&mut self, names: Vec<String>) {
        for name in names {
            self.durable.remove(&name);
            self.received.remove(&name);
            self.sealed.remove(&name);
            self.gone.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Note};
    use crate::power::look::{Found, Seen};

    fn seen(files: &[(&str, u64)]) -> Seen {
        let found = |length| Found { length, wrong: None };
        Seen {
            files: files
                .iter()
                .map(|(name, length)| ((*name).to_owned(), found(*length)))
                .collect(),
            setting: Some(5),
        }
    }

    #[test]
    fn what_is_less_than_acknowledged_is_found() {
        let mut ledger = Ledger::default();
        let notes = [
            Note::Received("a".into(), 30),
            Note::Durable("b".into(), 20),
            Note::Sealed("c".into(), 10),
            Note::Setting(5),
        ];
        for note in notes {
            assert_eq!(Note::parse(&note.line()).as_ref(), Some(&note));
            ledger.take(note);
        }
        let good = seen(&[("a", 30), ("b", 25), ("c", 10)]);
        assert_eq!(ledger.judge(&good), Vec::<String>::new());
        for bad in [
            seen(&[("a", 29), ("b", 25), ("c", 10)]),
            seen(&[("a", 30), ("b", 19), ("c", 10)]),
            seen(&[("a", 30), ("b", 25)]),
            seen(&[("a", 30), ("b", 25), ("c", 11)]),
            Seen {
                setting: Some(4),
                ..good
            },
        ] {
            assert_eq!(ledger.judge(&bad).len(), 1, "{bad:?}");
        }
        ledger.order();
        ledger.take(Note::Received("a".into(), 35));
        assert_eq!(ledger.judge(&seen(&[("a", 30), ("b", 25), ("c", 10)])).len(), 1);
        ledger.excuse_received();
        assert_eq!(
            ledger.judge(&seen(&[("a", 30), ("b", 25), ("c", 10)])),
            Vec::<String>::new()
        );
        assert_eq!(ledger.judge(&seen(&[("a", 29), ("b", 25), ("c", 10)])).len(), 1);
        ledger.excuse_received();
        assert!(ledger.judge(&seen(&[("b", 20), ("c", 10)])).is_empty());
        ledger.removed(vec!["c".into()]);
        assert!(ledger.judge(&seen(&[("b", 20)])).is_empty());
        assert_eq!(ledger.judge(&seen(&[("b", 20), ("c", 10)])).len(), 1);
    }
}
