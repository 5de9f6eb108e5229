//! What can go wrong in the local store; each says what was attempted.

use crate::effects::BadEntry;
use crate::record::BadRecord;
use crate::types::{Ino, LogIndex};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} the metadata store")]
    Meta {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{what} {path}")]
    Disk {
        what: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("inode {ino}, block at {offset}: the bytes on disk don't have the checksum that was stored with them")]
    Rot { ino: Ino, offset: u64 },
    #[error("inode {ino}, block at {offset}: what a peer sent doesn't have the checksum that it sent with it")]
    Garbled { ino: Ino, offset: u64 },
    #[error("inode {ino}, block at {offset}: it is being written for so long that it can't be read in one piece")]
    InFlux { ino: Ino, offset: u64 },
    #[error("the disk is full")]
    NoRoom,
    #[error(transparent)]
    Record(#[from] BadRecord),
    #[error(transparent)]
    Entry(#[from] BadEntry),
    #[error("log entry {index} was planned in term {planned} but stands in term {stands}: it is not applied")]
    WrongTerm { index: LogIndex, planned: u64, stands: u64 },
    #[error("log entry {index} follows entry {applied}: entries are missing between")]
    Gap { index: LogIndex, applied: LogIndex },
    #[error("{path}: {why}")]
    Identity { path: String, why: String },
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
}

impl StoreError {
    /// The disk says that it can't give back what it was given: of one sector or more. What else it holds may be sound.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if source.raw_os_error() == Some(libc::EIO))
    }

    pub(crate) fn disk(what: &'static str, path: &str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { what, path, source }
    }
}

/// An error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
