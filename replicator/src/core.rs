//! The consensus core: raft-rs and the rules that it lacks, without I/O, clock or randomness of its own.
//!
//! One owner steps it: the daemon's loop or the simulator. Events come in, `Output` comes out. The order
//! "persist, then send" is kept here: what must follow a sync is held until `persisted` says that it is done.

mod election;
mod facts;
mod output;
mod progress;
mod room;
mod sound;
mod standby;
mod step;

pub use room::Sizes;
pub use standby::Unfit;

use crate::forgetful::Forgetful;
use crate::lease::{Lease, Timing};
use crate::memory_log::{MemoryLog, OldEntries, Unread, Wanted};
use crate::wire::PeerMessage;
use bytes::Bytes;
use holdfast_proto::stream;
use holdfast_storage::apply::Committed;
use holdfast_storage::log::{HardState, LogEntry};
use holdfast_storage::types::LogIndex;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{RawNode, StateRole};
use std::collections::{BTreeMap, VecDeque};

/// A peer counts as here for so long after its last state.
const HERE_MS: u64 = 1500;
/// States are sent at least so often.
const STATE_EVERY_MS: u64 = 400;
/// No cluster counts that far; beyond it raft-rs's arithmetic overflows.
const TERM_MAX: u64 = 1 << 62;
/// Bytes of entries that are handed out and not applied, above which they are read back from the log when they are needed.
const UNAPPLIED_MAX: u64 = 64 << 20;

#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub id: u64,
    pub peers: Vec<u64>,
    pub election_ticks: u32,
    pub heartbeat_ticks: u32,
    pub lease_ms: u64,
    pub forgetful_wait_ms: u64,
    /// Of this start: for election timeouts, and to tell starts apart.
    pub seed: u64,
    pub sizes: Sizes,
}

/// What recovery found.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreStart {
    pub hard_state: HardState,
    pub last: LogIndex,
    /// Redo starts behind it.
    pub checkpoint: LogIndex,
    /// Known to be committed: all that was ever applied here.
    pub committed: LogIndex,
    pub clean: bool,
}

/// To be written and synced, in this order; then `Core::persisted(number)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub entries: Vec<LogEntry>,
}

#[derive(Default, Debug)]
pub struct Output {
    pub send: Vec<(u64, PeerMessage)>,
    pub persist: Vec<Persist>,
    /// Committed and durable here, in order.
    pub committed: Vec<Committed>,
    /// To be read off the loop, then `Core::fetched`.
    pub fetch: Vec<Wanted>,
    /// Why what is committed can't be read, so that nothing comes any more.
    pub broken: Option<String>,
    /// There is more: to be asked for at once, but not before others had their turn.
    pub more: bool,
}

/// A Ready whose messages wait for its sync, and for those before it.
struct Held {
    number: u64,
    needs_sync: bool,
    messages: Vec<Message>,
}

#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub state: Option<stream::NodeState>,
    pub heard_ms: u64,
    /// This node's own connection to it is up: both directions work.
    reached: bool,
    /// Term and sending time of the last heartbeat of it that was taken.
    heartbeat: (u64, u64),
    /// Term and index up to which it holds our entries in its log.
    received: (u64, u64),
    /// As it said last.
    timing: Timing,
    /// It gave the role away in this term, and its agent confirmed that the address is released.
    pub handover: Option<stream::Handover>,
}

