//! Frames of version 2 of the replication stream, as they were recorded: this software reads them as what they meant, and writes
//! the same.

use bytes::{Bytes, BytesMut};
use holdfast_proto::stream::{self, frame::Body};
use holdfast_replicator::wire::{self, PeerMessage, RaftMessage};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

#[path = "../../tests/recorded.rs"]
mod recorded;

const FILE: &str = "stream-2.txt";

fn raft(kind: MessageType, change: impl FnOnce(&mut Message)) -> PeerMessage {
    let mut message = Message::default();
    message.msg_type = kind;
    (message.from, message.to, message.term) = (2, 1, 7);
    change(&mut message);
    PeerMessage::Raft(RaftMessage {
        message,
        sent_at_ms: 123_456,
        last_index: 4711,
    })
}

fn entry(index: u64, kind: EntryType, data: &'static [u8]) -> Entry {
    let mut entry = Entry::default();
    (entry.term, entry.index, entry.entry_type) = (7, index, kind);
    entry.data = Bytes::from_static(data);
    entry
}

/// One of each kind, with all fields that the kind uses.
fn messages() -> Vec<(&'static str, PeerMessage)> {
    let log = |message: &mut Message| (message.log_term, message.index) = (6, 41);
    let append = raft(MessageType::MsgAppend, |message| {
        log(message);
        (message.commit, message.commit_term) = (40, 6);
        message.entries = vec![
            entry(42, EntryType::EntryNormal, b"first"),
            entry(43, EntryType::EntryNormal, b""),
            entry(44, EntryType::EntryConfChangeV2, b"third"),
        ]
        .into();
    });
    let state = stream::NodeState {
        forgetful: true,
        last_term: 7,
        last_index: 44,
        boot: 99,
        leader: 2,
        eligible: true,
        store_free: 1 << 40,
        applied: 40,
        lag_bytes: 512,
        history: 1_700_000_000_000_000_000,
        suspended: true,
        third_store: 0,
        store_spare: 0,
    };
    let part = stream::CheckPart {
        index: 44,
        hash: vec![1; 32].into(),
        count: 8192,
        error: "an error".into(),
        id: 5,
        next_data: u64::MAX,
        sums: vec![2; 32].into(),
        keys: vec![stream::KeyHash {
            key: Bytes::from_static(b"i\0\0\0\0\0\0\0\x02"),
            hash: vec![3; 16].into(),
        }],
        next: Bytes::from_static(b"next"),
    };
    let handover = stream::Handover {
        term: 7,
        vip_released: true,
        reason: "planned".into(),
    };
    let campaign = |message: &mut Message| {
        log(message);
        message.context = Bytes::from_static(b"CampaignTransfer");
    };
    let refuse = |message: &mut Message| {
        log(message);
        (message.reject, message.reject_hint) = (true, 30);
    };
    vec![
        ("append", append),
        ("append-answer", raft(MessageType::MsgAppendResponse, refuse)),
        ("vote", raft(MessageType::MsgRequestVote, campaign)),
        ("vote-answer", raft(MessageType::MsgRequestVoteResponse, refuse)),
        (
            "heartbeat",
            raft(MessageType::MsgHeartbeat, |message| message.commit = 40),
        ),
        ("heartbeat-answer", raft(MessageType::MsgHeartbeatResponse, |_| {})),
        ("timeout-now", raft(MessageType::MsgTimeoutNow, |_| {})),
        ("pre-vote", raft(MessageType::MsgRequestPreVote, log)),
        ("pre-vote-answer", raft(MessageType::MsgRequestPreVoteResponse, refuse)),
        (
            "received",
            PeerMessage::Received(stream::Received { term: 7, index: 44 }),
        ),
        ("state", PeerMessage::State(state)),
        ("handover", PeerMessage::Handover(handover)),
        ("check-part", PeerMessage::CheckPart(part)),
        ("sync-now", PeerMessage::SyncNow),
    ]
}

/// What only the beginning of a connection has.
fn greetings() -> Vec<(&'static str, stream::Frame)> {
    let hello = stream::Hello {
        protocol: 2,
        cluster_id: "92f06b08e304a68837852a5b2e63d034".into(),
        node: "n2".into(),
        id: 2,
        store_id: "5b0c".repeat(8),
        version: "0.1.0".into(),
        features: 1,
        history: 1_700_000_000_000_000_000,
        joined: 4711,
        lease_ms: 0,
        after_lease_ms: 0,
    };
    let refused = stream::Refused { why: "a reason".into() };
    let frame = |body| stream::Frame { body: Some(body) };
    vec![
        ("hello", frame(Body::Hello(hello))),
        ("refused", frame(Body::Refused(refused))),
    ]
}

fn written(frame: &stream::Frame, payload: &[Bytes]) -> Vec<u8> {
    let len = payload.iter().map(Bytes::len).sum();
    [&wire::frame_head(frame, len)[..], &payload.concat()].concat()
}

/// Header and payload, by the lengths before them.
fn split(bytes: &[u8]) -> (Bytes, Bytes) {
    let len = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (header, payload) = (len(0), len(4));
    assert_eq!(bytes.len(), 8 + header + payload);
    let mut rest = Bytes::copy_from_slice(&bytes[8..]);
    (rest.split_to(header), rest)
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    let messages = messages();
    let messages = messages.iter().map(|(name, message)| {
        let (frame, payload) = wire::encode(message);
        (*name, written(&frame, &payload))
    });
    let greetings = greetings();
    let greetings = greetings.iter().map(|(name, frame)| (*name, written(frame, &[])));
    messages.chain(greetings).collect()
}

#[test]
fn recorded_frames_mean_what_they_meant() {
    let recorded = recorded::read(FILE);
    recorded::same_names(&recorded, all().iter().map(|(name, _)| *name));
    for (name, message) in messages() {
        let (header, payload) = split(&recorded[name]);
        let frame = stream::Frame::decode(header).expect(name);
        assert_eq!(wire::decode(frame, payload), Ok(message), "{name}");
    }
    for (name, frame) in greetings() {
        let (header, _) = split(&recorded[name]);
        assert_eq!(stream::Frame::decode(header), Ok(frame), "{name}");
    }
}

#[test]
fn a_peer_of_the_release_before_gets_the_same_bytes() {
    let recorded = recorded::read(FILE);
    for (name, bytes) in all() {
        assert_eq!(bytes, recorded[name], "{name}");
    }
}

/// A field that only a later version knows.
#[test]
fn what_a_later_version_adds_is_left_out() {
    let recorded = recorded::read(FILE);
    for (name, message) in messages() {
        let (header, payload) = split(&recorded[name]);
        // Into the frame, and into its body, which the header consists of: a tag and a length, each of one or two bytes.
        let (tag, body) = (header[0], header.slice(1..));
        let mut rest = &body[..];
        let len = prost::encoding::decode_varint(&mut rest).expect(name) as usize;
        assert_eq!(rest.len(), len, "{name}");
        let unknown = [0xf8, 0x3e, 5];
        let mut later = BytesMut::from(&[tag][..]);
        prost::encoding::encode_varint((len + unknown.len()) as u64, &mut later);
        later.extend_from_slice(rest);
        later.extend_from_slice(&unknown);
        later.extend_from_slice(&unknown);
        let frame = stream::Frame::decode(later.freeze()).expect(name);
        assert_eq!(wire::decode(frame, payload), Ok(message), "{name}");
    }
}

#[test]
#[ignore = "adds what is new to the recorded frames"]
fn new_frames_are_recorded() {
    recorded::add(FILE, &all());
}
