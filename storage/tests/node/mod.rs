//! One replica's store on a simulated disk: what the loop, the log thread, the apply thread and the checkpoint
//! thread do to it, step by step, with the real planner.

// Each test uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod look;
pub mod script;

use holdfast_storage::apply::{Applier, Committed};
use holdfast_storage::check::Part;
use holdfast_storage::checkpoint;
use holdfast_storage::disk::Disk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::error::StoreError;
use holdfast_storage::identity::Identity;
use holdfast_storage::log::{Geometry, HardState, Log, LogEntry, LogError};
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::op::{Caller, Op, Refusal, Reply};
use holdfast_storage::open::{self, Opened};
use holdfast_storage::plan::{self, Planned};
use holdfast_storage::store::Store;
use holdfast_storage::types::{Ino, LogIndex, Term, Time};
use std::sync::Arc;

pub const SMALL: Geometry = Geometry {
    segment_bytes: 512 << 10,
    segments: 4,
};
const TERM: Term = Term(3);

pub fn identity() -> Identity {
    Identity {
        cluster: "pbx".into(),
        node: "n1".into(),
        store: [7; 16],
        joined: LogIndex::ZERO,
    }
}

pub struct Node<D: Disk> {
    pub disk: D,
    pub meta: SimMeta,
    pub store: Arc<Store<D, SimMeta>>,
    pub log: Log<D>,
    pub applier: Applier<D, SimMeta>,
    /// Sequenced and not in the log yet.
    pub waiting: Vec<LogEntry>,
    pub clean: bool,
    pub torn: Option<String>,
}

impl<D: Disk> Node<D> {
    /// A new store whose first entry, the root, is applied.
    pub fn format(disk: D, now: Time) -> Self {
        open::format_as(&disk, &identity(), SMALL).expect("formats");
        let mut node = Self::open(disk, SimMeta::new()).expect("opens");
        node.sequence(plan::root(now));
        node.append().and_then(|()| node.apply(1)).expect("nothing fails yet");
        node
    }

    /// The first one, named `a`, with so many bytes; in the overlay.
    pub fn make_file(&mut self, now: Time, len: u64) {
        let caller = Caller {
            uid: 0,
            gid: 0,
            umask: 0,
        };
        let create = Op::Create {
            parent: Ino::ROOT,
            name: "a".into(),
            mode: libc::S_IFREG | 0o644,
            rdev: 0,
            target: "".into(),
            class: None,
            caller,
        };
        let write = Op::Write {
            ino: Ino(2),
            offset: 0,
            data: vec![7; len as usize].into(),
            clear_setid: false,
        };
        for op in [create, write] {
            self.propose(now, &op).expect("nothing refuses it");
        }
    }

    pub fn open(disk: D, meta: SimMeta) -> Result<Self, StoreError> {
        Self::open_as(disk, meta, identity())
    }

    pub fn open_as(disk: D, meta: SimMeta, identity: Identity) -> Result<Self, StoreError> {
        let Opened {
            store,
            log,
            clean,
            redo_until,
            recovered,
            ..
        } = open::open(disk.clone(), meta.clone(), identity)?;
        let applier = Applier::new(store.clone(), redo_until)?;
        Ok(Self {
            disk,
            meta,
            store,
            log,
            applier,
            waiting: Vec::new(),
            clean,
            torn: recovered.torn,
        })
    }

    pub fn logged(&self) -> LogIndex {
        self.log.reader().last_index()
    }

    pub fn sequenced(&self) -> LogIndex {
        self.waiting.last().map_or_else(|| self.logged(), |entry| entry.index)
    }

    pub fn sequence(&mut self, effects: Vec<Effect>) {
        let index = self.sequenced().next();
        self.store.overlay.sequence(index, &effects);
        let data = Entry { term: TERM, effects }.encode();
        self.waiting.push(LogEntry {
            index,
            term: TERM,
            kind: 0,
            data,
        });
    }

    /// Plans on what is sequenced so far; an operation that changes nothing isn't sequenced.
    pub fn propose(&mut self, now: Time, op: &Op) -> Result<Reply, Refusal> {
        loop {
            match plan::plan(&*self.store, now, op) {
                Planned::Do { effects, reply, .. } => {
                    if !effects.is_empty() {
                        self.sequence(effects);
                    }
                    return Ok(reply);
                }
                Planned::Refused(refusal) => return Err(refusal),
                Planned::Need(keys) => {
                    for key in keys {
                        self.store.value(&key).expect("the metadata store answers");
                    }
                }
            }
        }
    }

    /// What waits goes to the log. A full one gets room by a checkpoint.
    pub fn append(&mut self) -> Result<(), StoreError> {
        let state = HardState {
            term: TERM,
            vote: 1,
            commit: LogIndex::ZERO,
        };
        match self.log.append(Some(state), &self.waiting) {
            Err(LogError::Full) => {
                self.apply(usize::MAX)?;
                self.checkpoint()?;
                let stored = self.logged();
                self.waiting.retain(|entry| entry.index > stored);
                self.log.append(Some(state), &self.waiting)?;
            }
            appended => drop(appended?),
        }
        self.waiting.clear();
        Ok(())
    }

    /// Applies at most `count` entries of those in the log, in one batch.
    pub fn apply(&mut self, count: usize) -> Result<Vec<Part>, StoreError> {
        let (from, last) = (self.store.applied(), self.logged());
        let to = last.0.min(from.0.saturating_add(count as u64));
        if from.0 >= to {
            return Ok(Vec::new());
        }
        let entries = self.log.reader().read(from.next(), LogIndex(to + 1), usize::MAX)?;
        let committed = |entry: LogEntry| Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data,
        };
        let entries: Vec<Committed> = entries.into_iter().map(committed).collect();
        self.applier.apply(&entries)
    }

    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        let index = checkpoint::run(&self.store)?;
        self.log.trim(index);
        Ok(())
    }

    /// Deposed: what isn't in the log is gone.
    pub fn forget(&mut self) {
        self.store.overlay.forget_pending();
        self.waiting.clear();
    }
}