pub struct Core<O: OldEntries> {
    node: RawNode<MemoryLog<O>>,
    config: CoreConfig,
    random: u64,
    lease: Lease,
    forgetful: Option<Forgetful>,
    /// The durable logs alone decided, at this BOOTTIME: some received entries may be missing.
    durable_alone_ms: Option<u64>,
    held: VecDeque<Held>,
    unsaved: Option<HardState>,
    persisted_term: u64,
    saving_terms: VecDeque<(u64, u64)>,
    peers: BTreeMap<u64, Peer>,
    now_ms: u64,
    ticks: u64,
    /// No vote before this many ticks: a leader's lease may still run.
    silent_until_tick: u64,
    /// Term and role for which the election timeout was drawn.
    drawn_for: (u64, StateRole, u64),
    timeout: usize,
    state_sent: (stream::NodeState, u64),
    /// Index of the first entry of the term that this node leads.
    own_first: Option<u64>,
    /// Committed entries up to here were handed out.
    handed_out: u64,
    /// Reading the log for a peer has failed there: whoever needs what is before it gets a copy.
    unreadable_at: u64,
    /// Last index that a role of this reign left behind when it ended: the next one plans on what it did.
    left_at: u64,
    transfer: Option<Transfer>,
    /// A term in which this node stood for election because the leader before asked it to.
    asked_to_lead: u64,
    /// Facts that peers want to know and the core doesn't.
    pub eligible: bool,
    pub store_free: u64,
    pub store_spare: u64,
    /// Bytes that entries may take in the log beside what has to stay free for votes.
    pub log_room: u64,
    /// Of entries that were taken in and aren't in `node.store()` yet.
    stepped_bytes: u64,
    /// Entries were refused for want of it.
    is_log_full: bool,
    /// This node's active role waits for the lease to come back.
    pub suspended: bool,
    /// A peer's store has a file system in it.
    pub data_elsewhere: bool,
    /// Of this node's file system (`copy::history`); 0: none yet.
    pub history: u64,
    pub applied: u64,
    /// When a leader was last heard, or this node last led.
    pub leader_heard_ms: u64,
    pub campaign_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Transfer {
    since_tick: u64,
}

impl<O: OldEntries> Core<O> {
    pub fn new(config: CoreConfig, start: CoreStart, old: O, now_ms: u64) -> Result<Self, raft::Error> {
        let voters = std::iter::once(config.id).chain(config.peers.iter().copied()).collect();
        let commit = start.hard_state.commit.max(start.committed).max(start.checkpoint);
        let hard_state = HardState {
            commit,
            ..start.hard_state
        };
        let log = MemoryLog::new(old, hard_state, start.last, voters);
        let election = config.election_ticks as usize;
        let raft_config = raft::Config {
            id: config.id,
            election_tick: election,
            heartbeat_tick: config.heartbeat_ticks as usize,
            min_election_tick: election,
            max_election_tick: election + step::spread(election) + 1,
            applied: start.checkpoint.0,
            max_size_per_msg: config.sizes.message_max,
            max_inflight_msgs: 1024,
            check_quorum: true,
            pre_vote: true,
            // The followers hear of a commit with the next entries, or with a heartbeat: they answer nobody before.
            skip_bcast_commit: true,
            max_uncommitted_size: config.sizes.uncommitted_max,
            max_committed_size_per_ready: 8 << 20,
            ..raft::Config::default()
        };
        let node = RawNode::new(&raft_config, log, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let forgetful = (!start.clean).then(|| Forgetful::new(config.forgetful_wait_ms));
        // raft-rs forgets at a restart which leader it followed, whose lease may still run. A store that has
        // never seen a term has followed nobody.
        let silent_until_tick = if hard_state.term.0 == 0 {
            0
        } else {
            u64::from(config.election_ticks) + 1
        };
        Ok(Self {
            node,
            random: config.seed | 1,
            lease: Lease::new(config.lease_ms),
            forgetful,
            durable_alone_ms: None,
            held: VecDeque::new(),
            unsaved: None,
            persisted_term: hard_state.term.0,
            saving_terms: VecDeque::new(),
            peers: config.peers.iter().map(|id| (*id, Peer::default())).collect(),
            now_ms,
            ticks: 0,
            silent_until_tick,
            drawn_for: (u64::MAX, StateRole::Follower, 0),
            timeout: election,
            state_sent: (stream::NodeState::default(), 0),
            own_first: None,
            handed_out: start.checkpoint.0,
            unreadable_at: 0,
            left_at: 0,
            transfer: None,
            asked_to_lead: 0,
            eligible: true,
            store_free: 0,
            store_spare: 0,
            log_room: u64::MAX,
            stepped_bytes: 0,
            is_log_full: false,
            suspended: false,
            data_elsewhere: false,
            history: 0,
            applied: start.checkpoint.0,
            leader_heard_ms: now_ms,
            campaign_ms: 0,
            config,
        })
    }

    /// One tick of CLOCK_BOOTTIME; after a stall there is one, not as many as were missed.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.ticks += 1;
        let here = self.others_here().len();
        if let Some(forgetful) = &mut self.forgetful {
            forgetful.observe(now_ms, here);
        }
        if self.is_leader() {
            self.leader_heard_ms = now_ms;
            self.node.tick();
            self.give_up_failed_transfer();
        } else if self.may_campaign() {
            let before = self.role();
            self.node.tick();
            if self.role() != StateRole::Follower {
                self.note_durable_alone(self.position());
                if before == StateRole::Follower {
                    self.campaign_ms = now_ms;
                }
            }
        } else {
            // Time goes on for the promise to the last leader; otherwise it would keep this node from voting for ever.
            let elapsed = &mut self.node.raft.election_elapsed;
            *elapsed = (*elapsed + 1).min(self.config.election_ticks as usize);
        }
        self.after_step();
    }

