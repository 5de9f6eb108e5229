//! One replica of the daemon, step by step. The parts are the product's own: core, sequencer, gathering, role, log, applier,
//! checkpoint. What is done here is what `replicator::task` and `replicator::threads` do around them with channels and
//! threads, in the same order and with the same guarantees:
//!
//! - a round takes what has happened, then hands out the core's output, steps the role, admits what waited, hands out again,
//!   hurries the log, and answers at the very end, while the lease runs (`flush`);
//! - the log thread writes one batch at a time and tells its number only when it is synced; what comes meanwhile gathers;
//! - the apply thread gets what is committed and durable here, in order; a checkpoint runs beside it;
//! - what a request or a peer needs from the disk is read off the round, and handed in again.
//!
//! Each of the threads' pieces of work takes simulated time between its beginning and its end, and a crash may come at any
//! of its calls to the disk.

mod copies;
mod event;
mod fitness;
mod handover;
mod output;
mod role;
mod threads;

pub use copies::Ending;
pub use event::{Event, Proposed, Turn};
pub use threads::Threads;

use super::disk::FaultyDisk;
use super::random::Random;
use super::{Store, timers};
use bytes::Bytes;
use holdfast_replicator::api::{Failure, Request};
use holdfast_replicator::copy::Kept;
use holdfast_replicator::core::{Core, CoreConfig, CoreStart, Sizes};
use holdfast_replicator::disk_health::DiskTrouble;
use holdfast_replicator::fitness::{Fitness, PLANNED};
use holdfast_replicator::gather::Gather;
use holdfast_replicator::handover::{HandOver, Step};
use holdfast_replicator::memory_log::{self, Unread};
use holdfast_replicator::pins::Pins;
use holdfast_replicator::roles::Role;
use holdfast_replicator::sequencer::{Propose, Sequencer, Submitted};
use holdfast_replicator::unapplied::Unapplied;
use holdfast_replicator::wire::PeerMessage;
use holdfast_replicator::{AgentFacts, Gate};
use holdfast_storage::copy::history;
use holdfast_storage::effects::{CheckPart, Effect, Entry};
use holdfast_storage::error::StoreError;
use holdfast_storage::identity::{Identity, hex};
use holdfast_storage::log::LogReader;
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::open::{self, Opened};
use holdfast_storage::types::{LogIndex, Term};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub type SimCore = Core<LogReader<FaultyDisk>>;

/// The core as the sequencer sees it; notes what is proposed.
struct Proposer<'a> {
    core: &'a mut SimCore,
    made: &'a mut Vec<Proposed>,
    op: Option<u64>,
}

impl Propose for Proposer<'_> {
    fn propose(&mut self, data: Bytes) -> Option<LogIndex> {
        let index = self.core.propose(data.clone())?;
        let term = self.core.term();
        self.made.push(Proposed {
            index: index.0,
            term,
            data,
            op: self.op,
        });
        Some(index)
    }
}

pub struct Replica {
    pub id: u64,
    pub core: SimCore,
    pub store: Arc<Store>,
    pub sequencer: Sequencer<FaultyDisk, SimMeta>,
    pub pins: Arc<Mutex<Pins>>,
    pub identity: Identity,
    pub reader: LogReader<FaultyDisk>,
    pub kept: Kept,
    pub threads: Threads,
    pub gate: Gate,
    gather: Gather,
    unapplied: Unapplied,
    pub role: Role,
    pub agent: AgentFacts,
    handover: Option<HandOver>,
    held: VecDeque<(u64, Request)>,
    /// Operations that the sequencer keeps until there is room, in order.
    queued: VecDeque<u64>,
    pub halted: Option<String>,
    /// The disk has failed: nothing is read from the peers, nothing said to them.
    pub out: bool,
    unreadable: bool,
    has_room: bool,
    disk: Option<DiskTrouble>,
    fitness: Fitness,
    /// Why and when the node before gave the role to this one.
    came: Option<(String, u64)>,
    roles_ended: u64,
    pub vip_not_before_ms: u64,
    sync_now: bool,
    sync_asked: u64,
    ticks: u64,
    next_check: u64,
    /// Log entries up to here may have been applied before this start.
    pub redo_until: u64,
    /// Terms of the entries in Raft's log in memory.
    pub memory: BTreeMap<u64, u64>,
    shown: (Role, Option<u64>, u64, bool, u64),
    wakes_at_ms: u64,
}

