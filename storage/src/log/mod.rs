//! The replicated log on disk: a ring of zeroed segments, batches chained by hash, one write and one sync each.
//!
//! It stores what it is given and decides nothing about Raft. The layout is in `format`.
//!
//! Which crash each step survives:
//! - *Making a log.* Segments are zeroed and synced first, `log/format` appears last, by rename. A crash before
//!   that leaves no log; it is made again.
//! - *Making it longer.* New segments are zeroed and synced under names that nothing looks at, then `log/format` counts them, then
//!   they get their names. A crash before the second leaves the shorter log, and they are removed; after it the next start names them.
//! - *Appending.* A batch is one write followed by one sync, and the next begins only after that. A crash leaves the
//!   batch whole, torn or absent; torn and absent are the same: the log ends before it. What `append` has returned
//!   for is never the torn one. An append of more than one batch can survive in part, from the front.
//! - *Replacing entries* (conflict). The new batch says so by its first index; nothing old is overwritten, so until
//!   the batch is stable the old entries stand, and afterwards the new ones.
//! - *Going on in another segment.* The file gets its new number by rename, the folder is synced, then the first
//!   batch is written. A crash before the sync leaves either number: under the old one its old entries are valid
//!   still; under the new one nothing in it has the right number and it is empty.
//! - *Using a segment again* happens only when all its entries are at or below the trimmed index and a new
//!   segment is needed. Every segment begins with the hard state, so that goes on too.
//! - *Cutting a torn tail.* Its header is zeroed and synced, so that a block that couldn't be read once can't come
//!   back to life later. A crash before leaves it torn, to be cut again.
//! - *Going past damage* in what is checkpointed. The segments up to its end are used again, the lowest number first, before
//!   any other; until then each start finds the damage again, or what is left of it.
//!
//! After a failed write or sync nothing more is written (`LogError::Failed`); the caller ends the process.

mod create;
mod error;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grow;
mod index;
mod reader;
mod recover;
mod segments;
mod writer;

pub use error::LogError;
pub use format::{Geometry, Hash};
pub use reader::LogReader;
pub(crate) use segments::DESCRIPTION;
pub use writer::Log;

use crate::types::{LogIndex, Term};
use bytes::Bytes;

/// Longest batch, with header and padding; no longer than a segment either.
pub const MAX_BATCH: u64 = 8 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub index: LogIndex,
    pub term: Term,
    pub kind: u8,
    pub data: Bytes,
}

/// What Raft must not forget besides entries.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct HardState {
    pub term: Term,
    pub vote: u64,
    pub commit: LogIndex,
}

/// Proof that everything up to an index was synced here; only `Log` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    index: LogIndex,
    term: Option<Term>,
}

impl Synced {
    pub fn index(&self) -> LogIndex {
        self.index
    }

    /// The term of the entry at `index`; `None` if the log holds no entry yet and was told none.
    pub fn term(&self) -> Option<Term> {
        self.term
    }
}

/// What was found when the log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub hard_state: HardState,
    /// Oldest entry held; `last` + 1 if there is none.
    pub first: LogIndex,
    pub last: LogIndex,
    /// 0 if it isn't known: no entry was ever stored here.
    pub last_term: Term,
    /// What was cut from the end, in words.
    pub torn: Option<String>,
    /// What was damaged, in segments that weren't needed any more and are left out.
    pub passed: Option<String>,
}
