//! The log against a list in memory: random appends, conflicts, trims and restarts, with a crash at every call to
//! the disk. What was acknowledged is there, what was replaced stays away, the hard state never goes back.

use bytes::Bytes;
use holdfast_storage::disk::Disk as _;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::log::{Geometry, HardState, Log, LogEntry, LogError, Recovered};
use holdfast_storage::types::{LogIndex, Term};
use proptest::prelude::*;

const ID: [u8; 16] = [0x1d; 16];
/// So small that a few operations go round the ring.
const SMALL: Geometry = Geometry {
    segment_bytes: 32 << 10,
    segments: 4,
};

#[derive(Clone, Debug)]
enum Op {
    Append {
        count: u64,
        size: usize,
        commit: bool,
    },
    /// Replaces up to `back` uncommitted entries at the end, in a new term.
    Conflict {
        back: u64,
        count: u64,
        size: usize,
    },
    Vote {
        candidate: u64,
    },
    /// Checkpoints all that is committed but the last `keep`.
    Trim {
        keep: u64,
    },
    Restart,
    Grow,
}

/// Segments that a log is never made longer than here.
const GROWN_MAX: u64 = 7;

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![4 => 0..300_usize, 2 => 3000..9000_usize];
    let conflict_size = size.clone();
    prop_oneof![
        6 => (1..9_u64, size, any::<bool>()).prop_map(|(count, size, commit)| Op::Append { count, size, commit }),
        2 => (1..5_u64, 1..4_u64, conflict_size).prop_map(|(back, count, size)| Op::Conflict { back, count, size }),
        1 => (1..4_u64).prop_map(|candidate| Op::Vote { candidate }),
        2 => (0..6_u64).prop_map(|keep| Op::Trim { keep }),
        1 => Just(Op::Restart),
        1 => Just(Op::Grow),
    ]
}

/// What the log should hold: all entries from 1 on, the trimmed ones too.
#[derive(Clone, Default, Debug)]
struct Model {
    entries: Vec<LogEntry>,
    hard_state: HardState,
    trimmed: LogIndex,
    /// Makes the data of every entry ever made different.
    made: u64,
}

/// An append that has begun.
struct InFlight {
    hard_state: HardState,
    entries: Vec<LogEntry>,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    fn make(&mut self, first: u64, count: u64, size: usize, term: Term) -> Vec<LogEntry> {
        let make = |index| {
            self.made += 1;
            let data: Vec<u8> = self.made.to_le_bytes().into_iter().cycle().take(size).collect();
            LogEntry {
                index: LogIndex(index),
                term,
                kind: self.made as u8,
                data: Bytes::from(data),
            }
        };
        (first..first + count).map(make).collect()
    }

    /// The append that an operation asks for.
    fn plan(&mut self, op: &Op) -> Option<InFlight> {
        let state = self.hard_state;
        match *op {
            Op::Append { count, size, commit } => {
                let entries = self.make(self.last() + 1, count, size, state.term.max(Term(1)));
                let commit = if commit {
                    LogIndex(self.last() + count)
                } else {
                    state.commit
                };
                Some(InFlight {
                    hard_state: HardState { commit, ..state },
                    entries,
                })
            }
            Op::Conflict { back, count, size } => {
                let first = (self.last() + 1).saturating_sub(back).max(state.commit.0 + 1);
                let term = Term(state.term.0.max(1) + 1);
                let entries = self.make(first, count, size, term);
                Some(InFlight {
                    hard_state: HardState { term, ..state },
                    entries,
                })
            }
            Op::Vote { candidate } => {
                let term = Term(state.term.0.max(1) + 1);
                Some(InFlight {
                    hard_state: HardState {
                        term,
                        vote: candidate,
                        ..state
                    },
                    entries: Vec::new(),
                })
            }
            Op::Trim { .. } | Op::Restart | Op::Grow => None,
        }
    }

    fn apply(&mut self, appended: &[LogEntry], hard_state: HardState) {
        if let Some(first) = appended.first() {
            self.entries.truncate(first.index.0 as usize - 1);
            self.entries.extend_from_slice(appended);
        }
        self.hard_state = hard_state;
    }