impl Replica {
    /// What `Replica::start` does with a store that is formatted.
    pub fn start(
        id: u64,
        disk: &FaultyDisk,
        meta: &SimMeta,
        identity: Identity,
        pins: Arc<Mutex<Pins>>,
        now_ms: u64,
        random: &mut Random,
    ) -> Result<Self, StoreError> {
        let opened = open::open(disk.clone(), meta.clone(), identity)?;
        let Opened {
            mut store,
            log,
            recovered,
            identity,
            checkpoint,
            clean,
            redo_until,
        } = opened;
        // A reader in a simulation of one thread waits for nobody.
        Arc::get_mut(&mut store).expect("nobody else has it yet").look_every = Duration::ZERO;
        let config = CoreConfig {
            id,
            peers: (1..=3).filter(|peer| *peer != id).collect(),
            election_ticks: timers::ELECTION_TICKS,
            heartbeat_ticks: timers::HEARTBEAT_TICKS,
            lease_ms: timers::LEASE_MS,
            forgetful_wait_ms: timers::FORGETFUL_WAIT_MS,
            seed: random.next(),
            sizes: Sizes {
                // These logs are short, and whose turn comes when, among those that wait, isn't known here.
                uncommitted_max: u64::MAX,
                ..Sizes::of_log(log.geometry().total_bytes())
            },
        };
        let start = CoreStart {
            hard_state: recovered.hard_state,
            last: recovered.last,
            checkpoint,
            committed: open::stored(&store)?,
            clean,
        };
        let reader = log.reader();
        let terms = |index: u64| Some((index, reader.term(LogIndex(index))?.0));
        let memory = (recovered.first.0..=recovered.last.0).filter_map(terms).collect();
        let core = Core::new(config, start, reader.clone(), now_ms).expect("a stored state is valid");
        Ok(Self {
            id,
            core,
            sequencer: Sequencer::new(store.clone()),
            pins,
            identity,
            reader,
            kept: Kept::default(),
            threads: Threads::new(log, store.clone(), redo_until)?,
            store,
            gate: Gate::default(),
            gather: Gather::new(&recovered.hard_state),
            unapplied: Unapplied::default(),
            role: Role::None,
            agent: AgentFacts::default(),
            handover: None,
            held: VecDeque::new(),
            queued: VecDeque::new(),
            halted: None,
            out: false,
            unreadable: false,
            has_room: true,
            disk: None,
            fitness: Fitness::default(),
            came: None,
            roles_ended: 0,
            vip_not_before_ms: 0,
            sync_now: false,
            sync_asked: 0,
            ticks: 0,
            next_check: 0,
            redo_until: redo_until.0,
            memory,
            shown: (Role::None, None, 0, false, 0),
            wakes_at_ms: 0,
        })
    }

    pub fn store_id(&self) -> String {
        hex(&self.identity.store)
    }

    /// All that may have been applied before this start was applied again.
    pub fn is_redone(&self) -> bool {
        self.store.applied().0 >= self.redo_until
    }

    /// A read of the store failed.
    pub fn read_failed(&mut self, error: &StoreError) {
        self.unreadable |= matches!(error, StoreError::Meta { .. } | StoreError::Disk { .. });
    }

    pub fn may_answer(&self, now_ms: u64) -> bool {
        self.role.accepts() && self.gate.may_answer(now_ms)
    }

    // ---- events -------------------------------------------------------------------------------------

