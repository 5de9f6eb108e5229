//! Gives each change its place: plans it on what is sequenced so far, proposes it, shows it, and answers its
//! caller when its condition holds. Owned by the loop; does no I/O.

use crate::api::{Failure, Request, Scope, Wait};
use crate::urgency::Urgency;
use crate::waiting::{Answer, Waiting};
use holdfast_storage::RealStore;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::key::Key;
use holdfast_storage::op::{Fallocate, Op, Refusal, Reply};
use holdfast_storage::plan::{Planned, plan};
use holdfast_storage::types::{Ino, LogIndex, Term, Time};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Most memory for what is sequenced and not yet applied; then admission waits.
const PENDING_MAX: u64 = 64 << 20;

/// What became of a request that was handed in.
pub(crate) enum Submitted {
    Done,
    /// Its thread has to bring these keys into memory and hand it in again.
    Fetch(Request, Vec<Key>),
}

/// Appends to the log, or says that there is no room or no leadership now.
pub(crate) trait Propose {
    fn propose(&mut self, data: bytes::Bytes) -> Option<LogIndex>;
}

pub(crate) struct Sequencer {
    store: Arc<RealStore>,
    /// Not admitted yet, in order.
    queue: VecDeque<Request>,
    received: Waiting,
    committed: Waiting,
    /// Last index that changed a file, while it isn't committed.
    files: HashMap<Ino, u64>,
    /// Last index that changed any name.
    names: u64,
    newest: Time,
    pub(crate) urgency: Urgency,
    /// No room for more on this node or on the better standby.
    pub(crate) full: bool,
    /// Changes acknowledged since the start of this role; the first of them ends a failover.
    pub(crate) acknowledged: u64,
}

impl Sequencer {
    pub(crate) fn new(store: Arc<RealStore>) -> Self {
        Self {
            store,
            queue: VecDeque::new(),
            received: Waiting::default(),
            committed: Waiting::default(),
            files: HashMap::new(),
            names: 0,
            newest: Time::default(),
            urgency: Urgency::default(),
            full: false,
            acknowledged: 0,
        }
    }

    /// Times in files don't step back by less than two seconds (another node's clock after a failover); a
    /// larger step is followed.
    fn smooth(&mut self, wall: Time) -> Time {
        let back = self.newest.secs - wall.secs;
        self.newest = if wall >= self.newest || back > 2 {
            wall
        } else {
            self.newest
        };
        self.newest
    }

    pub(crate) fn submit(&mut self, request: Request, core: &mut impl Propose, term: Term, wall: Time) -> Submitted {
        if self.store.overlay.pending_bytes() > PENDING_MAX || !self.queue.is_empty() {
            self.queue.push_back(request);
            return Submitted::Done;
        }
        self.admit(request, core, term, wall)
    }

    /// Admits what waited, as far as there is room now.
    pub(crate) fn drain(
        &mut self,
        core: &mut impl Propose,
        term: Term,
        wall: Time,
        fetch: &mut Vec<(Request, Vec<Key>)>,
    ) {
        for _ in 0..self.queue.len() {
            if self.store.overlay.pending_bytes() > PENDING_MAX {
                break;
            }
            let Some(request) = self.queue.pop_front() else { break };
            let before = self.queue.len();
            if let Submitted::Fetch(request, keys) = self.admit(request, core, term, wall) {
                fetch.push((request, keys));
            }
            if self.queue.len() > before {
                break;
            }
        }
    }

