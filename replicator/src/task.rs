//! The one loop that owns the core, the sequencer and the role. It drains all events that are ready, steps
//! the core, then hands out what came of it: entries to the log thread, messages to the peers, committed
//! entries to the apply thread, answers to those who wait.

use crate::api::{Failure, Request};
use crate::clock::{boottime_ms, wall};
use crate::core::{Core, Output};
use crate::gate::Gate;
use crate::gather::Gather;
use crate::handle::{AgentFacts, Command};
use crate::handover::{HandOver, RELEASE_MAX_MS, Step};
use crate::net::{NetEvent, Outgoing};
use crate::roles::{Facts, Role};
use crate::sequencer::{Propose, Sequencer, Submitted};
use crate::threads::ThreadEvent;
use crate::threads::apply::{self, ApplyWork};
use crate::threads::fetch::FetchWork;
use crate::threads::log::LogWork;
use crate::view::{Failover, PeerView, View};
use crate::waiting::{Answer, Waiting};
use crate::wire::PeerMessage;
use holdfast_proto::stream;
use holdfast_storage::RealStore;
use holdfast_storage::check::{Found, Part};
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::log::LogReader;
use holdfast_storage::types::{Ino, LogIndex, Term};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

pub(crate) type RealCore = Core<LogReader<RealDisk>>;

/// Events taken before the core's output is looked at.
const DRAIN_MAX: usize = 1024;
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
    /// vip-agent is expected: until it reports, this node isn't eligible.
    pub(crate) needs_agent: bool,
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
    pub(crate) gather: Gather,
    pub(crate) state: State,
}

/// What the loop remembers besides core and sequencer.
#[derive(Default)]
pub(crate) struct State {
    role: Option<Role>,
    agent: AgentFacts,
    handover: Option<HandOver>,
    /// Answers and requests that wait for the lease.
    held: Waiting,
    held_requests: VecDeque<Request>,
    peers: BTreeMap<u64, PeerView>,
    halted: Option<String>,
    failover: Option<Failover>,
    vip_not_before_ms: u64,
    checks: HashMap<u64, mpsc::UnboundedSender<(u64, Part)>>,
    next_check: u64,
    own_before: u64,
    /// The active node asks for a sync.
    sync_now: bool,
    /// As the active node: up to here a sync was asked for.
    sync_asked: u64,
    behind_since_ms: Option<u64>,
    space: holdfast_storage::disk::Space,
    ticks: u64,
    stopping: bool,
    /// Up to here entries were handed to the apply thread in memory or by index.
    handed_to_apply: u64,
}

impl Task {
    fn role(&self) -> Role {
        self.state.role.unwrap_or(Role::None)
    }

    /// Until `Command::Stop`.
    pub(crate) async fn run(mut self) -> u64 {
        let mut ticks = tokio::time::interval(self.settings.tick);
        // Never in bursts: a follower would answer a heartbeat and then time out within a millisecond.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.state.stopping {
            let left = self.gather.left_ms(boottime_ms());
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
        self.end_role();
        self.flush();
        let _ = self.channels.log.send(LogWork::Persist(self.gather.rest()));
        self.core.last()
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
        self.channels.alive.store(self.state.ticks, Ordering::Relaxed);
        if self.state.ticks % 10 == 1 {
            self.look_at_space();
        }
        self.core.eligible = self.eligible();
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
        self.leave_if_ineligible();
    }

    fn look_at_space(&mut self) {
        if let Ok(space) = self.store.space() {
            self.state.space = space;
            self.core.store_free = space.free.saturating_sub(self.settings.reserve);
            // This node and the better standby must both have room.
            let standby = self
                .settings
                .names
                .keys()
                .filter_map(|id| self.core.peer(*id)?.state)
                .map(|state| state.store_free)
                .max();
            self.sequencer.full = self.core.store_free == 0 || standby == Some(0);
        }
    }

    fn eligible(&self) -> bool {
        let agent = if self.settings.needs_agent {
            self.state.agent.connected && self.state.agent.eligible
        } else {
            true
        };
        agent && self.state.halted.is_none() && (self.state.space.total == 0 || self.core.store_free > 0)
    }