    /// Checks what is held against the model and, of an append that had begun, any part from the front.
    /// The model becomes what was found.
    fn settle(&mut self, log: &Log<SimDisk>, found: &Recovered, in_flight: Option<&InFlight>) {
        let reader = log.reader();
        assert_eq!((reader.first_index(), reader.last_index()), (found.first, found.last));
        assert!(
            found.first <= self.trimmed.next(),
            "entries after {} are missing",
            self.trimmed
        );
        let held = reader
            .read(found.first, found.last.next(), usize::MAX)
            .expect("what is held can be read");
        let none = InFlight {
            hard_state: self.hard_state,
            entries: Vec::new(),
        };
        let in_flight = in_flight.unwrap_or(&none);
        let matching = (0..=in_flight.entries.len()).rev().find_map(|count| {
            let mut candidate = self.clone();
            candidate.apply(&in_flight.entries[..count], self.hard_state);
            let same = candidate.last() == found.last.0 && candidate.entries[found.first.0 as usize - 1..] == held;
            same.then_some((candidate, count))
        });
        let (candidate, count) = matching.expect("the log is what was acknowledged, and a part of what had begun");
        let (old, new) = (self.hard_state, in_flight.hard_state);
        let between = HardState {
            commit: found.hard_state.commit,
            ..new
        } == found.hard_state
            && (old.commit..=new.commit).contains(&found.hard_state.commit);
        let nothing_new = count == 0 && !in_flight.entries.is_empty();
        assert!(
            found.hard_state == old || between && !nothing_new,
            "{:?} between {old:?}, {new:?}",
            found.hard_state
        );
        assert!(found.hard_state.commit <= found.last);
        let everything = count == in_flight.entries.len() && count > 0;
        assert!(
            !everything || found.hard_state == new,
            "the last batch carries the hard state"
        );
        *self = candidate;
        self.hard_state = found.hard_state;
        for index in found.first.0 - 1..=found.last.0 {
            let term = index
                .checked_sub(1)
                .map_or(Term(0), |at| self.entries[at as usize].term);
            assert_eq!(reader.term(LogIndex(index)), Some(term), "term of entry {index}");
        }
    }
}

struct Run {
    disk: SimDisk,
    log: Log<SimDisk>,
    model: Model,
    /// That it surely has.
    segments: u64,
}

/// What was under way when the machine crashed.
type Crashed = Option<InFlight>;

impl Run {
    fn begin() -> Self {
        let disk = SimDisk::new();
        Log::format_as(disk.clone(), SMALL, ID).expect("formats");
        let (log, _) = Log::open(disk.clone(), ID, LogIndex::ZERO).expect("opens");
        Self {
            disk,
            log,
            model: Model {
                hard_state: HardState::default(),
                ..Model::default()
            },
            segments: u64::from(SMALL.segments),
        }
    }

    fn reopen(&mut self, in_flight: Option<&InFlight>) -> Result<(), LogError> {
        let (log, found) = Log::open(self.disk.clone(), ID, self.model.trimmed)?;
        self.log = log;
        // A crash while it was made longer leaves it so, or as it was.
        let segments = u64::from(self.log.geometry().segments);
        assert!(
            (self.segments..=self.segments + 1).contains(&segments),
            "{segments} segments"
        );
        let names = self.disk.list("log").expect("a folder");
        let files = names.iter().filter(|name| !name.starts_with("format")).count();
        assert_eq!(files as u64, segments, "{names:?}");
        self.segments = segments;
        self.log.trim(self.model.trimmed);
        self.model.settle(&self.log, &found, in_flight);
        Ok(())
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), Crashed> {
        ops.iter().try_for_each(|op| self.step(op))
    }

