//! The one loop that owns the core, the sequencer and the role. It drains all events that are ready, steps
//! the core, then hands out what came of it: entries to the log thread, messages to the peers, committed
//! entries to the apply thread, answers to those who wait.

mod check;
mod events;
mod fitness;
mod publish;
mod role;
mod switch;

#[cfg(any(test, fuzzing))]
pub(crate) use check::told;

use crate::api::{Failure, Request};
use crate::clock::{boottime_ms, wall};
use crate::core::{Core, Output};
use crate::disk_health::{DiskHealth, DiskTrouble};
use crate::fitness::Fitness;
use crate::gate::Gate;
use crate::gather::Gather;
use crate::handle::{AgentFacts, Command};
use crate::lag::Lag;
use crate::net::{NetEvent, Outgoing};
use crate::roles::Role;
use crate::sequencer::{Now, Propose, Sequencer};
use crate::threads::ThreadEvent;
use crate::threads::apply::{self, ApplyWork};
use crate::threads::fetch::FetchWork;
use crate::threads::log::LogWork;
use crate::unapplied::Unapplied;
use crate::view::{Failover, PeerView, View};
use crate::waiting::Waiting;
use crate::wire::PeerMessage;
use holdfast_storage::RealStore;
use holdfast_storage::check::Part;
use holdfast_storage::copy;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::log::LogReader;
use holdfast_storage::types::{LogIndex, Term};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;
use switch::Switch;
use tokio::sync::{mpsc, watch};

pub(crate) type RealCore = Core<LogReader<RealDisk>>;

/// Events taken before the core's output is looked at.
const DRAIN_MAX: usize = 1024;
/// Ticks between two complaints about the same trouble.
const COMPLAIN_EVERY: u64 = 100;
/// Bytes handed to the apply thread in memory; beyond, it reads them back from the log.
const APPLY_QUEUE_BYTES: u64 = 32 << 20;

impl Propose for RealCore {
    fn propose(&mut self, data: bytes::Bytes) -> Option<LogIndex> {
        Core::propose(self, data)
    }
}

pub(crate) struct Channels {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) threads: mpsc::UnboundedReceiver<ThreadEvent>,
    pub(crate) net: mpsc::Receiver<NetEvent>,
    pub(crate) log: Sender<LogWork>,
    pub(crate) apply: Sender<ApplyWork>,
    pub(crate) fetch: crossbeam_channel::Sender<FetchWork>,
    pub(crate) apply_queued: Arc<AtomicU64>,
    pub(crate) apply_awaited: Arc<AtomicBool>,
    pub(crate) view: watch::Sender<Arc<View>>,
    /// Counts rounds of the loop, for the watchdog.
    pub(crate) alive: Arc<AtomicU64>,
    pub(crate) health: Arc<DiskHealth>,
    /// Bytes of the log in use, as its thread says.
    pub(crate) log_used: Arc<AtomicU64>,
    pub(crate) ask_checkpoint: SyncSender<()>,
}

/// The loop has ended in order: all that it took in is with the threads.
pub(crate) struct Ended {
    /// What the mark of a clean stop may say.
    pub(crate) clean: Option<LogIndex>,
}

pub(crate) struct Settings {
    pub(crate) id: u64,
    pub(crate) names: BTreeMap<u64, String>,
    pub(crate) tick: Duration,
    pub(crate) grace_ms: u64,
    /// How long after an election the former owner's address is surely gone.
    pub(crate) vip_wait_ms: u64,
    /// Bytes that must stay free.
    pub(crate) reserve: u64,
    /// Bytes of the log that entries may use; the rest is for votes.
    pub(crate) log_most: u64,
    /// vip-agent is expected: until it reports, this node isn't eligible.
    pub(crate) needs_agent: bool,
    pub(crate) disk_stall_ms: u64,
    /// How long the PBX's units may take to stop, one after the other.
    pub(crate) units_stop_ms: u64,
}

