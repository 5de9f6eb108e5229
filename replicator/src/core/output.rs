//! What comes of the events: what to send, what to write, what is committed; in the order "persist, then send".

use super::{Core, Held, Output, Persist, STATE_EVERY_MS};
use crate::memory_log::{OldEntries, from_raft};
use crate::wire::{PeerMessage, RaftMessage, travels};
use holdfast_proto::stream;
use holdfast_storage::apply::Committed;
use holdfast_storage::log::HardState;
use holdfast_storage::types::{LogIndex, Term};
use raft::Ready;
use raft::eraftpb::{Message, MessageType};

/// Bytes of committed entries: after a crash all behind the checkpoint are read from disk, and the clock must not wait for that.
const HAND_OUT: usize = 1 << 20;

impl<O: OldEntries> Core<O> {
    /// Takes what the events so far have led to. Call it after each batch of them, and as long as there is more.
    pub fn output(&mut self) -> Output {
        let mut out = Output::default();
        let mut committed = 0;
        self.after_step();
        while self.node.store().broken().is_none() && self.node.has_ready() {
            let ready = self.node.ready();
            let before = out.committed.len();
            self.ready(ready, &mut out);
            self.after_step();
            committed += out.committed[before..]
                .iter()
                .map(|entry| entry.data.len())
                .sum::<usize>();
            if committed >= HAND_OUT {
                out.more = self.node.has_ready();
                break;
            }
        }
        if let Some(last) = out.committed.last() {
            self.handed_out = last.index.0;
        }
        self.release_unapplied();
        out.fetch = self.node.mut_store().take_wanted();
        out.broken = self.node.store().broken();
        self.send_state(&mut out);
        out
    }

    fn ready(&mut self, mut ready: Ready, out: &mut Output) {
        let number = ready.number();
        for message in ready.take_messages() {
            let to = self.outgoing(message);
            out.send.push(to);
        }
        out.committed
            .extend(ready.take_committed_entries().into_iter().map(|entry| Committed {
                index: LogIndex(entry.index),
                term: Term(entry.term),
                data: entry.data,
            }));
        let entries = ready.take_entries();
        if let Some(hs) = ready.hs() {
            self.unsaved = Some(HardState {
                term: Term(hs.term),
                vote: hs.vote,
                commit: LogIndex(hs.commit),
            });
        }
        let needs_sync = ready.must_sync();
        let mut wait = Vec::new();
        for message in ready.take_persisted_messages() {
            self.acknowledge_early(&message, out, &mut wait);
        }
        if needs_sync {
            let hard_state = self.unsaved.take();
            if let Some(hard_state) = hard_state {
                self.saving_terms.push_back((number, hard_state.term.0));
            }
            out.persist.push(Persist {
                number,
                hard_state,
                entries: entries.iter().map(from_raft).collect(),
            });
        }
        self.node.mut_store().append(&entries);
        self.stepped_bytes = 0;
        self.held.push_back(Held {
            number,
            needs_sync,
            messages: wait,
        });
        self.node.advance_append_async(ready);
        if !needs_sync && self.held.len() == 1 {
            out.send.extend(self.persisted(number));
        }
    }

    /// What a follower may say before its sync: that it has received, and that it has heard its leader.
    fn acknowledge_early(&mut self, message: &Message, out: &mut Output, wait: &mut Vec<Message>) {
        match message.msg_type {
            // The answer exists only if the prefix check passed and the entries are in the log in memory.
            // Its term must be durable: after a crash a former leader's late words must not count for this one's.
            MessageType::MsgAppendResponse if !message.reject && message.term <= self.persisted_term => {
                let received = stream::Received {
                    term: message.term,
                    index: message.index,
                };
                match out.send.last_mut() {
                    // The newer one says both.
                    Some((to, PeerMessage::Received(last))) if *to == message.to && last.term == received.term => {
                        last.index = last.index.max(received.index);
                    }
                    _ => out.send.push((message.to, PeerMessage::Received(received))),
                }
                wait.push(message.clone());
            }
            // Says nothing about entries. Its term must be durable, for a vote given again after a crash.
            MessageType::MsgHeartbeatResponse if message.term <= self.persisted_term => {
                let answer = self.outgoing(message.clone());
                out.send.push(answer);
            }
            _ => wait.push(message.clone()),
        }
    }

    /// Of several answers in a row that say up to where this node has the leader's entries, only the last.
    pub(super) fn last_of_each_row(messages: Vec<Message>) -> Vec<Message> {
        let accepts = |message: &Message| message.msg_type == MessageType::MsgAppendResponse && !message.reject;
        let mut kept: Vec<Message> = Vec::new();
        for message in messages {
            match kept.last_mut() {
                Some(last)
                    if accepts(last)
                        && accepts(&message)
                        && (last.to, last.term) == (message.to, message.term)
                        && last.index <= message.index =>
                {
                    *last = message;
                }
                _ => kept.push(message),
            }
        }
        kept
    }

    pub(super) fn outgoing(&self, message: Message) -> (u64, PeerMessage) {
        let to = message.to;
        let sent_at_ms = match message.msg_type {
            MessageType::MsgHeartbeat => self.now_ms,
            MessageType::MsgHeartbeatResponse => {
                let (term, sent_at) = self.peers.get(&to).map(|peer| peer.heartbeat).unwrap_or_default();
                if term == message.term { sent_at } else { 0 }
            }
            _ => 0,
        };
        debug_assert!(
            travels(message.msg_type),
            "{:?} must not leave this node",
            message.msg_type
        );
        (
            to,
            PeerMessage::Raft(RaftMessage {
                message,
                sent_at_ms,
                last_index: self.last(),
            }),
        )
    }

    fn send_state(&mut self, out: &mut Output) {
        let state = stream::NodeState {
            forgetful: self.forgetful.is_some(),
            last_term: self.node.raft.raft_log.last_term(),
            last_index: self.last(),
            boot: self.config.seed,
            leader: self.node.raft.leader_id,
            eligible: self.eligible,
            store_free: self.store_free,
            applied: self.applied,
            lag_bytes: 0,
            suspended: self.suspended,
            history: self.history,
            third_store: 0,
            store_spare: self.store_spare,
        };
        let (sent, at) = &self.state_sent;
        // What elections depend on goes out at once, the rest with the next regular state.
        let elects = |of: &stream::NodeState| (of.forgetful, of.leader, of.eligible, of.suspended);
        let urgent = elects(sent) != elects(&state);
        if urgent || self.now_ms >= at + STATE_EVERY_MS {
            for (id, peer) in &self.peers {
                let behind = peer
                    .state
                    .filter(|_| self.is_leader())
                    .map_or(0, |known| self.node.store().bytes_after(known.last_index));
                out.send.push((
                    *id,
                    PeerMessage::State(stream::NodeState {
                        lag_bytes: behind,
                        ..state
                    }),
                ));
            }
            self.state_sent = (state, self.now_ms);
        }
    }
}
