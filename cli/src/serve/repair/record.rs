//! Where a scrub is and what the last one came to, kept in the store's folder: a restart goes on with it.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) began_unix_ms: u64,
    /// Of the last one that came to its end; 0: none has.
    pub(super) ended_unix_ms: u64,
    /// Key at which it goes on, in hexadecimal digits; none: none is under way.
    pub(super) next: Option<String>,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) found: u64,
    pub(super) mended: u64,
    /// The metadata weren't what was applied when it began.
    pub(super) metadata_differ: bool,
    /// Blocks of which it couldn't be told whether they are damaged.
    pub(super) unjudged: u64,
    /// Of the last one that came to its end, while another is under way.
    pub(super) last: Option<Findings>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Findings {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) found: u64,
    pub(super) mended: u64,
    pub(super) metadata_differ: bool,
    pub(super) unjudged: u64,
}

fn path(store: &Path) -> PathBuf {
    store.join("scrub.json")
}

/// The next scrub is due at once: there is something to mend.
pub(in super::super) fn forget(store: &Path) {
    if let Err(error) = std::fs::remove_file(path(store))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %path(store).display(), "the next scrub can't be brought forward");
    }
}

impl Record {
    /// The next one, which begins then.
    pub(super) fn begin(&self, unix_ms: u64) -> Self {
        let has_ended = self.next.is_none() && self.ended_unix_ms > 0;
        let own = || Findings {
            keys: self.keys,
            bytes: self.bytes,
            found: self.found,
            mended: self.mended,
            metadata_differ: self.metadata_differ,
            unjudged: self.unjudged,
        };
        Self {
            // Two are never of the same moment.
            began_unix_ms: unix_ms.max(self.began_unix_ms + 1),
            ended_unix_ms: self.ended_unix_ms,
            next: Some(String::new()),
            last: if has_ended { Some(own()) } else { self.last },
            // Of one that was broken off: the digest has been corrected, so it shows no second time.
            metadata_differ: self.next.is_some() && self.metadata_differ,
            ..Self::default()
        }
    }

    /// One that can't be read is no reason not to begin anew.
    pub(super) fn read(store: &Path) -> Self {
        let read = std::fs::read(path(store)).map(|text| serde_json::from_slice(&text));
        match read {
            Ok(Ok(record)) => record,
            Ok(Err(error)) => {
                tracing::warn!(%error, file = %path(store).display(), "where the scrub was isn't known: it begins anew");
                Self::default()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(%error, file = %path(store).display(), "where the scrub was isn't known: it begins anew");
                Self::default()
            }
        }
    }

    /// Whole or not at all; not synced, for to lose it costs a part of one reading.
    pub(super) fn write(&self, store: &Path) -> io::Result<()> {
        let (path, new) = (path(store), store.join("scrub.json.new"));
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_last_one_found_stays_until_the_next_has_ended() {
        let mut record = Record::default().begin(1000);
        assert_eq!((record.began_unix_ms, record.last), (1000, None));
        (record.keys, record.found, record.next, record.ended_unix_ms) = (7, 3, None, 2000);
        let next = record.begin(900);
        let last = next.last.unwrap();
        assert_eq!((next.began_unix_ms, next.ended_unix_ms, next.keys), (1001, 2000, 0));
        assert_eq!((last.keys, last.found), (7, 3));
        assert_eq!(next.begin(5000).last, next.last, "broken off, and begun anew");
        let differs = Record {
            metadata_differ: true,
            ..next
        };
        assert!(differs.begin(5000).metadata_differ);
    }

    #[test]
    fn it_comes_back_as_it_was_and_a_broken_one_as_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()), Record::default());
        let record = Record {
            began_unix_ms: 5,
            next: Some("6200".into()),
            ..Record::default()
        };
        record.write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path()), record);
        std::fs::write(path(folder.path()), "{\"began").unwrap();
        assert_eq!(Record::read(folder.path()), Record::default());
    }
}
