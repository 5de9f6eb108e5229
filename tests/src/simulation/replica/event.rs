//! What happens to a replica, and what comes of a round of it.

use bytes::Bytes;
use holdfast_replicator::AgentFacts;
use holdfast_replicator::api::{Failure, Request, Scope};
use holdfast_replicator::memory_log::Wanted;
use holdfast_replicator::sequencer::Now;
use holdfast_replicator::wire::{PeerMessage, RaftMessage};
use holdfast_storage::apply::Committed;
use holdfast_storage::check::Part;
use holdfast_storage::effects::CheckPart;
use holdfast_storage::key::Key;
use holdfast_storage::types::Time;

use crate::simulation::random::Random;

/// What happens to a daemon.
pub enum Event {
    Tick,
    /// Something that was held back must go on.
    Wake,
    Message {
        from: u64,
        message: PeerMessage,
    },
    Up {
        peer: u64,
    },
    Down {
        peer: u64,
    },
    HasStore {
        peer: u64,
        store_id: String,
        joined: u64,
        has_data: bool,
    },
    LogDone,
    ApplyDone,
    LookForCheckpoint,
    CheckpointDone,
    Entries(Wanted),
    Keys(u64, Request, Vec<Key>, u64),
    Mounted {
        term: u64,
    },
    Fenced {
        term: u64,
    },
    Agent(AgentFacts),
    HandOver {
        to: Option<u64>,
    },
    Submit(u64, Request),
    Sync {
        scope: Scope,
        deadline_ms: u64,
        done: Answer,
    },
    Check(CheckPart),
}

impl Event {
    /// For people who read a trace.
    pub fn describe(&self) -> String {
        match self {
            Self::Message {
                from,
                message: PeerMessage::Raft(raft),
            } => {
                let RaftMessage {
                    message, last_index, ..
                } = raft;
                format!(
                    "from n{from}: {:?} term {} log_term {} index {} entries {} commit {} reject {} hint {} last {last_index}",
                    message.msg_type,
                    message.term,
                    message.log_term,
                    message.index,
                    message.entries.len(),
                    message.commit,
                    message.reject,
                    message.reject_hint,
                )
            }
            Self::Message { from, message } => format!("from n{from}: {message:?}"),
            other => other.name().to_owned(),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Wake => "wake",
            Self::Message { .. } => "message",
            Self::Up { .. } => "up",
            Self::Down { .. } => "down",
            Self::HasStore { .. } => "has-store",
            Self::LogDone => "log",
            Self::ApplyDone => "apply",
            Self::LookForCheckpoint => "look",
            Self::CheckpointDone => "checkpoint",
            Self::Entries(_) => "entries",
            Self::Keys(..) => "keys",
            Self::Mounted { .. } => "mounted",
            Self::Fenced { .. } => "fenced",
            Self::Agent(_) => "agent",
            Self::HandOver { .. } => "hand-over",
            Self::Submit(..) => "submit",
            Self::Sync { .. } => "sync",
            Self::Check(_) => "check",
        }
    }
}

pub type Answer = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// What was proposed in a round, and for which client's operation.
pub struct Proposed {
    pub index: u64,
    pub term: u64,
    pub data: Bytes,
    pub op: Option<u64>,
}

/// One round: what it is told, and what comes of it.
pub struct Turn<'a> {
    pub now_ms: u64,
    pub wall: Time,
    pub random: &'a mut Random,
    pub send: Vec<(u64, PeerMessage)>,
    /// In so many µs.
    pub later: Vec<(u64, Event)>,
    pub committed: Vec<Committed>,
    pub proposed: Vec<Proposed>,
    pub parts: Vec<Part>,
    /// The agent is to hear what the role is now.
    pub publish: bool,
}

impl Turn<'_> {
    pub(super) fn clocks(&self) -> Now {
        Now {
            wall: self.wall,
            boot_ms: self.now_ms,
        }
    }
}