    /// A leader that may not serve gives the leadership to a standby that may.
    fn leave_if_ineligible(&mut self) {
        let idle = matches!(self.role(), Role::None | Role::Promoting { .. });
        if self.eligible() || !self.core.is_leader() || self.core.is_transferring() || !idle {
            return;
        }
        if let Some(to) = self.best_standby() {
            let handover = stream::Handover {
                term: self.core.term(),
                vip_released: false,
                reason: "not eligible".into(),
            };
            let send = self.core.transfer(to, &handover);
            self.send_all(send);
            if let Role::Promoting { term } = self.role() {
                self.state.role = Some(Role::Lost { term });
                self.end_role();
            }
        }
    }

    /// The eligible peer that is most up to date.
    fn best_standby(&self) -> Option<u64> {
        let now = boottime_ms();
        let fit = |id: &u64| {
            let peer = self.core.peer(*id)?;
            let state = peer
                .state
                .filter(|state| state.eligible && !state.forgetful && peer.heard_ms + 1500 > now)?;
            Some((state.last_index, *id))
        };
        self.settings.names.keys().filter_map(fit).max().map(|(_, id)| id)
    }

    fn thread(&mut self, event: ThreadEvent) {
        match event {
            ThreadEvent::Persisted(number) => {
                let free = self.core.persisted(number);
                self.send_all(free);
            }
            ThreadEvent::Applied(parts) => {
                for part in parts {
                    self.found(part);
                }
            }
            ThreadEvent::Halted(why) => {
                tracing::error!(
                    why,
                    "an entry can't be applied; this node halts and stays reachable for status"
                );
                self.state.halted = Some(why);
            }
            ThreadEvent::Fetched(wanted, Ok(entries)) => self.core.fetched(wanted, entries),
            ThreadEvent::Fetched(wanted, Err(error)) => {
                tracing::warn!(from = wanted.low, error, "reading old log entries for a peer failed");
                self.core.fetched(wanted, Vec::new());
            }
            ThreadEvent::Warmed(request) => self.submit(request),
            ThreadEvent::CouldNotWarm(request, error) => {
                tracing::error!(error, "reading metadata failed");
                (request.done)(Err(Failure::Unreadable));
            }
        }
    }

