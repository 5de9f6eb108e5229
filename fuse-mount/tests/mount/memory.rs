//! A backend in memory: the real planner on a map, files as maps of blocks. Its lease can be taken away.

use bytes::Bytes;
use holdfast_fuse_mount::Backend;
use holdfast_replicator::api::{Done, Failure, Request, Scope, Wait};
use holdfast_storage::effects::Effect;
use holdfast_storage::key::{self, Key};
use holdfast_storage::op::{Op, Refusal, Reply};
use holdfast_storage::plan::{Planned, plan, root};
use holdfast_storage::record::{Child, Dirent, Inode, Xattrs};
use holdfast_storage::types::{Ino, Time};
use holdfast_storage::view::{Seen, View};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

const BLOCK: usize = 4096;

#[derive(Default)]
struct Meta(BTreeMap<Key, Bytes>);

impl View for Meta {
    fn get(&self, key: &Key) -> Seen {
        self.0.get(key).cloned().map_or(Seen::Absent, Seen::Value)
    }
}

#[derive(Default)]
struct Sparse(BTreeMap<u64, Box<[u8; BLOCK]>>);

impl Sparse {
    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let block = self.0.entry(at / BLOCK as u64).or_insert_with(|| Box::new([0; BLOCK]));
            block[(at % BLOCK as u64) as usize] = *byte;
        }
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let byte = |at: u64| {
            self.0
                .get(&(at / BLOCK as u64))
                .map_or(0, |block| block[(at % BLOCK as u64) as usize])
        };
        (offset..offset + len as u64).map(byte).collect()
    }

    fn zero(&mut self, from: u64, to: u64) {
        self.0.retain(|number, block| {
            let start = number * BLOCK as u64;
            let (low, high) = (
                from.clamp(start, start + BLOCK as u64),
                to.clamp(start, start + BLOCK as u64),
            );
            block[(low - start) as usize..(high - start) as usize].fill(0);
            high - low < BLOCK as u64
        });
    }
}

#[derive(Default)]
struct State {
    meta: Meta,
    files: HashMap<Ino, Sparse>,
    waits: Vec<Wait>,
    newest: Time,
    syncs: usize,
    suspended: bool,
    held: Vec<(u64, Answer)>,
    fail_next: Option<Failure>,
    refuse_reap: bool,
    fail_syncs: Option<Failure>,
    removal: Option<Wait>,
}

/// Called with whether the lease ran before the deadline.
type Answer = Box<dyn FnOnce(Result<(), Failure>) + Send>;

#[derive(Clone)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
    replies: Sender<Answer>,
}

pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

fn wall() -> Time {
    let now = clock_gettime(ClockId::Realtime);
    Time {
        secs: now.tv_sec,
        nanos: now.tv_nsec as u32,
    }
}

impl Memory {
    pub(crate) fn new() -> Self {
        let (replies, received) = channel();
        let state = Arc::new(Mutex::new(State::default()));
        apply(&mut state.lock().unwrap(), root(wall()));
        let watched = Arc::downgrade(&state);
        thread::spawn(move || reply(&received, || watched.upgrade()));
        Self { state, replies }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Nothing is answered from now on.
    pub(crate) fn suspend(&self) {
        self.state().suspended = true;
    }

    pub(crate) fn resume(&self) {
        let mut state = self.state();
        state.suspended = false;
        let held = std::mem::take(&mut state.held);
        drop(state);
        for (_, answer) in held {
            let _ = self.replies.send(answer);
        }
    }

    /// The next change is carried out, and its answer is this failure.
    pub(crate) fn fail_next(&self, failure: Failure) {
        self.state().fail_next = Some(failure);
    }

    /// The next reaping isn't carried out.
    pub(crate) fn refuse_reap(&self) {
        self.state().refuse_reap = true;
    }

    pub(crate) fn fail_syncs(&self, failure: Failure) {
        self.state().fail_syncs = Some(failure);
    }

    /// What the latest removal of a name was to wait for.
    pub(crate) fn wait_of_removal(&self) -> Option<Wait> {
        self.state().removal
    }

    /// What the latest changes were to wait for.
    pub(crate) fn waits(&self) -> Vec<Wait> {
        self.state().waits.clone()
    }

    /// How often somebody waited until a file was durable.
    pub(crate) fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub(crate) fn held(&self) -> usize {
        self.state().held.len()
    }

    pub(crate) fn inodes(&self) -> usize {
        self.state().meta.0.keys().filter(|key| key[0] == b'i').count()
    }

    fn when_leased(&self, deadline_ms: u64, answer: Answer, in_this_thread: bool) {
        let mut state = self.state();
        if state.suspended {
            state.held.push((deadline_ms, answer));
        } else {
            drop(state);
            if in_this_thread {
                answer(Ok(()));
            } else {
                let _ = self.replies.send(answer);
            }
        }
    }
}

/// The reply thread: answers, and fails what is held beyond its deadline.
fn reply(received: &Receiver<Answer>, state: impl Fn() -> Option<Arc<Mutex<State>>>) {
    loop {
        match received.recv_timeout(Duration::from_millis(10)) {
            Ok(answer) => answer(Ok(())),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let Some(state) = state() else { return };
        let mut guard = state.lock().unwrap();
        let (due, held): (Vec<_>, _) = guard.held.drain(..).partition(|(deadline, _)| *deadline <= now_ms());
        guard.held = held;
        drop(guard);
        due.into_iter().for_each(|(_, answer)| answer(Err(Failure::Deadline)));
    }
}

fn apply(state: &mut State, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Put { key, value } => drop(state.meta.0.insert(key, value)),
            Effect::Delete { key } => drop(state.meta.0.remove(&key)),
            Effect::Write { ino, offset, data } => state.files.entry(ino).or_default().write(offset, &data),
            Effect::Truncate { ino, size } => state.files.entry(ino).or_default().zero(size, u64::MAX),
            Effect::Zero { ino, offset, len } => state.files.entry(ino).or_default().zero(offset, offset + len),
            Effect::Purge { ino } => drop(state.files.remove(&ino)),
            Effect::Check { .. } => {}
        }
    }
}

