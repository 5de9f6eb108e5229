//! What a healthy peer may say. raft-rs takes the rest at its word, or panics.

use super::{Core, TERM_MAX};
use crate::memory_log::OldEntries;
use holdfast_storage::types::NUMBER_MAX;
use raft::eraftpb::{Message, MessageType};

impl<O: OldEntries> Core<O> {
    pub(super) fn is_sound(&self, message: &Message) -> bool {
        let log = &self.node.raft.raft_log;
        let current = message.term == self.term();
        // Term 0 means "from this node itself" to raft-rs; snapshots are never asked for, priorities never set.
        let unused = message.request_snapshot != 0 || message.priority != 0;
        if message.term == 0 || message.term > TERM_MAX || unused {
            return false;
        }
        // It reckons with the numbers behind these.
        let numbers = [
            message.index,
            message.log_term,
            message.commit,
            message.commit_term,
            message.reject_hint,
        ];
        if numbers.iter().any(|number| *number >= NUMBER_MAX) {
            return false;
        }
        match message.msg_type {
            MessageType::MsgAppend => self.is_sound_append(message),
            // It can't know more to be committed than what this node has confirmed.
            MessageType::MsgHeartbeat => message.commit <= log.last_index(),
            MessageType::MsgAppendResponse => {
                !current || !self.is_leader() || message.reject || message.index <= log.last_index()
            }
            // It would end this leader's role behind the lease's back.
            MessageType::MsgTransferLeader => false,
            MessageType::MsgTimeoutNow => !current || message.from == self.node.raft.leader_id,
            _ => true,
        }
    }

    /// Entries follow each other, and none contradicts what is committed.
    fn is_sound_append(&self, message: &Message) -> bool {
        let log = &self.node.raft.raft_log;
        // raft-rs finds term 0 behind the end of the log, and would take it for a match.
        if message.log_term == 0 && message.index > 0 {
            return false;
        }
        let mut before = (message.log_term, message.index);
        message.entries.iter().all(|entry| {
            // No entry has term 0; raft-rs would take one behind the end of the log for one that it has.
            let follows = entry.term >= before.0.max(1)
                && entry.term <= message.term
                && Some(entry.index) == before.1.checked_add(1);
            before = (entry.term, entry.index);
            // What was compacted away can't be compared; raft-rs doesn't take it for a conflict either.
            let agrees =
                entry.index > log.committed || log.term(entry.index).is_ok_and(|term| term == 0 || term == entry.term);
            follows && (agrees || message.term < self.term())
        })
    }
}