pub(crate) struct Task {
    pub(crate) settings: Settings,
    pub(crate) core: RealCore,
    pub(crate) store: Arc<RealStore>,
    pub(crate) sequencer: Sequencer,
    pub(crate) channels: Channels,
    pub(crate) outgoing: BTreeMap<u64, Outgoing>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) pins: crate::pins::Pins,
    /// Told to peers; 0 until something was applied.
    pub(crate) history: Arc<AtomicU64>,
    pub(crate) recovering: Arc<AtomicBool>,
    pub(crate) gather: Gather,
    pub(crate) unapplied: Unapplied,
    pub(crate) state: State,
}

/// What the loop remembers besides core and sequencer.
#[derive(Default)]
pub(crate) struct State {
    role: Option<Role>,
    agent: AgentFacts,
    switch: Option<Switch>,
    /// Answers and requests that wait for the lease.
    held: Waiting,
    held_requests: VecDeque<Request>,
    roles_ended: u64,
    peers: BTreeMap<u64, PeerView>,
    halted: Option<String>,
    /// Peers that were seen without any entry since the start.
    began_empty: BTreeSet<u64>,
    /// The disk has failed: nothing is read from the peers, nothing said to them.
    out: bool,
    disk: Option<DiskTrouble>,
    fitness: Fitness,
    /// The node, this one maybe, whose replica is known to differ from the two others.
    odd_one_out: Option<u64>,
    failover: Option<Failover>,
    vip_not_before_ms: u64,
    /// The core has more to hand out.
    more: bool,
    checks: HashMap<u64, mpsc::UnboundedSender<(u64, Part)>>,
    next_check: u64,
    own_before: u64,
    /// The active node asks for a sync.
    sync_now: bool,
    /// As the active node: up to here a sync was asked for.
    sync_asked: u64,
    lag: Lag,
    space: holdfast_storage::disk::Space,
    /// As in the view.
    room: u64,
    ticks: u64,
    /// Tick of the last complaint about entries that can't be read for a peer.
    fetch_complaint: u64,
    stopping: bool,
}

