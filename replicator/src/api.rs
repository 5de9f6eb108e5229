//! What the file system asks of the replicator. Nothing here blocks: answers come by callback, from the
//! loop's own reply thread, by the deadline at the latest.

pub use holdfast_storage::class::Wait;
use holdfast_storage::op::{Op, Refusal, Reply};
use holdfast_storage::types::Ino;

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing was done: this node isn't the active one.
    #[error("this node is not active")]
    NotActive,
    /// The outcome isn't known: it may or may not be carried out.
    #[error("not acknowledged by a second node before the deadline")]
    Deadline,
    /// The outcome isn't known: this node lost the active role while the request was under way.
    #[error("the active role was lost")]
    Lost,
    /// What is stored can't be read back as it was written, or not at all.
    #[error("the local store can't be read")]
    Unreadable,
    /// What is stored here isn't what was written. A peer may have it.
    #[error("the local store holds damaged blocks")]
    Rotten,
}

pub type Done<T> = Box<dyn FnOnce(Result<T, Failure>) + Send>;

/// A change to be planned, sequenced and replicated.
pub struct Request {
    pub op: Op,
    /// At least this, and what the class of the inodes that change wants.
    pub wait: Wait,
    /// CLOCK_BOOTTIME in ms.
    pub deadline_ms: u64,
    pub done: Done<Reply>,
}

/// What an fsync covers; names are always covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    File(Ino),
    All,
}
