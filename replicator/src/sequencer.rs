//! Gives each change its place: plans it on what is sequenced so far, proposes it, shows it, and answers its
//! caller when its condition holds. Owned by the loop; does no I/O.

use crate::api::{Failure, Request, Scope, Wait};
use crate::behind::Unwaited;
use crate::linger::Linger;
use crate::queue::Queue;
use crate::urgency::Urgency;
use crate::waiting::{Answer, Waiting};
use holdfast_storage::class::{Behind, Class};
use holdfast_storage::disk::Disk;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::key::Key;
use holdfast_storage::meta::Meta;
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::op::{Fallocate, Op, Refusal, Reply};
use holdfast_storage::plan::{Planned, plan};
use holdfast_storage::record::Inode;
use holdfast_storage::store::Store;
use holdfast_storage::types::{Ino, LogIndex, Term, Time};
use holdfast_storage::view::{Seen, View};
use std::collections::HashMap;
use std::sync::Arc;

/// Most memory for what is sequenced and not yet applied; then admission waits.
const PENDING_MAX: u64 = 64 << 20;

/// How far what is acknowledged when it is sequenced may be ahead of what a second node has.
const ALONE_MAX: Behind = Behind {
    bytes: 4 << 20,
    ms: 100,
};

/// What became of a request that was handed in.
pub enum Submitted {
    Done,
    /// Its thread has to bring these keys into memory and hand it in again.
    Fetch(Request, Vec<Key>),
}

/// The clocks of one turn of the loop.
#[derive(Clone, Copy)]
pub struct Now {
    pub wall: Time,
    /// CLOCK_BOOTTIME in ms.
    pub boot_ms: u64,
}

/// Appends to the log, or says that there is no room or no leadership now.
pub trait Propose {
    fn propose(&mut self, data: bytes::Bytes) -> Option<LogIndex>;
}

/// Over the daemon's store, or over a simulated one.
pub struct Sequencer<D: Disk = RealDisk, M: Meta = Rocks> {
    store: Arc<Store<D, M>>,
    /// Not admitted yet.
    queue: Queue,
    /// Acknowledged and not received.
    alone: Unwaited,
    /// Acknowledged and not durable, where a class bounds that.
    undurable: Unwaited,
    received: Waiting,
    committed: Waiting,
    /// Last index that changed a file, while it isn't committed.
    files: HashMap<Ino, u64>,
    /// Last index that changed any name.
    names: u64,
    newest: Time,
    pub urgency: Urgency,
    /// Sequenced since the core's output was handed out.
    pub linger: Linger,
    /// No room for more on this node or on the better standby.
    pub full: bool,
    /// Nor for what may go on when it is full.
    pub spent: bool,
    /// Changes acknowledged since the start of this role; the first of them ends a failover.
    pub acknowledged: u64,
}

impl<D: Disk, M: Meta> Sequencer<D, M> {
    pub fn new(store: Arc<Store<D, M>>) -> Self {
        Self {
            store,
            queue: Queue::default(),
            alone: Unwaited::default(),
            undurable: Unwaited::default(),
            received: Waiting::default(),
            committed: Waiting::default(),
            files: HashMap::new(),
            names: 0,
            newest: Time::default(),
            urgency: Urgency::default(),
            linger: Linger::default(),
            full: false,
            spent: false,
            acknowledged: 0,
        }
    }

    /// Times in files don't step back by less than two seconds (another node's clock after a failover); a
    /// larger step is followed. No two changes have the same time, so a file's ctime tells whether it has changed.
    fn smooth(&mut self, wall: Time) -> Time {
        let back = self.newest.secs - wall.secs;
        self.newest = if wall > self.newest || back > 2 {
            wall
        } else {
            self.newest.next()
        };
        self.newest
    }

    pub fn submit(&mut self, request: Request, core: &mut impl Propose, term: Term, now: Now) -> Submitted {
        if self.store.overlay.pending_bytes() > PENDING_MAX || !self.queue.is_empty() {
            let last = is_last(&*self.store, &request.op);
            self.queue.push(request, last, now.boot_ms);
            return Submitted::Done;
        }
        self.admit(request, core, term, now)
    }

    /// Admits what waited, as far as there is room now.
    pub fn drain(&mut self, core: &mut impl Propose, term: Term, now: Now, fetch: &mut Vec<(Request, Vec<Key>)>) {
        for _ in 0..self.queue.len() {
            if self.store.overlay.pending_bytes() > PENDING_MAX {
                break;
            }
            let Some(request) = self.queue.pop() else {
                break;
            };
            let before = self.queue.len();
            if let Submitted::Fetch(request, keys) = self.admit(request, core, term, now) {
                fetch.push((request, keys));
            }
            if self.queue.len() > before {
                break;
            }
        }
    }