    fn net(&mut self, event: NetEvent) {
        let now = boottime_ms();
        match event {
            NetEvent::Message { from, message } => {
                if self.pins.is_strange(from) {
                    return;
                }
                match message {
                    PeerMessage::CheckPart(part) => self.peer_found(from, part),
                    PeerMessage::SyncNow => self.state.sync_now = true,
                    message => self.core.message(from, message, now),
                }
            }
            NetEvent::Up { peer } => {
                tracing::info!(peer = self.name(peer), "connected");
                let view = self.state.peers.entry(peer).or_default();
                (view.up, view.down) = (true, None);
            }
            NetEvent::Down { peer, why } => {
                let name = self.name(peer);
                let view = self.state.peers.entry(peer).or_default();
                if view.up || view.down.is_none() {
                    tracing::warn!(peer = name, why, "not connected");
                    view.down = Some((why, now));
                } else if let Some((known, _)) = &mut view.down {
                    *known = why;
                }
                view.up = false;
                self.core.lost(peer);
            }
            NetEvent::StrangeStore { peer, store_id } => {
                if !self.pins.accepts(peer, &store_id) {
                    tracing::error!(
                        peer = self.name(peer),
                        store_id,
                        "this peer has another store than before; its messages are ignored"
                    );
                }
                self.state.peers.entry(peer).or_default().strange = self.pins.is_strange(peer);
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Submit(request) => self.submit(request),
            Command::Sync {
                scope,
                deadline_ms,
                answer,
            } => {
                if let Some(failure) = self.role_failure() {
                    answer(Err(failure));
                } else {
                    self.sequencer.sync(scope, self.core.last(), deadline_ms, answer);
                }
            }
            Command::Hold { deadline_ms, answer } => self.hold(deadline_ms, answer),
            Command::Mounted { term } => {
                if self.role() == (Role::Promoting { term }) {
                    self.state.role = Some(Role::Active { term });
                    self.phase(|failover, now| failover.mounted_ms = now);
                    tracing::info!(term, "active");
                    self.step_role(boottime_ms());
                    self.release_held();
                }
            }
            Command::Fenced { term } => {
                if self.role() == (Role::Lost { term }) {
                    self.state.role = Some(Role::None);
                    tracing::info!(term, "the role is over here");
                }
            }
            Command::Agent(facts) => self.agent(facts),
            Command::HandOver { to, outcome } => self.begin_handover(to, outcome),
            Command::Check { part, parts, index } => {
                let _ = index.send(self.begin_check(part, parts));
            }
            Command::Stop => self.state.stopping = true,
        }
    }

    /// What a request is told that comes while there is no role for it.
    fn role_failure(&self) -> Option<Failure> {
        match self.role() {
            Role::None => Some(Failure::NotActive),
            Role::Lost { .. } => Some(Failure::Lost),
            _ => None,
        }
    }

    fn submit(&mut self, request: Request) {
        match self.role() {
            Role::None | Role::Lost { .. } => (request.done)(Err(Failure::NotActive)),
            // The mount is coming up: its first requests wait for the role.
            Role::Promoting { .. } => self.state.held_requests.push_back(request),
            _ if self
                .state
                .handover
                .as_ref()
                .is_some_and(|handover| handover.step != Step::Releasing) =>
            {
                (request.done)(Err(Failure::NotActive));
            }
            _ if !self.gate.may_answer(boottime_ms()) => self.state.held_requests.push_back(request),
            _ => {
                let term = Term(self.core.term());
                if let Submitted::Fetch(request, keys) = self.sequencer.submit(request, &mut self.core, term, wall()) {
                    let _ = self.channels.fetch.send(FetchWork::Keys(request, keys));
                }
            }
        }
    }

    fn hold(&mut self, deadline_ms: u64, answer: Answer) {
        match self.role() {
            Role::None => answer(Err(Failure::NotActive)),
            Role::Lost { .. } => answer(Err(Failure::Lost)),
            _ if self.gate.may_answer(boottime_ms()) => answer(Ok(())),
            _ => self.state.held.push(0, deadline_ms, answer),
        }
    }

    fn agent(&mut self, facts: AgentFacts) {
        if facts.vip_held && !self.state.agent.vip_held {
            self.phase(|failover, now| failover.vip_ms = now);
        }
        if facts.units_healthy && !self.state.agent.units_healthy {
            self.phase(|failover, now| failover.units_ms = now);
        }
        self.state.agent = facts;
    }

    /// Notes a moment of the promotion under way, the first time that it comes.
    fn phase(&mut self, note: impl FnOnce(&mut Failover, u64)) {
        if let Some(failover) = &mut self.state.failover
            && failover.term == self.core.term()
        {
            note(failover, boottime_ms());
        }
    }

    // ---- output -------------------------------------------------------------------------------------

    fn flush(&mut self) {
        let now = boottime_ms();
        let applied = self.store.applied();
        if applied.0 > self.core.applied {
            self.core.applied_to(applied);
        }
        let output = self.core.output();
        self.hand_out(output);
        self.step_role(now);
        self.step_handover(now);
        let term = Term(self.core.term());
        if self.gate.may_answer(now) {
            let mut fetch = Vec::new();
            self.sequencer.drain(&mut self.core, term, wall(), &mut fetch);
            for (request, keys) in fetch {
                let _ = self.channels.fetch.send(FetchWork::Keys(request, keys));
            }
        }
        // What was proposed just now goes out in the same round.
        let output = self.core.output();
        self.hand_out(output);
        self.hurry();
        if self.gate.may_answer(boottime_ms()) {
            let before = self.sequencer.acknowledged;
            self.sequencer.progress(self.core.received(), self.core.committed());
            if before == 0 && self.sequencer.acknowledged > 0 {
                self.phase(|failover, now| failover.first_write_ms = now);
            }
        }
        self.publish(now);
    }

    /// Asks to be woken by the apply thread if something here waits for it, and says whether it has just gone on.
    /// Otherwise its progress is seen whenever the loop turns: a wake-up for each entry would cost more than the entry.
    fn must_look_again(&self) -> bool {
        let waits = self.sequencer.is_full() || (self.core.is_leader() && !self.core.has_applied_own_term());
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

    fn hand_out(&mut self, output: Output) {
        for persist in output.persist {
            self.gather.push(persist, boottime_ms());
        }
        self.send_all(output.send);
        self.hand_to_apply(output.committed);
        for wanted in output.fetch {
            let _ = self.channels.fetch.send(FetchWork::Entries(wanted));
        }
    }

    fn hand_to_apply(&mut self, committed: Vec<holdfast_storage::apply::Committed>) {
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
        self.state.handed_to_apply = last.0;
        // A halted apply thread has hung up; what is committed stays in the log.
        let _ = self.channels.apply.send(work);
    }

    fn send_all(&mut self, messages: Vec<(u64, PeerMessage)>) {
        for (to, message) in messages {
            let strange = self.pins.is_strange(to);
            if let Some(link) = self.outgoing.get(&to)
                && !strange
            {
                // What doesn't fit is lost as on any network; heartbeats and probes find out.
                link.send(message);
            }
        }
    }

    // ---- the role -----------------------------------------------------------------------------------

    fn facts(&mut self, now_ms: u64) -> Facts {
        let role_term = self.role().term();
        let leader = self.core.is_leader();
        let other_leads = self.core.leader().is_some_and(|id| id != self.settings.id);
        Facts {
            now_ms,
            term: self.core.term(),
            leader,
            own_term_applied: self.core.has_applied_own_term(),
            other_elected: role_term > 0
                && (other_leads && !leader || (self.core.term() > role_term && self.core.voted_for_other())),
            before_own_term: self.core.before_own_term(),
            lease_until_ms: self.core.lease_until_ms(),
            eligible: self.eligible(),
        }
    }

    fn step_role(&mut self, now: u64) {
        let facts = self.facts(now);
        let was = self.role();
        let role = was.step(&facts, self.settings.grace_ms);
        self.state.role = Some(role);
        self.gate
            .set_lease(if role == Role::None { 0 } else { facts.lease_until_ms });
        self.gate.set_serving(
            role.accepts()
                && self
                    .state
                    .handover
                    .as_ref()
                    .is_none_or(|handover| handover.step == Step::Releasing),
        );
        self.core.suspended = matches!(role, Role::Suspended { .. });
        if role == was {
            return;
        }
        match role {
            Role::Promoting { term } => self.promote(term, now),
            Role::Suspended { .. } => {
                tracing::warn!("suspended: no majority answers; requests wait");
                self.cancel_handover("the lease ran out before the switch was done");
            }
            Role::Active { term } => self.resume(term),
            Role::Lost { term } => {
                tracing::warn!(term, "the active role is lost");
                self.end_role();
            }
            Role::None | Role::HandOver { .. } => {}
        }
    }

    fn promote(&mut self, term: u64, now: u64) {
        let planned = self.settings.names.keys().find_map(|id| {
            let handover = self.core.peer(*id)?.handover.clone()?;
            (handover.term + 1 == term).then_some((*id, handover))
        });
        let released = planned.as_ref().is_some_and(|(_, handover)| handover.vip_released);
        // Whoever held the lease before lost it before this node could be elected.
        self.state.vip_not_before_ms = if released { now } else { now + self.settings.vip_wait_ms };
        self.state.failover = Some(Failover {
            term,
            began_ms: self.state.own_before,
            detected_ms: self.core.campaign_ms,
            lease_ms: now,
            from: planned.as_ref().map(|(id, _)| *id),
            planned: planned.is_some(),
            ..Failover::default()
        });
        self.sequencer.end();
        self.state.sync_asked = 0;
        tracing::info!(term, "elected; bringing the file system up");
        let root = self.store.inode(Ino::ROOT);
        if let Err(holdfast_storage::store::ReadError::Refused(_)) = root {
            let entry = Entry {
                term: Term(term),
                effects: holdfast_storage::plan::root(wall()),
            };
            if let Some(index) = self.core.propose(entry.encode()) {
                self.store.overlay.sequence(index, &entry.effects);
                self.sequencer.urgency.now();
            }
        }
    }

    /// The lease is back, or the file system is up: what waited goes on.
    fn resume(&mut self, term: u64) {
        tracing::info!(term, "the lease runs again");
        self.release_held();
    }

    fn release_held(&mut self) {
        self.state.held.reached(u64::MAX);
        for request in std::mem::take(&mut self.state.held_requests) {
            self.submit(request);
        }
    }

    fn end_role(&mut self) {
        self.gate.set_serving(false);
        self.sequencer.end();
        self.state.held.fail_all(Failure::Lost);
        for request in std::mem::take(&mut self.state.held_requests) {
            (request.done)(Err(Failure::Lost));
        }
        self.cancel_handover("the active role was lost before the switch was done");
    }

    /// A transfer under way can't be called back.
    fn cancel_handover(&mut self, why: &str) {
        if let Some(handover) = self
            .state
            .handover
            .take_if(|handover| handover.step != Step::Transferring)
        {
            handover.finish(Err(format!("{why}; see `holdfast status`")));
        }
    }

    // ---- planned switch -----------------------------------------------------------------------------

    fn begin_handover(&mut self, to: Option<String>, outcome: tokio::sync::oneshot::Sender<Result<String, String>>) {
        match self.check_handover(to) {
            Err(why) => {
                let _ = outcome.send(Err(why));
            }
            Ok((term, to)) => {
                tracing::info!(to = self.name(to), "handing the active role over");
                self.state.role = Some(Role::HandOver { term });
                self.state.handover = Some(HandOver {
                    term,
                    to,
                    step: Step::Releasing,
                    since_ms: boottime_ms(),
                    vip_released: false,
                    outcome: Some(outcome),
                });
            }
        }
    }

    fn check_handover(&self, to: Option<String>) -> Result<(u64, u64), String> {
        let Role::Active { term } = self.role() else {
            return Err("this node is not active, so it has nothing to hand over".into());
        };
        let Some(name) = to else {
            let best = self
                .best_standby()
                .ok_or("no standby is reachable, up to date and able to take over: see `holdfast status`")?;
            return Ok((term, best));
        };
        let id = self
            .settings
            .names
            .iter()
            .find(|(_, known)| **known == name)
            .map(|(id, _)| *id);
        let id = id.ok_or_else(|| format!("there is no node {name} in this cluster"))?;
        if id == self.settings.id {
            return Err(format!("{name} is the active node already"));
        }
        let peer = self.core.peer(id).filter(|peer| peer.heard_ms + 1500 > boottime_ms());
        match peer.and_then(|peer| peer.state) {
            None => Err(format!("{name} isn't reached: nothing was changed")),
            Some(state) if !state.eligible => Err(format!(
                "{name} says that it could not take over; `holdfast status` there says why"
            )),
            Some(state) if state.forgetful => Err(format!("{name} is still catching up after a crash")),
            Some(_) => Ok((term, id)),
        }
    }

    fn step_handover(&mut self, now: u64) {
        let Some(handover) = &mut self.state.handover else {
            return;
        };
        match handover.step {
            Step::Releasing => {
                let agent = &self.state.agent;
                handover.vip_released = agent.connected && agent.released_term >= handover.term;
                if handover.vip_released || !agent.connected {
                    handover.step = Step::Flushing;
                    handover.since_ms = now;
                    self.gate.set_serving(false);
                } else if now >= handover.since_ms + RELEASE_MAX_MS
                    && let Some(handover) = self.state.handover.take()
                {
                    self.state.role = Some(Role::Active { term: handover.term });
                    handover.finish(Err("the PBX's units didn't stop in time; this node stays active".into()));
                }
            }
            Step::Flushing => {
                self.sequencer.urgency.now();
                // Their answers may still be given: the lease runs. Then nothing is left that a transfer could lose.
                self.sequencer.progress(self.core.received(), self.core.committed());
                if self.core.committed() == self.core.last() {
                    let message = stream::Handover {
                        term: handover.term,
                        vip_released: handover.vip_released,
                        reason: "planned".into(),
                    };
                    handover.step = Step::Transferring;
                    handover.since_ms = now;
                    let to = handover.to;
                    let send = self.core.transfer(to, &message);
                    self.send_all(send);
                    self.state.role = Some(Role::Lost {
                        term: self.role().term(),
                    });
                    self.end_role();
                }
            }
            Step::Transferring => {
                let to = handover.to;
                let done = self.core.leader() == Some(to);
                let failed = !done
                    && (now >= handover.since_ms + 10_000 || (self.core.is_leader() && !self.core.is_transferring()));
                if (done || failed)
                    && let Some(handover) = self.state.handover.take()
                {
                    let name = self.name(to);
                    handover.finish(if done {
                        Ok(name)
                    } else {
                        Err(format!("{name} didn't take the role; the nodes elect one of them now"))
                    });
                }
            }
        }
    }

    // ---- check --------------------------------------------------------------------------------------

    fn begin_check(
        &mut self,
        part: holdfast_storage::effects::CheckPart,
        parts: mpsc::UnboundedSender<(u64, Part)>,
    ) -> Result<u64, String> {
        if !self.role().accepts() {
            return Err("this node is not active".into());
        }
        self.state.checks.retain(|_, waiting| !waiting.is_closed());
        self.state.next_check += 1;
        let id = self.settings.id << 56 | (boottime_ms() & 0xffff_ffff) << 20 | self.state.next_check & 0xf_ffff;
        let entry = Entry {
            term: Term(self.core.term()),
            effects: vec![Effect::Check { id, part }],
        };
        let index = self
            .core
            .propose(entry.encode())
            .ok_or("the log takes no more entries just now")?;
        self.store.overlay.sequence(index, &entry.effects);
        self.sequencer.urgency.now();
        self.state.checks.insert(id, parts);
        Ok(index.0)
    }

    /// This replica's own finding: to whoever asked.
    fn found(&mut self, part: Part) {
        let asked_by = part.id >> 56;
        if asked_by == self.settings.id {
            if let Some(waiting) = self.state.checks.get(&part.id) {
                let _ = waiting.send((self.settings.id, part));
            }
            return;
        }
        let (hash, count, error) = match part.found {
            Ok(found) => (found.hash.into(), found.count, String::new()),
            Err(error) => (bytes::Bytes::new(), 0, error),
        };
        // The index is the entry's; the asker knows which question it answers.
        let message = stream::CheckPart {
            id: part.id,
            index: part.index.0,
            hash,
            count,
            error,
        };
        self.send_all(vec![(asked_by, PeerMessage::CheckPart(message))]);
    }

    fn peer_found(&mut self, from: u64, part: stream::CheckPart) {
        if let Some(waiting) = self.state.checks.get(&part.id) {
            let found = if part.error.is_empty() {
                Ok(Found {
                    hash: part.hash.to_vec(),
                    count: part.count,
                    ..Found::default()
                })
            } else {
                Err(part.error)
            };
            let _ = waiting.send((
                from,
                Part {
                    id: part.id,
                    index: LogIndex(part.index),
                    found,
                },
            ));
        }
    }

    // ---- what others see ----------------------------------------------------------------------------

    fn name(&self, id: u64) -> String {
        self.settings
            .names
            .get(&id)
            .cloned()
            .unwrap_or_else(|| format!("number {id}"))
    }

    fn publish(&mut self, now: u64) {
        let role = self.role();
        // The last sign of life of another node's leadership: a failover to this node begins there.
        if self.core.leader().is_some() && !self.core.is_leader() {
            self.state.own_before = self.core.leader_heard_ms;
        }
        let changed = {
            let shown = self.channels.view.borrow();
            shown.role != role
                || shown.leader != self.core.leader()
                || shown.lease_until_ms != self.gate.lease_until_ms()
                || shown.handover.is_some() != self.state.handover.is_some()
                || now >= shown.at_ms + 50
        };
        if !changed {
            return;
        }
        let leader = self.core.leader().and_then(|id| self.core.peer(id)?.state);
        let behind = leader
            .filter(|leader| leader.last_index > self.core.last())
            .map_or(0, |leader| leader.lag_bytes.max(1));
        self.state.behind_since_ms = if behind == 0 {
            None
        } else {
            self.state.behind_since_ms.or(Some(now))
        };
        for (id, view) in &mut self.state.peers {
            if let Some(peer) = self.core.peer(*id) {
                view.heard_ms = peer.heard_ms;
                if let Some(state) = peer.state {
                    (view.last_index, view.eligible, view.forgetful) =
                        (state.last_index, state.eligible, state.forgetful);
                }
            }
        }
        let view = View {
            at_ms: now,
            role,
            term: self.core.term(),
            leader: self.core.leader(),
            candidate: self.core.leader().is_none(),
            sequenced: self.core.last(),
            durable: self.core.durable(),
            committed: self.core.committed(),
            applied: self.store.applied().0,
            checkpointed: self.store.checkpointed().0,
            first: self.core.first(),
            lease_until_ms: self.gate.lease_until_ms(),
            vip_not_before_ms: self.state.vip_not_before_ms,
            forgetful: self.core.is_forgetful(),
            durable_alone_ms: self.core.durable_alone_ms(),
            peers: self.state.peers.clone(),
            lag_bytes: behind,
            behind_since_ms: self.state.behind_since_ms,
            left_behind: self.core.left_behind(),
            halted: self.state.halted.clone(),
            full: self.sequencer.full,
            failover: self.state.failover.clone(),
            handover: self
                .state
                .handover
                .as_ref()
                .map(|handover| format!("{:?} to {}", handover.step, self.name(handover.to)).to_lowercase()),
            waiting: self.sequencer.waiting(),
            rotten_blocks: self.store.rotten_blocks(),
            store_free: self.state.space.free,
            reserve: self.settings.reserve,
        };
        self.channels.view.send_replace(Arc::new(view));
    }
}
