//! What comes from a peer over the replication stream, for `fuzz/`: no panic, no answer that isn't a refusal or what was said,
//! and what was decoded and is encoded again gives the same value. Not there in any other build.

use crate::core::{Core, CoreConfig, CoreStart, Sizes};
use crate::memory_log::{OldEntries, Unread};
pub use crate::net::fuzzing::greeting;
use crate::net::fuzzing::{hello, read};
use crate::net::tls::node_name;
use crate::pins::Pins;
use crate::task::told;
use crate::wire::{self, PeerMessage, RaftMessage};
use bytes::Bytes;
use holdfast_proto::stream;
use holdfast_storage::log::LogEntry;
use holdfast_storage::types::{LogIndex, Term};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

/// What one input is given to.
pub type Target = fn(&[u8]);

/// With the names that they have in `fuzz/`.
pub const TARGETS: [(&str, Target); 5] = [
    ("consensus", consensus),
    ("greeting", greeting),
    ("peers", peers),
    ("stream", stream),
    ("subject", subject),
];

fn written(message: &PeerMessage) -> Vec<u8> {
    let (frame, payload) = wire::encode(message);
    let len = payload.iter().map(Bytes::len).sum();
    let mut bytes = wire::frame_head(&frame, len).to_vec();
    bytes.extend(payload.concat());
    bytes
}

/// Frames until one is refused.
pub fn stream(data: &[u8]) {
    let mut rest = data;
    while let Some((frame, payload)) = read(&mut rest) {
        assert_eq!(stream::Frame::decode(&frame.encode_to_vec()[..]), Ok(frame.clone()));
        let Ok(message) = wire::decode(frame, payload) else {
            return;
        };
        let bytes = written(&message);
        let (frame, payload) = read(&mut &bytes[..]).expect("what this software writes");
        assert_eq!(wire::decode(frame, payload), Ok(message.clone()));
        if let PeerMessage::CheckPart(part) = message {
            let _ = told(part);
        }
    }
}

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

const KINDS: [MessageType; 9] = [
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

/// Numbers off an input: small as one byte, any as nine; zeros at its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        match self.u8() {
            255 => u64::from_le_bytes(std::array::from_fn(|_| self.u8())),
            254 => 1 << 62,
            small => small.into(),
        }
    }
}

/// Messages that no healthy peer would send, between ticks: the consensus core bears them.
pub fn consensus(data: &[u8]) {
    let config = CoreConfig {
        id: 1,
        peers: vec![2, 3],
        election_ticks: 5,
        heartbeat_ticks: 1,
        lease_ms: 190,
        forgetful_wait_ms: 1000,
        seed: 7,
        sizes: Sizes::of_log(1 << 30),
    };
    let mut input = Input(data);
    let start = CoreStart {
        clean: input.u8().is_multiple_of(2),
        ..CoreStart::default()
    };
    let mut core = Core::new(config, start, NoDisk, 1).expect("an empty store");
    let mut now = 0;
    while !input.0.is_empty() {
        let from = 2 + u64::from(input.u8() % 2);
        match input.u8() % 8 {
            0 => {
                for _ in 0..input.u8() % 16 {
                    now += 50;
                    core.tick(now);
                }
            }
            1 => core.message(from, PeerMessage::State(state(&mut input)), now),
            2 => {
                let received = stream::Received {
                    term: input.number(),
                    index: input.number(),
                };
                core.message(from, PeerMessage::Received(received), now);
            }
            3 => drop(core.propose(Bytes::from_static(b"entry"))),
            4 => {
                core.lost(from);
                core.reached(from);
            }
            _ => {
                let message = raft(from, &mut input);
                core.message(from, PeerMessage::Raft(message), now);
            }
        }
        let output = core.output();
        for persist in output.persist {
            core.persisted(persist.number);
        }
        for committed in output.committed {
            core.applied_to(committed.index);
        }
    }
}

fn state(input: &mut Input<'_>) -> stream::NodeState {
    let flags = input.u8();
    stream::NodeState {
        forgetful: flags & 1 != 0,
        eligible: flags & 2 != 0,
        suspended: flags & 4 != 0,
        last_term: input.number(),
        last_index: input.number(),
        boot: input.number(),
        leader: input.number(),
        history: input.number(),
        ..stream::NodeState::default()
    }
}