impl Task {
    fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Relaxed)
    }

    fn role(&self) -> Role {
        self.state.role.unwrap_or(Role::None)
    }

    /// Until `Command::Stop`. None: its disk has failed.
    pub(crate) async fn run(mut self) -> Option<Ended> {
        let mut ticks = tokio::time::interval(self.settings.tick);
        // Never in bursts: a follower would answer a heartbeat and then time out within a millisecond.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.state.stopping {
            let left = self.left_ms(boottime_ms());
            tokio::select! {
                biased;
                _ = ticks.tick() => self.tick(),
                Some(event) = self.channels.threads.recv() => self.thread(event),
                Some(event) = self.channels.net.recv() => self.net(event),
                Some(command) = self.channels.commands.recv() => self.command(command),
                () = tokio::time::sleep(Duration::from_millis(left.unwrap_or(0))), if left.is_some() => {}
            }
            self.drain();
            self.flush();
            while self.must_look_again() {
                self.flush();
            }
        }
        if self.state.out {
            return None;
        }
        self.end_role();
        self.flush();
        let _ = self.channels.log.send(LogWork::Persist(self.gather.rest()));
        self.hand_to_apply(true);
        Some(Ended {
            clean: self.core.clean_end(),
        })
    }

    /// When something that was held back must go on.
    fn left_ms(&self, now: u64) -> Option<u64> {
        if self.state.out {
            return None;
        }
        if self.state.more {
            return Some(0);
        }
        let held = [
            self.gather.left_ms(now),
            self.unapplied.left_ms(now),
            self.sequencer.linger.left_ms(now),
        ];
        held.into_iter().flatten().min()
    }

    /// What else has arrived meanwhile, so that one write and one sync serve it all.
    fn drain(&mut self) {
        for _ in 0..DRAIN_MAX {
            if let Ok(event) = self.channels.threads.try_recv() {
                self.thread(event);
            } else if let Ok(event) = self.channels.net.try_recv() {
                self.net(event);
            } else if let Ok(command) = self.channels.commands.try_recv() {
                self.command(command);
            } else {
                return;
            }
        }
    }

    // ---- events -------------------------------------------------------------------------------------

    fn tick(&mut self) {
        let now = boottime_ms();
        self.state.ticks += 1;
        if self.state.out {
            return self.tick_out();
        }
        self.channels.alive.store(self.state.ticks, Ordering::Relaxed);
        if self.history.load(Ordering::Relaxed) == 0 && self.store.applied().0 > 0 {
            let known = copy::history(&self.store.meta).unwrap_or(0);
            self.history.store(known, Ordering::Relaxed);
        }
        self.core.history = self.history.load(Ordering::Relaxed);
        // So often that what is sequenced between two looks is far less than the reserve.
        self.look_at_space();
        self.look_at_disk(now);
        // To a node that has just started nobody can hand the role over.
        self.core.eligible = self.is_eligible(now) && self.core.has_settled();
        self.state.checks.retain(|_, waiting| !waiting.is_closed());
        self.core.tell_commits(!self.state.checks.is_empty());
        // A campaign looks at what isn't applied yet, and memory has let go of what is.
        self.take_in_applied();
        self.core.tick(now);
        self.sequencer.expire(now);
        self.state.held.expire(now);
        let mut kept = VecDeque::new();
        for request in std::mem::take(&mut self.state.held_requests) {
            if request.deadline_ms <= now {
                (request.done)(Err(Failure::Deadline));
            } else {
                kept.push_back(request);
            }
        }
        self.state.held_requests = kept;
        self.leave_if_unfit(now);
    }

    fn look_at_space(&mut self) {
        if let Ok(space) = self.store.space() {
            self.state.space = space;
            self.core.store_free = space.above(self.settings.reserve);
            self.core.store_spare = space.above(spare_from(self.settings.reserve));
            let own = |free| (free, self.store.applied());
            self.state.room = self
                .core
                .least_room(own(self.core.store_free), |state| state.store_free);
            self.sequencer.full = self.state.room == 0;
            self.sequencer.spent = self
                .core
                .least_room(own(self.core.store_spare), |state| state.store_spare)
                == 0;
        }
    }

    fn look_at_log(&mut self) {
        let used = self.channels.log_used.load(Ordering::Relaxed);
        self.core.log_room = self.settings.log_most.saturating_sub(used);
        if self.core.take_log_full() {
            // One that is asked for already will do.
            let _ = self.channels.ask_checkpoint.try_send(());
        }
    }

    /// Notes a moment of the promotion under way, the first time that it comes.
    fn phase(&mut self, of: impl FnOnce(&mut Failover) -> &mut u64) {
        if let Some(failover) = &mut self.state.failover
            && failover.term == self.core.term()
        {
            let moment = of(failover);
            if *moment == 0 {
                *moment = boottime_ms();
            }
        }
    }

    // ---- output -------------------------------------------------------------------------------------

    fn flush(&mut self) {
        if self.state.out {
            return;
        }
        let now = boottime_ms();
        self.look_at_log();
        self.take_in_applied();
        self.output(now);
        self.step_role(now);
        self.step_handover(now);
        let term = Term(self.core.term());
        if self.gate.may_answer(now) {
            self.release_held();
            let mut fetch = Vec::new();
            self.sequencer.drain(&mut self.core, term, clocks(), &mut fetch);
            for (request, keys) in fetch {
                let _ = self
                    .channels
                    .fetch
                    .send(FetchWork::Keys(request, keys, self.state.roles_ended));
            }
        }
        // What was proposed just now goes out in the same round.
        self.output(now);
        self.hurry();
        if self.gate.may_answer(boottime_ms()) {
            let before = self.sequencer.acknowledged;
            self.sequencer.progress(self.core.received(), self.core.committed());
            if before == 0 && self.sequencer.acknowledged > 0 {
                self.phase(|failover| &mut failover.first_write_ms);
            }
        }
        self.publish(now);
    }

    fn take_in_applied(&mut self) {
        let applied = self.store.applied();
        if applied.0 > self.core.applied {
            self.core.applied_to(applied);
        }
    }

    /// Hands over what is to be applied. Asks to be woken by the apply thread if something here waits for it, and says
    /// whether it has just gone on. Otherwise its progress is seen whenever the loop turns: a wake-up for each entry would
    /// cost more than the entry.
    fn must_look_again(&mut self) -> bool {
        if self.state.out {
            return false;
        }
        let waits = self.sequencer.is_full() || (self.core.is_leader() && !self.core.has_applied_own_term());
        self.hand_to_apply(waits);
        self.channels.apply_awaited.store(waits, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        waits && self.store.applied().0 > self.core.applied
    }

    /// Has synced what somebody waits for; the rest follows within milliseconds by itself.
    fn hurry(&mut self) {
        let mut now = std::mem::take(&mut self.state.sync_now);
        if self.sequencer.urgency.take() && self.core.is_leader() && self.core.last() > self.state.sync_asked {
            now = true;
            self.state.sync_asked = self.core.last();
            let peers = self.outgoing.keys().map(|peer| (*peer, PeerMessage::SyncNow));
            self.send_all(peers.collect());
        }
        if now {
            self.gather.hurry();
        }
        if let Some(persists) = self.gather.due(boottime_ms()) {
            let _ = self.channels.log.send(LogWork::Persist(persists));
        }
    }

    fn output(&mut self, now: u64) {
        if self.sequencer.may_linger(now) && self.state.checks.is_empty() {
            return;
        }
        self.sequencer.linger.handed_out();
        let output = self.core.output();
        self.state.more = output.more;
        self.hand_out(output);
    }

    fn hand_out(&mut self, output: Output) {
        for persist in output.persist {
            self.gather.push(persist, boottime_ms());
        }
        self.send_all(output.send);
        self.unapplied.push(output.committed, boottime_ms());
        for wanted in output.fetch {
            let _ = self.channels.fetch.send(FetchWork::Entries(wanted));
        }
        if let Some(why) = output.broken {
            self.channels.health.fail();
            self.fail(why);
        }
    }

    fn hand_to_apply(&mut self, awaited: bool) {
        let Some(committed) = self.unapplied.due(boottime_ms(), awaited) else {
            return;
        };
        let Some(last) = committed.last().map(|entry| entry.index) else {
            return;
        };
        let bytes = apply::bytes(&committed) as u64;
        let work = if self.channels.apply_queued.load(Ordering::Acquire) + bytes > APPLY_QUEUE_BYTES {
            ApplyWork::UpTo(last)
        } else {
            self.channels.apply_queued.fetch_add(bytes, Ordering::AcqRel);
            ApplyWork::Entries(committed)
        };
        // A halted apply thread has hung up; what is committed stays in the log.
        let _ = self.channels.apply.send(work);
    }

    fn send_all(&mut self, messages: Vec<(u64, PeerMessage)>) {
        for (to, mut message) in messages {
            let strange = self.pins.is_strange(to);
            if let PeerMessage::State(state) = &mut message {
                state.third_store = self.pins.vouches(to);
            }
            if let Some(link) = self.outgoing.get(&to)
                && !strange
            {
                // What doesn't fit is lost as on any network; heartbeats and probes find out.
                link.send(message);
            }
        }
    }
}

fn clocks() -> Now {
    Now {
        wall: wall(),
        boot_ms: boottime_ms(),
    }
}

/// Above so many free bytes what exists may be written over: half of the reserve, but far enough from the quarter at which applying
/// stops for all that is on its way. A short log's reserve has no such room.
pub fn spare_from(reserve: u64) -> u64 {
    (reserve / 2).max(reserve / 4 + (256 << 20))
}