impl State {
    /// Notes what it is to wait for, as the replicator decides it: what was asked for, and what the class wants.
    fn carry_out(&mut self, op: &Op, asked: Wait) -> Result<Reply, Failure> {
        let time = wall().max(self.newest.next());
        self.newest = time;
        match plan(&self.meta, time, op) {
            Planned::Do { effects, reply, class } => {
                let wait = class.map_or(asked, |class| asked.max(class.profile().write));
                // Reaping comes when the kernel lets go, between whatever else.
                if !matches!(op, Op::Reap { .. }) {
                    self.waits.push(wait);
                }
                if let Op::Unlink { .. } = op {
                    self.removal = Some(wait);
                }
                apply(self, effects);
                Ok(reply)
            }
            Planned::Refused(refusal) => Err(refusal.into()),
            Planned::Need(keys) => panic!("all is in memory, and {keys:?} isn't"),
        }
    }

    fn inode(&self, ino: Ino) -> Result<Inode, Failure> {
        let value = self.meta.0.get(&key::inode(ino)).ok_or(Refusal::NotFound)?;
        Ok(Inode::decode(value).unwrap())
    }
}

impl Backend for Memory {
    fn submit(&self, request: Request) {
        let mut state = self.state();
        if matches!(request.op, Op::Reap { .. }) && std::mem::take(&mut state.refuse_reap) {
            drop(state);
            return (request.done)(Err(Failure::NotActive));
        }
        let mut outcome = state.carry_out(&request.op, request.wait);
        if let Some(failure) = state.fail_next.take_if(|_| !matches!(request.op, Op::Reap { .. })) {
            outcome = Err(failure);
        }
        drop(state);
        let done = request.done;
        self.when_leased(
            request.deadline_ms,
            Box::new(move |leased| done(leased.and(outcome))),
            false,
        );
    }

    fn sync(&self, scope: Scope, deadline_ms: u64, done: Done<()>) {
        assert!(matches!(scope, Scope::File(_)));
        let mut state = self.state();
        state.syncs += 1;
        if let Some(failure) = state.fail_syncs {
            drop(state);
            return done(Err(failure));
        }
        drop(state);
        self.when_leased(deadline_ms, done, false);
    }

    fn answer(&self, deadline_ms: u64, done: Done<()>) {
        self.when_leased(deadline_ms, done, true);
    }

    fn getattr(&self, ino: Ino) -> Result<Inode, Failure> {
        self.state().inode(ino)
    }

    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<(Ino, Inode), Failure> {
        let state = self.state();
        let entry = state.meta.0.get(&key::dirent(parent, name)).ok_or(Refusal::NotFound)?;
        let ino = Dirent::decode(entry).unwrap().ino;
        Ok((ino, state.inode(ino)?))
    }

    fn readdir(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<(u64, Child)>, Failure> {
        let state = self.state();
        let range = key::child(dir, after + 1)..=key::child(dir, u64::MAX);
        let child = |(key, value): (&Key, &Bytes)| (key::tail_number(key).unwrap(), Child::decode(value).unwrap());
        Ok(state.meta.0.range(range).take(limit).map(child).collect())
    }

    fn mend(&self, _: Ino, _: u64, _: usize, then: Box<dyn FnOnce() + Send>) {
        then();
    }

    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Bytes, Failure> {
        let state = self.state();
        let len = state.inode(ino)?.size.saturating_sub(offset).min(len as u64) as usize;
        Ok(state
            .files
            .get(&ino)
            .map_or_else(|| vec![0; len], |file| file.read(offset, len))
            .into())
    }

    fn xattrs(&self, ino: Ino) -> Result<Xattrs, Failure> {
        let state = self.state();
        Ok(state
            .meta
            .0
            .get(&key::xattrs(ino))
            .map(|value| Xattrs::decode(value).unwrap())
            .unwrap_or_default())
    }

    fn space(&self) -> Result<(u64, u64), Failure> {
        Ok((1 << 30, 4 << 30))
    }

    fn seek_data(&self, ino: Ino, offset: u64) -> Result<Option<u64>, Failure> {
        let state = self.state();
        let Some(file) = state.files.get(&ino) else {
            return Ok(None);
        };
        let block = BLOCK as u64;
        Ok(file
            .0
            .range(offset / block..)
            .next()
            .map(|(number, _)| (number * block).max(offset)))
    }

    fn seek_hole(&self, ino: Ino, offset: u64) -> Result<u64, Failure> {
        let state = self.state();
        let size = state.inode(ino)?.size;
        let block = BLOCK as u64;
        let filled = |number: &u64| state.files.get(&ino).is_some_and(|file| file.0.contains_key(number));
        let hole = (offset / block..).find(|number| !filled(number)).unwrap() * block;
        Ok(hole.max(offset).min(size))
    }

    fn orphans(&self) -> Result<Vec<Ino>, Failure> {
        let state = self.state();
        Ok(state
            .meta
            .0
            .keys()
            .filter(|key| key.starts_with(key::ORPHANS))
            .filter_map(|key| key::owner(key))
            .collect())
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }
}