    pub fn happen(&mut self, event: Event, turn: &mut Turn<'_>) {
        match event {
            Event::Tick => self.tick(turn),
            Event::Wake => self.wakes_at_ms = 0,
            Event::Message { from, message } => self.message(from, message, turn),
            Event::Up { peer } => self.core.reached(peer),
            Event::Down { peer } => self.core.lost(peer),
            Event::HasStore {
                peer,
                store_id,
                joined,
                has_data,
            } => {
                self.core.data_elsewhere |= has_data;
                self.pins().accepts(peer, &store_id, joined);
            }
            Event::LogDone => self.log_done(turn),
            Event::ApplyDone => self.apply_done(turn),
            Event::LookForCheckpoint => self.look_for_checkpoint(turn),
            Event::CheckpointDone => self.checkpoint_done(turn),
            Event::Entries(wanted) => {
                let read = memory_log::fetch(&self.reader, wanted.low, wanted.high, usize::MAX);
                self.unreadable |= matches!(read, Err(Unread::Failed(_)));
                self.core.fetched(wanted, read);
            }
            Event::Keys(_, request, _, of) if of != self.roles_ended => (request.done)(Err(Failure::Lost)),
            Event::Keys(op, request, keys, _) => {
                match keys.iter().try_for_each(|key| self.store.value(key).map(drop)) {
                    Ok(()) => self.submit(op, request, turn),
                    Err(error) => {
                        self.read_failed(&error);
                        (request.done)(Err(Failure::Unreadable));
                    }
                }
            }
            Event::Mounted { term } => {
                if self.role == (Role::Promoting { term }) {
                    self.role = Role::Active { term };
                }
            }
            Event::Fenced { term } => {
                if self.role == (Role::Lost { term }) {
                    self.role = Role::None;
                }
            }
            Event::Agent(facts) => self.agent = facts,
            Event::HandOver { to } => self.begin_handover(to, PLANNED.into(), turn.now_ms),
            Event::Submit(op, request) => self.submit(op, request, turn),
            Event::Sync {
                scope,
                deadline_ms,
                done,
            } => match self.role {
                Role::None => done(Err(Failure::NotActive)),
                Role::Lost { .. } => done(Err(Failure::Lost)),
                _ => self.sequencer.sync(scope, self.core.last(), deadline_ms, done),
            },
            Event::Check(part) => drop(self.begin_check(part, turn)),
        }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, Pins> {
        self.pins.lock().expect("one thread")
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        let delay = 1000 * timers::TICK_MS + turn.random.between(0, 3000);
        turn.later.push((delay, Event::Tick));
        self.ticks += 1;
        if self.out {
            return;
        }
        if self.core.history == 0 && self.store.applied().0 > 0 {
            self.core.history = history(&self.store.meta).unwrap_or(0);
        }
        self.look_at_space();
        self.look_at_disk(turn.now_ms);
        self.core.eligible = self.is_eligible(turn.now_ms) && self.core.has_settled();
        self.core.tick(turn.now_ms);
        self.sequencer.expire(turn.now_ms);
        let now_ms = turn.now_ms;
        for (op, request) in std::mem::take(&mut self.held) {
            if request.deadline_ms <= now_ms {
                (request.done)(Err(Failure::Deadline));
            } else {
                self.held.push_back((op, request));
            }
        }
        self.leave_if_unfit(turn);
    }

    fn message(&mut self, from: u64, message: PeerMessage, turn: &mut Turn<'_>) {
        if self.out || self.pins().is_strange(from) {
            return;
        }
        match message {
            PeerMessage::CheckPart(_) => {}
            PeerMessage::SyncNow => self.sync_now = true,
            PeerMessage::State(state) if !self.core.is_leader() => {
                self.pins().vouched(from, state.third_store);
                self.core.message(from, PeerMessage::State(state), turn.now_ms);
            }
            message => self.core.message(from, message, turn.now_ms),
        }
    }

    fn submit(&mut self, op: u64, request: Request, turn: &mut Turn<'_>) {
        let mut handover = self.handover.iter();
        let flushing = handover.any(|handover| handover.step != Step::Releasing);
        match self.role {
            Role::None | Role::Lost { .. } => (request.done)(Err(Failure::NotActive)),
            Role::Promoting { .. } => self.held.push_back((op, request)),
            _ if flushing => (request.done)(Err(Failure::NotActive)),
            _ if !self.gate.may_answer(turn.now_ms) => self.held.push_back((op, request)),
            _ => {
                let (term, clocks, before) = (Term(self.core.term()), turn.clocks(), turn.proposed.len());
                let waits = self.sequencer.waiting();
                let mut proposer = Proposer {
                    core: &mut self.core,
                    made: &mut turn.proposed,
                    op: Some(op),
                };
                match self.sequencer.submit(request, &mut proposer, term, clocks) {
                    Submitted::Fetch(request, keys) => {
                        let takes = turn.random.between(20, 3000);
                        turn.later
                            .push((takes, Event::Keys(op, request, keys, self.roles_ended)));
                    }
                    Submitted::Done if turn.proposed.len() == before && self.sequencer.waiting() > waits => {
                        self.queued.push_back(op);
                    }
                    Submitted::Done => {}
                }
            }
        }
    }

    fn drain(&mut self, turn: &mut Turn<'_>) {
        let (term, clocks, before) = (Term(self.core.term()), turn.clocks(), turn.proposed.len());
        let mut fetch = Vec::new();
        let mut proposer = Proposer {
            core: &mut self.core,
            made: &mut turn.proposed,
            op: None,
        };
        self.sequencer.drain(&mut proposer, term, clocks, &mut fetch);
        for (request, keys) in fetch {
            let Some(op) = self.queued.pop_front() else { continue };
            turn.later.push((100, Event::Keys(op, request, keys, self.roles_ended)));
        }
        for proposed in &mut turn.proposed[before..] {
            proposed.op = self.queued.pop_front();
        }
        if !self.sequencer.is_full() {
            self.queued.clear();
        }
    }

    /// Asks all replicas for a hash of one part, at one entry of the log.
    pub fn begin_check(&mut self, part: CheckPart, turn: &mut Turn<'_>) -> Option<u64> {
        if !self.role.accepts() {
            return None;
        }
        self.next_check += 1;
        let id = self.id << 56 | (turn.now_ms & 0xffff_ffff) << 20 | self.next_check & 0xf_ffff;
        let entry = Entry {
            term: Term(self.core.term()),
            effects: vec![Effect::Check { id, part }],
        };
        let index = self.propose_own(&entry, turn)?;
        self.sequencer.urgency.now();
        self.core.tell_commits(true);
        Some(index)
    }

    /// Something that no client asked for.
    fn propose_own(&mut self, entry: &Entry, turn: &mut Turn<'_>) -> Option<u64> {
        let mut proposer = Proposer {
            core: &mut self.core,
            made: &mut turn.proposed,
            op: None,
        };
        let index = proposer.propose(entry.encode())?;
        self.store.overlay.sequence(index, &entry.effects);
        Some(index.0)
    }
}