fn raft(from: u64, input: &mut Input<'_>) -> RaftMessage {
    let mut message = Message::default();
    message.msg_type = KINDS[usize::from(input.u8()) % KINDS.len()];
    (message.from, message.to) = (from, 1);
    (message.term, message.log_term, message.index) = (input.number(), input.number(), input.number());
    (message.commit, message.commit_term, message.reject_hint) = (input.number(), input.number(), input.number());
    let flags = input.u8();
    message.reject = flags & 1 != 0;
    message.request_snapshot = if flags & 2 != 0 { input.number() } else { 0 };
    message.priority = if flags & 4 != 0 { input.number() as i64 } else { 0 };
    if flags & 8 != 0 {
        message.context = Bytes::from_static(b"CampaignTransfer");
    }
    let mut next = message.index.wrapping_add(1);
    for _ in 0..input.u8() % 5 {
        let mut entry = Entry::default();
        entry.term = input.number();
        entry.index = next;
        entry.data = Bytes::from(vec![1; usize::from(input.u8() % 32)]);
        match input.u8() {
            1 => entry.entry_type = EntryType::EntryConfChangeV2,
            2 => entry.index = input.number(),
            _ => {}
        }
        next = entry.index.wrapping_add(1);
        message.entries.push(entry);
    }
    RaftMessage {
        message,
        sent_at_ms: input.number(),
        last_index: input.number(),
    }
}

/// The file that says which stores the peers have.
pub fn peers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(known) = Pins::parse(text) {
        assert_eq!(Pins::parse(&Pins::text(&known)), Ok(known));
    }
}

/// A peer's certificate; rustls has found it to be of our CA by then.
pub fn subject(data: &[u8]) {
    let _ = node_name(&data.into());
}

/// Real encodings to begin with, each with the target that it is for.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut entry = Entry::default();
    (entry.term, entry.index, entry.data) = (3, 8, Bytes::from_static(b"data"));
    let mut append = Message::default();
    append.msg_type = MessageType::MsgAppend;
    (append.from, append.to, append.term, append.log_term) = (2, 1, 3, 3);
    (append.index, append.commit, append.entries) = (7, 6, vec![entry].into());
    let raft = |message| {
        PeerMessage::Raft(RaftMessage {
            message,
            sent_at_ms: 5,
            last_index: 8,
        })
    };
    let mut beat = Message::default();
    beat.msg_type = MessageType::MsgHeartbeat;
    (beat.from, beat.to, beat.term) = (2, 1, 3);
    let part = stream::CheckPart {
        index: 9,
        hash: vec![1; 16].into(),
        count: 4096,
        id: 5,
        sums: vec![2; 16].into(),
        next: Bytes::from_static(b"next"),
        keys: vec![stream::KeyHash {
            key: Bytes::from_static(b"key"),
            hash: vec![3; 16].into(),
        }],
        ..stream::CheckPart::default()
    };
    let handover = stream::Handover {
        term: 3,
        vip_released: true,
        reason: "planned".into(),
    };
    let messages = [
        raft(append),
        raft(beat),
        PeerMessage::Received(stream::Received { term: 3, index: 8 }),
        PeerMessage::State(state(&mut Input(&[3, 1, 8, 77, 2, 5]))),
        PeerMessage::Handover(handover),
        PeerMessage::CheckPart(part),
        PeerMessage::SyncNow,
    ];
    let each = messages.iter().map(|message| ("stream", written(message)));
    let mut all: Vec<_> = each.collect();
    all.push(("stream", messages.iter().flat_map(written).collect()));
    all.push(("greeting", hello()));
    all.push(("peers", b"2 0707070707070707 0\n3 aa 4711\n".to_vec()));
    all.push(("peers", b"2 aa\n".to_vec()));
    // Becomes a candidate, then leader; follows; gets an entry, and a heartbeat that commits it.
    all.push((
        "consensus",
        vec![0, 0, 0, 15, 0, 5, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3],
    ));
    all.push((
        "consensus",
        vec![
            0, 0, 5, 0, 3, 0, 0, 0, 0, 0, 0, 1, 3, 4, 0, 1, 1, 0, 5, 4, 3, 0, 0, 1, 0, 0, 0, 0, 5, 5, 0, 0, 3,
        ],
    ));
    all.push(("subject", include_bytes!("../../fuzz/seeds/subject.der").to_vec()));
    all
}

#[cfg(test)]
#[path = "../../fuzz/src/kept.rs"]
mod kept;

#[cfg(test)]
#[test]
fn every_kept_input_is_decoded_or_refused() {
    kept::run(&TARGETS, &seeds());
}

#[cfg(test)]
#[test]
#[ignore = "writes fuzz/corpus: for a format that has changed"]
fn real_encodings_are_written() {
    kept::write(&seeds());
}