    fn step(&mut self, op: &Op) -> Result<(), Crashed> {
        match op {
            Op::Trim { keep } => {
                self.model.trimmed.0 = self
                    .model
                    .trimmed
                    .0
                    .max(self.model.hard_state.commit.0.saturating_sub(*keep));
                self.log.trim(self.model.trimmed);
                Ok(())
            }
            Op::Restart => self.reopen(None).map_err(|error| {
                assert!(matches!(error, LogError::Io { .. }), "{error}");
                None
            }),
            Op::Grow => {
                let before = self.log.free_bytes();
                let longer = self.log.geometry().total_bytes() + SMALL.segment_bytes;
                self.log
                    .grow(longer.min(GROWN_MAX * SMALL.segment_bytes))
                    .map_err(|error| {
                        assert!(matches!(error, LogError::Io { .. }), "{error}");
                        None
                    })?;
                let added = self.log.geometry().total_bytes() - self.segments * SMALL.segment_bytes;
                assert_eq!(self.log.free_bytes(), before + added);
                self.segments += added / SMALL.segment_bytes;
                Ok(())
            }
            _ => {
                let begun = self.model.plan(op).expect("all others append");
                self.append(begun)
            }
        }
    }

    fn append(&mut self, begun: InFlight) -> Result<(), Crashed> {
        match self.log.append(Some(begun.hard_state), &begun.entries) {
            Ok(synced) => {
                self.model.apply(&begun.entries, begun.hard_state);
                assert_eq!(synced.index().0, self.model.last());
                Ok(())
            }
            Err(LogError::Full) => {
                // What fitted is there; the rest is tried again when all that is committed is checkpointed.
                let reader = self.log.reader();
                let hard_state = self.log.hard_state();
                let first = reader.first_index();
                let found = Recovered {
                    hard_state,
                    first,
                    last: reader.last_index(),
                    last_term: Term(0),
                    torn: None,
                    passed: None,
                };
                self.model.settle(&self.log, &found, Some(&begun));
                self.model.trimmed = self.model.trimmed.max(self.model.hard_state.commit);
                self.log.trim(self.model.trimmed);
                Ok(())
            }
            Err(LogError::Io { .. }) => Err(Some(begun)),
            Err(other) => panic!("{other}"),
        }
    }
}

fn crash_everywhere(ops: &[Op], seed: u64) {
    let mut calm = Run::begin();
    let before = calm.disk.calls();
    calm.run(ops).unwrap_or_else(|_| panic!("nothing fails here"));
    calm.reopen(None).expect("opens");
    let total = calm.disk.calls() - before;
    for calls in 0..total {
        let seed = seed.wrapping_mul(1000).wrapping_add(calls);
        let mut run = Run::begin();
        run.disk.fail_after(calls);
        let Err(in_flight) = run.run(ops) else { continue };
        run.disk.crash(seed);
        // The first attempts to start again crash too.
        for again in 0..seed % 3 {
            run.disk.fail_after(again);
            let _ = Log::open(run.disk.clone(), ID, run.model.trimmed);
            run.disk.crash(seed + again);
        }
        run.reopen(in_flight.as_ref())
            .unwrap_or_else(|error| panic!("after a crash in call {calls}: {error}"));
        run.run(ops).unwrap_or_else(|_| panic!("nothing fails any more"));
        run.reopen(None).expect("opens");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_at_any_call_loses_nothing_acknowledged(ops in prop::collection::vec(op(), 1..40), seed: u64) {
        crash_everywhere(&ops, seed);
    }

    #[test]
    fn a_long_life_without_crashes_holds_what_was_appended(ops in prop::collection::vec(op(), 200..400)) {
        let mut run = Run::begin();
        run.run(&ops).unwrap_or_else(|_| panic!("nothing fails here"));
        run.reopen(None).expect("opens");
    }
}

#[test]
fn a_crash_while_making_the_log_leaves_none_or_a_whole_one() {
    let disk = SimDisk::new();
    Log::format_as(disk.clone(), SMALL, ID).expect("formats");
    for calls in 0..disk.calls() {
        for seed in 0..8 {
            let disk = SimDisk::new();
            disk.fail_after(calls);
            Log::format_as(disk.clone(), SMALL, ID).expect_err("crashes");
            disk.crash(seed);
            if let Err(error) = Log::open(disk.clone(), ID, LogIndex::ZERO) {
                assert!(matches!(error, LogError::NotFormatted), "{error}");
                Log::format_as(disk.clone(), SMALL, ID).expect("is made again");
            }
            let (log, found) = Log::open(disk.clone(), ID, LogIndex::ZERO).expect("opens");
            assert_eq!((found.last, found.torn), (LogIndex::ZERO, None));
            assert_eq!(log.free_bytes(), SMALL.total_bytes());
        }
    }
}
