//! The plain threads beside the loop: one writes and syncs the log, one applies, one checkpoints, a few fetch.

pub(crate) mod apply;
pub(crate) mod checkpoint;
pub(crate) mod fetch;
pub(crate) mod log;

use crate::api::Request;
use crate::error::ReplicaError;
use crate::memory_log::{Unread, Wanted};
use holdfast_storage::check::Part;
use raft::eraftpb::Entry;

/// What a thread tells the loop.
pub(crate) enum ThreadEvent {
    /// Everything up to the `Persist` of this number is on stable storage.
    Persisted(u64),
    /// Something was applied; with what checks among it have found.
    Applied(Vec<Part>),
    /// An entry couldn't be applied: this node goes on as a voter that keeps the log.
    Halted(String),
    /// The disk refused what it mustn't: nothing that this node says about its disk is true any more.
    Failed(String),
    Fetched(Wanted, Result<Vec<Entry>, Unread>),
    /// What this request needed is in memory now.
    Warmed(Request, u64),
    CouldNotWarm(Request, String),
}

pub(crate) type ToLoop = tokio::sync::mpsc::UnboundedSender<ThreadEvent>;

pub(crate) fn spawn(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, ReplicaError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| ReplicaError::Thread(name, error))
}