    fn admit(&mut self, request: Request, core: &mut impl Propose, term: Term, now: Now) -> Submitted {
        if self.full && needs_space(&request.op) && (self.spent || !stays_within(&*self.store, &request.op)) {
            (request.done)(Err(Failure::Refused(Refusal::NoSpace)));
            return Submitted::Done;
        }
        let time = self.smooth(now.wall);
        let (effects, reply, class) = match plan(&*self.store, time, &request.op) {
            Planned::Do { effects, reply, class } => (effects, reply, class),
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
        let encoded = entry.encode();
        let bytes = encoded.len() as u64;
        let Some(index) = core.propose(encoded) else {
            // Too much is uncommitted, or the leadership is just going; the role's end answers it then.
            self.queue.put_back(request);
            return Submitted::Done;
        };
        self.linger.push(bytes, now.boot_ms);
        self.store.overlay.sequence(index, &entry.effects);
        self.note(index, &request.op, &entry.effects);
        let wait = self.wait_of(&request, class, (index, bytes), now.boot_ms);
        self.wait(index, wait, request, reply);
        Submitted::Done
    }

    /// What this change waits for: at least what was asked for, and what its class wants.
    fn wait_of(
        &mut self,
        request: &Request,
        class: Option<Class>,
        (index, bytes): (LogIndex, u64),
        now_ms: u64,
    ) -> Wait {
        let Some(profile) = class.map(Class::profile) else {
            return request.wait;
        };
        let mut wait = request.wait.max(profile.write);
        if wait < Wait::Committed
            && let Some(limit) = profile.behind
            && !self.undurable.admit(limit, index, bytes, now_ms)
        {
            wait = Wait::Committed;
        }
        // Without a bound one writer could fill the links, and heartbeats and everybody's fsync would wait behind it.
        if wait == Wait::Sequenced && !self.alone.admit(ALONE_MAX, index, bytes, now_ms) {
            wait = Wait::Received;
        }
        wait
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
                // Nobody waits for a seal, and no fsync follows it.
                if !matches!(op, Op::Seal { .. }) {
                    self.urgency.changed(ino);
                }
            }
        }
    }

    fn wait(&mut self, index: LogIndex, wait: Wait, request: Request, reply: Reply) {
        let done = request.done;
        let answer: Answer = Box::new(move |outcome| done(outcome.map(|()| reply)));
        match wait {
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
    pub fn sync(&mut self, scope: Scope, last: u64, deadline_ms: u64, answer: Answer) {
        let (index, file) = match scope {
            Scope::All => (last, None),
            Scope::File(ino) => (self.files.get(&ino).copied().unwrap_or(0).max(self.names), Some(ino)),
        };
        self.urgency.synced(file);
        self.committed.push(index, deadline_ms, answer);
    }

    /// Whether the peers may hear a moment later of what was sequenced since they last did: nobody waits for them.
    pub fn may_linger(&self, now_ms: u64) -> bool {
        self.linger.may_stay(now_ms)
            && self.received.is_empty()
            && self.committed.is_empty()
            && self.queue.is_empty()
            && !self.urgency.is_urgent()
    }

    /// Answers whose conditions hold. Only called while the lease runs.
    pub fn progress(&mut self, received: u64, committed: u64) {
        let answered = self.received.reached(received) + self.committed.reached(committed);
        self.acknowledged += answered as u64;
        self.alone.reached(LogIndex(received));
        self.undurable.reached(LogIndex(committed));
        if self.files.len() > 4096 {
            self.files.retain(|_, index| *index > committed);
        }
    }

    pub fn expire(&mut self, now_ms: u64) {
        self.received.expire(now_ms);
        self.committed.expire(now_ms);
        self.queue.expire(now_ms);
    }

    /// The role is over: nobody may believe that what waits was done, or that it wasn't.
    pub fn end(&mut self) {
        self.received.fail_all(Failure::Lost);
        self.committed.fail_all(Failure::Lost);
        self.queue.fail_all(Failure::Lost);
        self.alone = Unwaited::default();
        self.undurable = Unwaited::default();
        self.files.clear();
        self.names = 0;
        self.acknowledged = 0;
        self.linger.handed_out();
        self.store.overlay.forget_pending();
    }

    /// Requests wait for room, which applying makes.
    pub fn is_full(&self) -> bool {
        !self.queue.is_empty()
    }

    pub fn waiting(&self) -> usize {
        self.received.len() + self.committed.len() + self.queue.len()
    }
}

fn changes_names(op: &Op) -> bool {
    matches!(
        op,
        Op::Create { .. } | Op::Link { .. } | Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. }
    )
}

/// Whether its class goes last; what isn't known without asking the disk goes with the rest.
fn is_last(store: &impl View, op: &Op) -> bool {
    let ino = match op {
        Op::Create { parent, .. } | Op::Unlink { parent, .. } | Op::Link { parent, .. } => *parent,
        Op::Write { ino, .. } | Op::Fallocate { ino, .. } | Op::SetAttr { ino, .. } => *ino,
        _ => return false,
    };
    match store.get(&holdfast_storage::key::inode(ino)) {
        Seen::Value(value) => Inode::decode(&value).is_ok_and(|inode| inode.class.profile().last),
        Seen::Absent | Seen::NotInMemory => false,
    }
}

/// A database that can't write over what it has can't even be brought to its end, nor started again; and a page of a mapping
/// that isn't taken is lost when the kernel needs the memory. Holes in what is written over are all that this can fill.
fn stays_within(store: &impl View, op: &Op) -> bool {
    let Op::Write { ino, offset, data, .. } = op else {
        return false;
    };
    match store.get(&holdfast_storage::key::inode(*ino)) {
        Seen::Value(value) => {
            Inode::decode(&value).is_ok_and(|inode| offset.saturating_add(data.len() as u64) <= inode.size)
        }
        // The planner says what it is told to say: that it isn't there, or has to be read first.
        Seen::Absent | Seen::NotInMemory => true,
    }
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
        | Op::SetClass { .. }
        | Op::Seal { .. }
        | Op::Reap { .. } => false,
    }
}
