//! raft-rs's messages as our own wire types and back. Its protobuf parser never sees bytes from the network.

use bytes::{Bytes, BytesMut};
use holdfast_proto::stream::{self, EntryHeader};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

/// What travels between two nodes' cores.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    Raft(RaftMessage),
    Received(stream::Received),
    State(stream::NodeState),
    Handover(stream::Handover),
    CheckPart(stream::CheckPart),
    SyncNow,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RaftMessage {
    pub message: Message,
    /// Heartbeats: the sender's CLOCK_BOOTTIME; answers: that of the heartbeat answered.
    pub sent_at_ms: u64,
    /// Last index of the sender's log.
    pub last_index: u64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadFrame {
    #[error("a frame without a body that this version knows: are the nodes' versions too far apart?")]
    Unknown,
    #[error("a consensus message of unknown kind {0}")]
    Kind(u32),
    #[error("a frame whose entries say {claimed} bytes of data but that carries {carried}")]
    Length { claimed: u64, carried: u64 },
    #[error("a frame out of place: {0}")]
    Unexpected(&'static str),
}

/// Snapshots are never sent (a node that fell behind the log is told so), proposals never forwarded.
const KINDS: [(u32, MessageType); 11] = [
    (1, MessageType::MsgAppend),
    (2, MessageType::MsgAppendResponse),
    (3, MessageType::MsgRequestVote),
    (4, MessageType::MsgRequestVoteResponse),
    (5, MessageType::MsgHeartbeat),
    (6, MessageType::MsgHeartbeatResponse),
    (7, MessageType::MsgTransferLeader),
    (8, MessageType::MsgTimeoutNow),
    (9, MessageType::MsgRequestPreVote),
    (10, MessageType::MsgRequestPreVoteResponse),
    (11, MessageType::MsgUnreachable),
];

/// Whether a message of this kind ever leaves a node.
pub fn travels(kind: MessageType) -> bool {
    KINDS.iter().any(|(_, known)| *known == kind)
        && !matches!(kind, MessageType::MsgUnreachable | MessageType::MsgTransferLeader)
}

/// Header and payload pieces of a frame's body.
pub fn encode(message: &PeerMessage) -> (stream::Frame, Vec<Bytes>) {
    use stream::frame::Body;
    let (body, payload) = match message {
        PeerMessage::Raft(raft) => {
            let (header, payload) = encode_raft(raft);
            (Body::Raft(header), payload)
        }
        PeerMessage::Received(received) => (Body::Received(*received), vec![]),
        PeerMessage::State(state) => (Body::State(*state), vec![]),
        PeerMessage::Handover(handover) => (Body::Handover(handover.clone()), vec![]),
        PeerMessage::CheckPart(part) => (Body::CheckPart(part.clone()), vec![]),
        PeerMessage::SyncNow => (Body::SyncNow(stream::SyncNow {}), vec![]),
    };
    (stream::Frame { body: Some(body) }, payload)
}

fn encode_raft(raft: &RaftMessage) -> (stream::Raft, Vec<Bytes>) {
    let message = &raft.message;
    let kind = KINDS
        .iter()
        .find(|(_, known)| *known == message.msg_type)
        .map_or(0, |(kind, _)| *kind);
    let header = |entry: &Entry| EntryHeader {
        kind: u32::from(entry.entry_type != EntryType::EntryNormal),
        term: entry.term,
        index: entry.index,
        len: entry.data.len() as u32,
    };
    let header = stream::Raft {
        kind,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        priority: message.priority,
        context: message.context.clone(),
        entries: message.entries.iter().map(header).collect(),
        sent_at_ms: raft.sent_at_ms,
        last_index: raft.last_index,
    };
    let payload = message
        .entries
        .iter()
        .filter(|entry| !entry.data.is_empty())
        .map(|entry| entry.data.clone())
        .collect();
    (header, payload)
}

pub fn decode(frame: stream::Frame, payload: Bytes) -> Result<PeerMessage, BadFrame> {
    use stream::frame::Body;
    Ok(match frame.body.ok_or(BadFrame::Unknown)? {
        Body::Raft(header) => PeerMessage::Raft(decode_raft(header, payload)?),
        Body::Received(received) => PeerMessage::Received(received),
        Body::State(state) => PeerMessage::State(state),
        Body::Handover(handover) => PeerMessage::Handover(handover),
        Body::CheckPart(part) => PeerMessage::CheckPart(part),
        Body::SyncNow(_) => PeerMessage::SyncNow,
        Body::Hello(_) => return Err(BadFrame::Unexpected("a second greeting")),
        Body::Refused(_) => return Err(BadFrame::Unexpected("a refusal after the greeting")),
    })
}

fn decode_raft(header: stream::Raft, mut payload: Bytes) -> Result<RaftMessage, BadFrame> {
    let kind = KINDS
        .iter()
        .find(|(kind, known)| *kind == header.kind && travels(*known));
    let (_, msg_type) = *kind.ok_or(BadFrame::Kind(header.kind))?;
    let claimed = header.entries.iter().map(|entry| u64::from(entry.len)).sum();
    if claimed != payload.len() as u64 {
        return Err(BadFrame::Length {
            claimed,
            carried: payload.len() as u64,
        });
    }
    let mut message = Message::default();
    message.msg_type = msg_type;
    message.from = header.from;
    message.to = header.to;
    message.term = header.term;
    message.log_term = header.log_term;
    message.index = header.index;
    message.commit = header.commit;
    message.commit_term = header.commit_term;
    message.reject = header.reject;
    message.reject_hint = header.reject_hint;
    message.request_snapshot = header.request_snapshot;
    message.priority = header.priority;
    message.context = header.context;
    let entry = |header: EntryHeader| {
        let mut entry = Entry::default();
        entry.term = header.term;
        entry.index = header.index;
        entry.data = payload.split_to(header.len as usize);
        if header.kind != 0 {
            entry.entry_type = EntryType::EntryConfChangeV2;
        }
        entry
    };
    message.entries = header.entries.into_iter().map(entry).collect::<Vec<_>>().into();
    Ok(RaftMessage {
        message,
        sent_at_ms: header.sent_at_ms,
        last_index: header.last_index,
    })
}

/// Largest header and payload that a peer may send; a header names each entry, and they may be tiny.
pub const MAX_HEADER: usize = 4 << 20;
pub const MAX_PAYLOAD: usize = 64 << 20;

/// Both lengths and the header in one piece; the payload's pieces follow it on the stream.
pub fn frame_head(frame: &stream::Frame, payload_len: usize) -> Bytes {
    use prost::Message as _;
    let header = frame.encoded_len();
    let mut out = BytesMut::with_capacity(8 + header);
    out.extend_from_slice(&(header as u32).to_le_bytes());
    out.extend_from_slice(&(payload_len as u32).to_le_bytes());
    frame.encode(&mut out).expect("the buffer grows");
    out.freeze()
}
