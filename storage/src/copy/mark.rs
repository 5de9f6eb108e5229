//! The mark of a store that is being copied, and what Raft must not forget meanwhile.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::StoreError;
use crate::types::Term;
use std::io::ErrorKind;

const FILE: &str = "copying";
const NEW: &str = "copying.new";

/// The highest term that this node knew, and whom it gave its vote to in it; and which file system it had, 0: none. What is
/// stored doesn't say that any more as soon as the copy has begun. A mark of an older release doesn't say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Voted {
    pub(super) term: Term,
    pub(super) vote: u64,
    pub(super) history: Option<u64>,
}

/// Nothing but a copy may go on with this store: the last one isn't complete.
pub fn is_copying<D: Disk>(disk: &D) -> Result<bool, StoreError> {
    match disk.open(FILE, OpenHow::default()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::disk("opening", FILE)(error)),
    }
}

pub(crate) fn read<D: Disk>(disk: &D) -> Result<Voted, StoreError> {
    let file = disk
        .open(FILE, OpenHow::default())
        .map_err(StoreError::disk("opening", FILE))?;
    let mut text = [0; 64];
    let len = file.read_at(&mut text, 0).map_err(StoreError::disk("reading", FILE))?;
    let parse = || {
        let mut words = std::str::from_utf8(&text[..len]).ok()?.split_ascii_whitespace();
        Some(Voted {
            term: Term(words.next()?.parse().ok()?),
            vote: words.next()?.parse().ok()?,
            history: words.next().map(str::parse).transpose().ok()?,
        })
    };
    parse().ok_or_else(|| StoreError::Identity {
        path: FILE.into(),
        why: "it doesn't hold a term and a vote: the file is damaged; empty the store's folder and start this node anew, it gets a whole copy then".into(),
    })
}

/// By rename: it is there as a whole or not at all.
pub(crate) fn write<D: Disk>(disk: &D, voted: Voted) -> Result<(), StoreError> {
    let how = OpenHow {
        create: true,
        direct: false,
    };
    let file = disk.open(NEW, how).map_err(StoreError::disk("making", NEW))?;
    file.set_len(0).map_err(StoreError::disk("emptying", NEW))?;
    let history = voted.history.map_or_else(String::new, |history| format!(" {history}"));
    file.write_at(format!("{} {}{history}\n", voted.term, voted.vote).as_bytes(), 0)
        .map_err(StoreError::disk("writing", NEW))?;
    file.sync_data().map_err(StoreError::disk("syncing", NEW))?;
    disk.rename(NEW, FILE).map_err(StoreError::disk("renaming", NEW))?;
    disk.sync_dir("")
        .map_err(StoreError::disk("syncing", "the store's folder"))
}

pub(super) fn remove<D: Disk>(disk: &D) -> Result<(), StoreError> {
    crate::open::remove(disk, FILE)
}