    /// A message of a peer, whose identity the connection has proved.
    pub fn message(&mut self, from: u64, message: PeerMessage, now_ms: u64) {
        self.now_ms = now_ms;
        match message {
            PeerMessage::Raft(raft) if raft.message.from == from => self.raft_message(raft),
            PeerMessage::Raft(_) => {}
            PeerMessage::Received(received) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.received = peer.received.max((received.term, received.index));
                }
            }
            PeerMessage::State(state) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    let again = peer.state.is_none_or(|known| known.boot != state.boot);
                    peer.state = Some(state);
                    peer.heard_ms = now_ms;
                    if again {
                        peer.received.1 = peer.received.1.min(state.last_index);
                        self.go_on_from(from, state.last_index);
                    }
                    self.go_on_within_log(from, state.last_index);
                }
            }
            PeerMessage::Handover(handover) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.handover = Some(handover);
                }
            }
            PeerMessage::CheckPart(_) | PeerMessage::SyncNow => {}
        }
    }

    /// Somebody waits for what the followers apply: they hear of each commit at once.
    pub fn tell_commits(&mut self, at_once: bool) {
        self.node.skip_bcast_commit(!at_once);
    }

    /// What a peer has said of its timers.
    pub fn goes_by(&mut self, peer: u64, timing: Timing) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.timing = timing;
        }
    }

    /// This node's connection to a peer is up.
    pub fn reached(&mut self, peer: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.reached = true;
            // It has forgotten what this node said before; whether it lets this one stand for election hangs on that.
            self.state_sent.1 = 0;
        }
    }

    /// The connection to a peer is gone.
    pub fn lost(&mut self, peer: u64) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.state = None;
            known.reached = false;
        }
        if self.is_leader() {
            self.node.report_unreachable(peer);
        }
    }

    /// Everything up to this `Persist` is on stable storage.
    pub fn persisted(&mut self, number: u64) -> Vec<(u64, PeerMessage)> {
        while self.saving_terms.front().is_some_and(|(of, _)| *of <= number) {
            self.persisted_term = self.saving_terms.pop_front().map_or(0, |(_, term)| term);
        }
        let mut free = Vec::new();
        let mut last = None;
        while self
            .held
            .front()
            .is_some_and(|held| held.number <= number || !held.needs_sync)
        {
            let Some(held) = self.held.pop_front() else { break };
            last = Some(held.number);
            free.extend(held.messages);
        }
        if let Some(last) = last {
            self.node.on_persist_ready(last);
        }
        if let Some(forgetful) = &mut self.forgetful {
            // Only what is known to be the leader's counts: this log's end may be of a term that lost.
            let (term, durable) = (self.node.raft.term, self.node.raft.raft_log.persisted);
            forgetful.holds(term, durable.min(self.node.raft.raft_log.committed));
            for message in free
                .iter()
                .filter(|message| message.msg_type == MessageType::MsgAppendResponse && !message.reject)
            {
                forgetful.holds(message.term, message.index.min(durable));
            }
            if forgetful.is_cured(term) {
                self.forgetful = None;
            }
        }
        let free = Self::last_of_each_row(free);
        free.into_iter().map(|message| self.outgoing(message)).collect()
    }

    /// The active role ended here. If this node goes on leading, what the role has sequenced is applied before the next one.
    pub fn role_ended(&mut self) {
        self.left_at = self.last();
    }

    /// Entries up to here are in the store.
    pub fn applied_to(&mut self, index: LogIndex) {
        self.applied = index.0;
        if index.0 > self.node.raft.raft_log.applied() {
            self.node.advance_apply_to(index.0);
        }
        let (durable, spread) = (self.durable(), self.spread());
        self.node.mut_store().release(index.0.min(durable), spread);
    }

    /// Where applying stands still, entries don't stay in memory for it: it reads them from the log.
    pub(super) fn release_unapplied(&mut self) {
        if self.node.store().bytes_after(self.applied) > UNAPPLIED_MAX {
            let (handed_out, spread) = (self.handed_out.min(self.durable()), self.spread());
            self.node.mut_store().release(handed_out, spread);
        }
    }

    /// Every peer that answers this leader holds the entries up to here; to a follower all others are the leader's care.
    fn spread(&self) -> u64 {
        if !self.is_leader() {
            return u64::MAX;
        }
        let here = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.heard_ms + HERE_MS >= self.now_ms);
        let matched = |(id, _): (&u64, _)| self.node.raft.prs().get(*id).map_or(0, |progress| progress.matched);
        here.map(matched).min().unwrap_or(u64::MAX)
    }

    /// What `Output::fetch` asked for was read.
    pub fn fetched(&mut self, wanted: Wanted, read: Result<Vec<Entry>, Unread>) {
        if matches!(read, Err(Unread::Failed(_))) {
            self.unreadable_at = self.unreadable_at.max(wanted.low);
        }
        let entries = read.unwrap_or_default();
        let unread = entries.is_empty();
        self.node.mut_store().put_fetched(wanted.low, entries);
        // What couldn't be read is asked for again with the peer's next answer, not at once and for ever.
        if !unread {
            self.node.on_entries_fetched(wanted.context);
            self.node.mut_store().end_fetched();
        }
    }

    /// Appends an entry to the log if this node leads and has room. The index is Raft's own answer; nothing
    /// is ever forwarded to another node.
    pub fn propose(&mut self, data: Bytes) -> Option<LogIndex> {
        if !self.is_leader() {
            return None;
        }
        let before = self.node.raft.raft_log.last_index();
        let mut entry = Entry::default();
        entry.data = data;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.id;
        message.entries = vec![entry].into();
        self.node.raft.step(message).ok()?;
        let index = self.node.raft.raft_log.last_index();
        (index == before + 1).then_some(LogIndex(index))
    }

    /// Gives the leadership to a peer. The lease ends first and doesn't come back in this term: the peer's
    /// forced election ignores what others promised us, whenever it takes place.
    pub fn transfer(&mut self, to: u64, handover: &stream::Handover) -> Vec<(u64, PeerMessage)> {
        if !self.is_leader() || self.transfer.is_some() {
            return Vec::new();
        }
        self.lease.end();
        // Until then nobody is elected but by the peer's forced election, and who wins it knows (`address_wait_ms`).
        self.keep_silent();
        self.transfer = Some(Transfer { since_tick: self.ticks });
        self.node.transfer_leader(to);
        self.peers
            .keys()
            .map(|peer| (*peer, PeerMessage::Handover(handover.clone())))
            .collect()
    }
}
