//! Which store each peer has. A peer that comes back with another one has lost what it had confirmed, so it
//! must not count as the same member; it is ignored until it is joined anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

pub(crate) struct Pins {
    file: PathBuf,
    known: BTreeMap<u64, String>,
    strange: BTreeSet<u64>,
}

impl Pins {
    /// From the store's folder: a line a peer, its number and its store's id.
    pub(crate) fn load(store: &Path) -> io::Result<Self> {
        let file = store.join("peers");
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let mut known = BTreeMap::new();
        for line in text.lines() {
            let parsed = line
                .split_once(' ')
                .and_then(|(id, store)| Some((id.parse().ok()?, store.to_owned())));
            let (id, store) = parsed.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: line {line:?} isn't a number and a store id", file.display()),
                )
            })?;
            known.insert(id, store);
        }
        Ok(Self {
            file,
            known,
            strange: BTreeSet::new(),
        })
    }

    /// Remembers a peer's store at first sight.
    pub(crate) fn accepts(&mut self, peer: u64, store_id: &str) -> bool {
        let fits = self.known.entry(peer).or_insert_with(|| store_id.to_owned()) == store_id;
        if fits {
            self.strange.remove(&peer);
        } else {
            self.strange.insert(peer);
        }
        if let Err(error) = self.save() {
            tracing::warn!(file = %self.file.display(), %error, "peers' store ids couldn't be written; they are remembered until this process ends");
        }
        fits
    }

    pub(crate) fn is_strange(&self, peer: u64) -> bool {
        self.strange.contains(&peer)
    }

    fn save(&self) -> io::Result<()> {
        let text: String = self.known.iter().map(|(id, store)| format!("{id} {store}\n")).collect();
        if std::fs::read_to_string(&self.file).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let new = self.file.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(new, &self.file)
    }
}
