//! What a peer may send: every message survives the way over the stream, and no bytes make a node panic.

use bytes::{Bytes, BytesMut};
use holdfast_proto::stream;
use holdfast_replicator::core::{Core, CoreConfig, CoreStart, Sizes};
use holdfast_replicator::memory_log::{OldEntries, Unread};
use holdfast_replicator::wire::{self, PeerMessage, RaftMessage};
use holdfast_storage::log::LogEntry;
use holdfast_storage::types::{LogIndex, Term};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

const TRAVELLERS: [MessageType; 9] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// Small, so that they often meet what a node holds, and now and then extreme.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0u64..8, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (number(), number(), vec(any::<u8>(), 0..40), any::<bool>()).prop_map(|(term, index, data, conf)| {
        let mut entry = Entry::default();
        entry.term = term;
        entry.index = index;
        entry.data = data.into();
        if conf {
            entry.entry_type = EntryType::EntryConfChangeV2;
        }
        entry
    });
    vec(entry, 0..5)
}

prop_compose! {
    fn raft_message()(
        msg_type in prop::sample::select(&TRAVELLERS[..]),
        (from, to) in (2u64..4, Just(1u64)),
        (term, log_term, index) in (number(), number(), number()),
        (commit, commit_term, reject_hint) in (number(), number(), number()),
        (reject, request_snapshot, priority) in (any::<bool>(), prop_oneof![9 => Just(0u64), 1 => any::<u64>()], prop_oneof![9 => Just(0i64), 1 => any::<i64>()]),
        context in prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"CampaignTransfer")), vec(any::<u8>(), 0..9).prop_map(Bytes::from)],
        entries in entries(),
        (sent_at_ms, last_index) in (number(), number()),
    ) -> RaftMessage {
        let mut message = Message::default();
        (message.msg_type, message.from, message.to) = (msg_type, from, to);
        (message.term, message.log_term, message.index) = (term, log_term, index);
        (message.commit, message.commit_term, message.reject_hint) = (commit, commit_term, reject_hint);
        (message.reject, message.request_snapshot, message.priority) = (reject, request_snapshot, priority);
        message.context = context;
        message.entries = entries.into();
        RaftMessage { message, sent_at_ms, last_index }
    }
}

/// A node that has read nothing back from its disk yet.
struct NoDisk;

impl OldEntries for NoDisk {
    fn first_index(&self) -> LogIndex {
        LogIndex(1)
    }
    fn term(&self, _index: LogIndex) -> Option<Term> {
        None
    }
    fn read(&self, _low: LogIndex, _high: LogIndex, _max_bytes: usize) -> Result<Vec<LogEntry>, Unread> {
        Ok(Vec::new())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_message_comes_out_as_it_went_in(raft in raft_message()) {
        let message = PeerMessage::Raft(raft);
        let (frame, payload) = wire::encode(&message);
        let header = stream::Frame::decode(Bytes::from(frame.encode_to_vec())).expect("what was just encoded");
        let payload = payload.iter().fold(BytesMut::new(), |mut all, piece| { all.extend_from_slice(piece); all }).freeze();
        prop_assert_eq!(wire::decode(header, payload), Ok(message));
    }

    #[test]
    fn garbage_is_an_error(header in vec(any::<u8>(), 0..200), payload in vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = stream::Frame::decode(Bytes::from(header)) {
            let _ = wire::decode(frame, payload.into());
        }
    }

    #[test]
    fn lengths_that_lie_are_an_error(raft in raft_message(), off in 1usize..9) {
        let (frame, payload) = wire::encode(&PeerMessage::Raft(raft));
        let longer = payload.iter().map(Bytes::len).sum::<usize>() + off;
        let decoded = wire::decode(frame, vec![0; longer].into());
        let refused = matches!(decoded, Err(wire::BadFrame::Length { .. }));
        prop_assert!(refused);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    /// Well-formed frames whose content no healthy peer would send.
    #[test]
    fn odd_messages_never_panic(messages in vec(raft_message(), 1..40), ticks in 0u64..40) {
        let config = CoreConfig { id: 1, peers: vec![2, 3], election_ticks: 5, heartbeat_ticks: 1, lease_ms: 190, forgetful_wait_ms: 1000, seed: 7, sizes: Sizes::of_log(1 << 30) };
        let start = CoreStart { clean: true, ..CoreStart::default() };
        let mut core = Core::new(config, start, NoDisk, 1).expect("an empty store");
        for now in 0..ticks {
            core.tick(now * 50);
        }
        for raft in messages {
            core.message(raft.message.from, PeerMessage::Raft(raft), ticks * 50);
            core.tick(ticks * 50);
            let output = core.output();
            for persist in output.persist {
                core.persisted(persist.number);
            }
        }
    }
}
