//! What is committed and not applied. After a crash what is committed behind the checkpoint is read from the log once more: in pieces, between which the clock goes on,
//! and without an end of the process where it can't be read.

use bytes::Bytes;
use holdfast_replicator::core::{Core, CoreConfig, CoreStart, Sizes};
use holdfast_replicator::memory_log::{OldEntries, Unread};
use holdfast_replicator::wire::{PeerMessage, RaftMessage};
use holdfast_storage::log::{HardState, LogEntry};
use holdfast_storage::types::{LogIndex, Term};
use raft::eraftpb::{Entry, Message, MessageType};

const ENTRIES: u64 = 2000;
const BYTES: usize = 8 << 10;
/// Of one turn of the loop.
const AT_ONCE: usize = 2 << 20;

/// All there is, on disk.
struct Stored {
    unreadable: Option<u64>,
}

impl OldEntries for Stored {
    fn first_index(&self) -> LogIndex {
        LogIndex(1)
    }
    fn term(&self, index: LogIndex) -> Option<Term> {
        (index.0 <= ENTRIES).then_some(Term(1))
    }
    fn read(&self, low: LogIndex, high: LogIndex, max_bytes: usize) -> Result<Vec<LogEntry>, Unread> {
        let fitting = (max_bytes / BYTES).max(1) as u64;
        let high = high.0.min(low.0 + fitting);
        if self.unreadable.is_some_and(|index| (low.0..high).contains(&index)) {
            return Err(Unread::Failed("damaged at some offset".into()));
        }
        let entry = |index| LogEntry {
            index: LogIndex(index),
            term: Term(1),
            kind: 0,
            data: Bytes::from(vec![1; BYTES]),
        };
        Ok((low.0..high).map(entry).collect())
    }
}

fn core(start: CoreStart, unreadable: Option<u64>) -> Core<Stored> {
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
    Core::new(config, start, Stored { unreadable }, 1).expect("a log as it should be")
}

/// All is committed, nothing is checkpointed.
fn crashed() -> CoreStart {
    CoreStart {
        hard_state: HardState {
            term: Term(1),
            vote: 2,
            commit: LogIndex(ENTRIES),
        },
        last: LogIndex(ENTRIES),
        ..CoreStart::default()
    }
}

/// The disk is too full to apply anything, say; the log still takes what comes.
#[test]
fn entries_that_are_not_applied_do_not_stay_in_memory() {
    const PIECE: usize = 1 << 20;
    const MOST: usize = 70 << 20;
    let start = CoreStart {
        clean: true,
        ..CoreStart::default()
    };
    let mut core = core(start, None);
    let mut handed_out = 0;
    for index in 1..=200 {
        let mut entry = Entry::default();
        (entry.index, entry.term, entry.data) = (index, 1, vec![1; PIECE].into());
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term) = (2, 1, 1);
        (message.index, message.log_term, message.commit) = (index - 1, u64::from(index > 1), index - 1);
        message.entries = vec![entry].into();
        let raft = RaftMessage {
            message,
            sent_at_ms: 0,
            last_index: index,
        };
        core.message(2, PeerMessage::Raft(raft), index);
        let output = core.output();
        for persist in output.persist {
            core.persisted(persist.number);
        }
        handed_out += output.committed.len() as u64;
        assert!(
            core.held_bytes() <= MOST,
            "{} bytes at entry {index}",
            core.held_bytes()
        );
    }
    assert!(handed_out >= 198, "{handed_out}");
}

#[test]
fn redo_comes_in_pieces() {
    let mut core = core(crashed(), None);
    let (mut next, mut turns) = (1, 0);
    loop {
        let output = core.output();
        turns += 1;
        assert_eq!(output.broken, None);
        let bytes: usize = output.committed.iter().map(|entry| entry.data.len()).sum();
        assert!(bytes <= AT_ONCE, "{bytes} bytes in one turn");
        for entry in output.committed {
            assert_eq!(entry.index.0, next);
            next += 1;
        }
        if !output.more {
            break;
        }
    }
    assert_eq!(next, ENTRIES + 1);
    assert!(turns >= ENTRIES as usize * BYTES / AT_ONCE, "{turns} turns");
}

#[test]
fn what_cannot_be_read_is_said_and_nothing_behind_it_comes() {
    let mut core = core(crashed(), Some(700));
    let mut last = 0;
    let why = loop {
        let output = core.output();
        last = output.committed.last().map_or(last, |entry| entry.index.0);
        match output.broken {
            Some(why) => break why,
            None => assert!(output.more, "it ends without a reason at {last}"),
        }
    };
    assert!(why.contains("damaged at some offset"), "{why}");
    assert!(last < 700, "{last}");
    assert!(core.output().committed.is_empty());
}
