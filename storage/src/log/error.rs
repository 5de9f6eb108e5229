//! What the log refuses or fails at.

use crate::types::LogIndex;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log: {what} {path}")]
    Io {
        what: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("log: there is none yet, or making it was interrupted: make it anew (nothing was ever stored in it)")]
    NotFormatted,
    #[error("log: there is one already; it is never overwritten")]
    AlreadyFormatted,
    #[error("log: {segment_bytes} bytes a segment, {segments} segments: not a size that a log can have")]
    BadGeometry { segment_bytes: u64, segments: u32 },
    #[error("log: log/format can't be read: it is damaged, or a later version wrote it")]
    BadFormat,
    #[error("log: it belongs to another store (its id is {found}, this store's {expected}): was a folder copied here?")]
    OtherLog { found: String, expected: String },
    #[error(
        "log: damaged at {path} offset {offset}: {what}. What follows can't be trusted. Its entries are on the other \
         nodes: leave this node off, keep its store, and see `A new replica` in the runbook"
    )]
    Damaged { path: String, offset: u64, what: String },
    #[error(
        "log: it ends at {last}, but this node had stored up to {needed}: the end of the log is lost or damaged. Its \
         entries are on the other nodes: leave this node off, keep its store, and see `A new replica` in the runbook"
    )]
    Lost { last: LogIndex, needed: LogIndex },
    #[error("log: full: all its segments hold entries that aren't checkpointed yet")]
    Full,
    #[error("log: entry {index} takes {bytes} bytes, a batch holds at most {most}")]
    TooBig { index: LogIndex, bytes: u64, most: u64 },
    #[error("log: entry {index} can't be appended: {why}")]
    OutOfOrder { index: LogIndex, why: String },
    #[error("log: an earlier write failed; nothing more is written, for nobody can say what is stable")]
    Failed,
    #[error("log: entry {index} is gone, the oldest one held is {first}")]
    Trimmed { index: LogIndex, first: LogIndex },
    #[error("log: entry {index} isn't there yet, the last one is {last}")]
    Beyond { index: LogIndex, last: LogIndex },
}

impl LogError {
    pub(super) fn io(what: &'static str, path: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