    fn admit(&mut self, request: Request, core: &mut impl Propose, term: Term, wall: Time) -> Submitted {
        if self.full && needs_space(&request.op) {
            (request.done)(Err(Failure::Refused(Refusal::NoSpace)));
            return Submitted::Done;
        }
        let now = self.smooth(wall);
        let (effects, reply) = match plan(&*self.store, now, &request.op) {
            Planned::Do { effects, reply } => (effects, reply),
            Planned::Refused(refusal) => {
                (request.done)(Err(refusal.into()));
                return Submitted::Done;
            }
            Planned::Need(keys) => return Submitted::Fetch(request, keys),
        };
        if effects.is_empty() {
            (request.done)(Ok(reply));
            return Submitted::Done;
        }
        let entry = Entry { term, effects };
        let Some(index) = core.propose(entry.encode()) else {
            // Too much is uncommitted, or the leadership is just going; the role's end answers it then.
            self.queue.push_front(request);
            return Submitted::Done;
        };
        self.store.overlay.sequence(index, &entry.effects);
        self.note(index, &request.op, &entry.effects);
        self.wait(index, request, reply);
        Submitted::Done
    }

    /// Remembers what a later fsync must wait for.
    fn note(&mut self, index: LogIndex, op: &Op, effects: &[Effect]) {
        if changes_names(op) {
            self.names = index.0;
        }
        for effect in effects {
            if let Effect::Put { key, .. } = effect
                && key.first() != Some(&b'm')
                && let Some(ino) = holdfast_storage::key::owner(key)
            {
                self.files.insert(ino, index.0);
                self.urgency.changed(ino);
            }
        }
    }

    fn wait(&mut self, index: LogIndex, request: Request, reply: Reply) {
        let done = request.done;
        let answer: Answer = Box::new(move |outcome| done(outcome.map(|()| reply)));
        match request.wait {
            Wait::Sequenced => answer(Ok(())),
            Wait::Received => self.received.push(index.0, request.deadline_ms, answer),
            Wait::Committed => {
                self.urgency.now();
                self.committed
                    .push(index.0.max(self.names), request.deadline_ms, answer);
            }
        }
    }

    /// Answers when everything that the scope covers, as of now, is durable on a majority.
    pub(crate) fn sync(&mut self, scope: Scope, last: u64, deadline_ms: u64, answer: Answer) {
        let (index, file) = match scope {
            Scope::All => (last, None),
            Scope::File(ino) => (self.files.get(&ino).copied().unwrap_or(0).max(self.names), Some(ino)),
        };
        self.urgency.synced(file);
        self.committed.push(index, deadline_ms, answer);
    }

    /// Answers whose conditions hold. Only called while the lease runs.
    pub(crate) fn progress(&mut self, received: u64, committed: u64) {
        let answered = self.received.reached(received) + self.committed.reached(committed);
        self.acknowledged += answered as u64;
        if self.files.len() > 4096 {
            self.files.retain(|_, index| *index > committed);
        }
    }

    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.received.expire(now_ms);
        self.committed.expire(now_ms);
        let waiting = std::mem::take(&mut self.queue);
        for request in waiting {
            if request.deadline_ms <= now_ms {
                (request.done)(Err(Failure::Deadline));
            } else {
                self.queue.push_back(request);
            }
        }
    }

    /// The role is over: nobody may believe that what waits was done, or that it wasn't.
    pub(crate) fn end(&mut self) {
        self.received.fail_all(Failure::Lost);
        self.committed.fail_all(Failure::Lost);
        for request in std::mem::take(&mut self.queue) {
            (request.done)(Err(Failure::Lost));
        }
        self.files.clear();
        self.names = 0;
        self.acknowledged = 0;
        self.store.overlay.forget_pending();
    }

    /// Requests wait for room, which applying makes.
    pub(crate) fn is_full(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.received.len() + self.committed.len() + self.queue.len()
    }
}

fn changes_names(op: &Op) -> bool {
    matches!(
        op,
        Op::Create { .. } | Op::Link { .. } | Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. }
    )
}

/// Removing and shrinking must go on when the disk is full.
fn needs_space(op: &Op) -> bool {
    match op {
        Op::Create { .. } | Op::Link { .. } | Op::Write { .. } | Op::SetXattr { .. } => true,
        Op::Fallocate { how, .. } => !matches!(how, Fallocate::Punch),
        Op::Rename { .. }
        | Op::Unlink { .. }
        | Op::Rmdir { .. }
        | Op::SetAttr { .. }
        | Op::RemoveXattr { .. }
        | Op::Reap { .. } => false,
    }
}
