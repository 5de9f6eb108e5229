//! A planned switch, step by step: the agent stops the PBX and releases the address, what is sequenced gets
//! committed, the lease ends, the leadership goes over.

use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// vip-agent stops the units in order and takes the address away.
    Releasing,
    /// No new requests; those under way get committed.
    Flushing,
    Transferring,
}

pub(crate) struct HandOver {
    pub(crate) term: u64,
    pub(crate) to: u64,
    pub(crate) step: Step,
    pub(crate) since_ms: u64,
    pub(crate) vip_released: bool,
    pub(crate) reason: String,
    pub(crate) outcome: Option<oneshot::Sender<Result<String, String>>>,
}

/// Stopping the PBX may take as long as its units' own timeouts allow, and so much longer; this is the end of all patience.
pub(crate) const RELEASE_SLACK_MS: u64 = 30_000;

/// What is under way must get onto two disks; if it can't, the PBX is better off where it was.
pub(crate) const FLUSH_MAX_MS: u64 = 10_000;

impl HandOver {
    pub(crate) fn finish(mut self, outcome: Result<String, String>) {
        if let Err(why) = &outcome {
            tracing::warn!(why, "the role was not handed over");
        }
        if let Some(sender) = self.outcome.take() {
            let _ = sender.send(outcome);
        }
    }
}
