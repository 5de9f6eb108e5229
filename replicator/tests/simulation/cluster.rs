//! Three nodes, a network and true time: one event after the other, each followed by the invariants.

use crate::invariants::Invariants;
use crate::net::{Net, Weather};
use crate::node::{Clock, Node, Waiting};
use crate::random::Random;
use bytes::Bytes;
use holdfast_proto::stream;
use holdfast_replicator::core::Output;
use holdfast_replicator::memory_log::{self, Wanted};
use holdfast_replicator::wire::PeerMessage;
use holdfast_storage::types::LogIndex;
use std::collections::BTreeMap;

pub(crate) const SECOND: u64 = 1_000_000;
pub(crate) const NODES: [u64; 3] = [1, 2, 3];

pub(crate) struct Timers {
    pub(crate) tick_ms: u64,
    pub(crate) election_ticks: u32,
    pub(crate) heartbeat_ticks: u32,
    pub(crate) drift_permille: u64,
    pub(crate) forgetful_wait_ms: u64,
}

impl Timers {
    pub(crate) fn drawn(random: &mut Random) -> Self {
        let (election_ticks, heartbeat_ticks) = [(20, 2), (10, 2), (7, 2)][random.between(0, 3) as usize];
        let forgetful_wait_ms = [10_000, 3_000][random.between(0, 2) as usize];
        let drift_permille = [1, 10, 50][random.between(0, 3) as usize];
        Self {
            tick_ms: 50,
            election_ticks,
            heartbeat_ticks,
            drift_permille,
            forgetful_wait_ms,
        }
    }

    /// As the configuration computes it.
    pub(crate) fn lease_ms(&self) -> u64 {
        let promised = self.tick_ms * u64::from(self.election_ticks - 1);
        promised - promised * self.drift_permille / 1000
    }

    pub(crate) fn election_us(&self) -> u64 {
        self.tick_ms * u64::from(self.election_ticks) * 1000
    }
}

/// One a peer, and a few that a change of mind has left over.
const FETCHES_MAX: u32 = 8;

enum Event {
    Tick,
    Arrived { from: u64, message: PeerMessage },
    PeerGone { peer: u64 },
    SyncEnds { number: u64 },
    Applied { index: u64 },
    Fetched { wanted: Wanted },
    Client,
}

pub(crate) struct Cluster {
    pub(crate) timers: Timers,
    pub(crate) random: Random,
    pub(crate) now_us: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) invariants: Invariants,
    /// By true time, then in the order in which they came up: (node, its start, what).
    events: BTreeMap<(u64, u64), (u64, u64, Event)>,
    numbered: u64,
    next_value: u64,
    traced: bool,
}

impl Cluster {
    pub(crate) fn new(seed: u64, weather: impl FnOnce(&mut Random) -> Weather) -> Self {
        let mut random = Random::new(seed);
        let timers = Timers::drawn(&mut random);
        let nodes = NODES
            .map(|id| Node::new(id, Clock::drawn(timers.drift_permille, &mut random)))
            .into();
        let weather = weather(&mut random);
        let mut cluster = Self {
            timers,
            random,
            now_us: 0,
            nodes,
            net: Net::new(weather),
            invariants: Invariants::default(),
            events: BTreeMap::new(),
            numbered: 0,
            next_value: 1,
            traced: std::env::var_os("HOLDFAST_TRACE").is_some(),
        };
        for id in NODES {
            cluster.start(id);
        }
        cluster
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    fn schedule(&mut self, at_us: u64, node: u64, event: Event) {
        self.numbered += 1;
        let start = self.nodes[node as usize - 1].start;
        self.events.insert((at_us, self.numbered), (node, start, event));
    }

    // ---- the operator's and fate's verbs ------------------------------------------------------------

    pub(crate) fn start(&mut self, id: u64) {
        let (now_us, timers, random) = (self.now_us, &self.timers, &mut self.random);
        let node = &mut self.nodes[id as usize - 1];
        if node.running.is_some() || node.gone_for_good {
            return;
        }
        node.boot(timers, now_us, random);
        self.schedule(now_us, id, Event::Tick);
        self.schedule(now_us + 1, id, Event::Client);
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let node = &mut self.nodes[id as usize - 1];
        if node.running.is_some() {
            node.crash(&mut self.random);
            self.ended(id);
        }
    }

    /// With its clean-stop mark.
    pub(crate) fn stop(&mut self, id: u64) {
        if self.node(id).running.is_some() {
            self.node(id).stop();
            self.ended(id);
        }
    }

    fn ended(&mut self, id: u64) {
        self.invariants.ended(&self.nodes);
        for peer in NODES {
            // A dead process's connections break at once, a dead machine's perhaps never.
            if peer != id && self.random.chance(500) {
                let at = self.now_us + self.random.between(100, 100_000);
                self.schedule(at, peer, Event::PeerGone { peer: id });
            }
        }
    }

    pub(crate) fn freeze(&mut self, id: u64, us: u64) {
        self.node(id).frozen_until_us = self.now_us + us;
    }

    pub(crate) fn hold_syncs(&mut self, id: u64, us: u64) {
        self.node(id).syncs_held_until_us = self.now_us + us;
    }

    /// The leader gives its role to a peer.
    pub(crate) fn transfer(&mut self) {
        let Some(id) = self.serving() else { return };
        let to = [id % 3 + 1, (id + 1) % 3 + 1][self.random.between(0, 2) as usize];
        let Some(running) = &mut self.node(id).running else {
            return;
        };
        let handover = stream::Handover {
            term: running.core.term(),
            vip_released: false,
            reason: String::new(),
        };
        let send = running.core.transfer(to, &handover);
        self.send_all(id, send);
        self.after(id);
    }

    /// The node's machine stops, and its disk is lost with it.
    pub(crate) fn lose_disk(&mut self, id: u64) {
        self.crash(id);
        self.node(id).lose_disk();
        self.invariants.ended(&self.nodes);
    }

    /// What the daemon does to copy the leader's store to a node whose disk is new: the log from a checkpoint on, and an
    /// entry of its own that ends the copy and must be committed in that leader's term. False: it didn't end in time.
    pub(crate) fn copy_to(&mut self, id: u64, within_us: u64) -> bool {
        let leads = |cluster: &Self| cluster.nodes.iter().find_map(|node| node.leads(cluster.now_us));
        if !self.run_until(within_us, |cluster| leads(cluster).is_some()) {
            return false;
        }
        let Some(source) = leads(self) else { return false };
        let checkpoint = source.committed.saturating_sub(self.random.between(0, 20));
        let copying_us = self.random.between(1000, SECOND);
        self.run_for(copying_us);
        let value = self.next_value;
        self.next_value += 1;
        let end = self.node(source.id).running.as_mut().and_then(|running| {
            let same = running.core.is_leader() && running.core.term() == source.term;
            same.then(|| running.core.propose(Bytes::copy_from_slice(&value.to_le_bytes())))?
        });
        let Some(end) = end else { return false };
        self.after(source.id);
        let ended = move |cluster: &Self| {
            let leader = cluster.nodes[source.id as usize - 1].leads(cluster.now_us);
            leader.is_some_and(|leader| leader.term == source.term && leader.committed >= end.0)
        };
        if !self.run_until(within_us, ended) {
            return false;
        }
        self.node(id).copy_from(&source, checkpoint);
        true
    }

    pub(crate) fn heal(&mut self) {
        self.net.heal();
        self.net.weather = Weather::FAIR;
    }

    /// No node is frozen any more, nor its disk.
    pub(crate) fn is_thawed(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.frozen_until_us.max(node.syncs_held_until_us) <= self.now_us)
    }

    // ---- what a test asks ---------------------------------------------------------------------------

    /// A node whose lease runs and which has applied its own term's first entry.
    pub(crate) fn serving(&self) -> Option<u64> {
        let serves = |node: &&Node| {
            node.has_lease(self.now_us)
                && node
                    .running
                    .as_ref()
                    .is_some_and(|running| running.core.has_applied_own_term())
        };
        self.nodes.iter().find(serves).map(|node| node.id)
    }

    /// All nodes that are up have synced all that the leader has.
    pub(crate) fn is_recovered(&self) -> bool {
        let Some(leader) = self.serving() else { return false };
        let last = |node: &Node| node.running.as_ref().map_or(0, |running| running.core.last());
        let last = last(&self.nodes[leader as usize - 1]);
        let whole = |node: &Node| {
            node.running.as_ref().is_none_or(|running| {
                running.core.leader() == Some(leader)
                    && !running.core.is_forgetful()
                    && running.core.durable() >= last
                    && running.core.last() >= last
            })
        };
        self.nodes.iter().all(whole)
    }

    /// Runs until `done` or for `us`; says whether it was done.
    pub(crate) fn run_until(&mut self, us: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now_us + us;
        while !done(self) {
            if self.next_us() > end {
                self.now_us = end;
                return done(self);
            }
            self.step();
        }
        true
    }

    pub(crate) fn run_for(&mut self, us: u64) {
        self.run_until(us, |_| false);
    }

    fn next_us(&self) -> u64 {
        self.events.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }

    // ---- one event ----------------------------------------------------------------------------------

    fn step(&mut self) {
        let Some(((at_us, _), (id, start, event))) = self.events.pop_first() else {
            return;
        };
        self.now_us = self.now_us.max(at_us);
        let node = &self.nodes[id as usize - 1];
        if node.start != start || node.running.is_none() {
            return;
        }
        let disk = matches!(event, Event::SyncEnds { .. });
        if node.frozen_until_us > at_us && !disk {
            // After a stall there is one tick, and it comes first.
            let later = node.frozen_until_us + u64::from(!matches!(event, Event::Tick));
            self.schedule(later, id, event);
            return;
        }
        if self.traced && matches!(event, Event::Tick) {
            self.trace(id);
        }
        self.happen(id, event);
        self.after(id);
    }

    /// What a node is, tick by tick, for whoever hunts a failing seed.
    fn trace(&self, id: u64) {
        let node = &self.nodes[id as usize - 1];
        let Some(running) = &node.running else { return };
        let core = &running.core;
        eprintln!(
            "{:>9} ms n{id} start {} {:?} term {} leader {:?} last {} durable {} committed {} forgetful {} lease {}",
            self.now_us / 1000,
            node.start,
            core.role(),
            core.term(),
            core.leader(),
            core.last(),
            core.durable(),
            core.committed(),
            core.is_forgetful(),
            node.has_lease(self.now_us),
        );
    }

    fn happen(&mut self, id: u64, event: Event) {
        let now_us = self.now_us;
        let node = &mut self.nodes[id as usize - 1];
        let now_ms = node.clock.at_ms(now_us);
        let Some(running) = &mut node.running else { return };
        match event {
            Event::Tick => {
                running.ticks += 1;
                running.core.tick(now_ms);
                let late = self.random.between(0, 3000);
                let at = now_us + node.clock.true_us(self.timers.tick_ms) + late;
                self.schedule(at, id, Event::Tick);
            }
            Event::Arrived { from, message } => running.core.message(from, message, now_ms),
            Event::PeerGone { peer } => running.core.lost(peer),
            Event::SyncEnds { number } => self.synced(id, number),
            Event::Applied { index } => {
                running.core.applied_to(LogIndex(index));
                node.applied = node.applied.max(index);
            }
            Event::Fetched { wanted } => {
                running.fetching -= 1;
                let read = memory_log::fetch(&node.disk.reader(), wanted.low, wanted.high, usize::MAX);
                running.core.fetched(wanted, read);
            }
            Event::Client => self.client(id),
        }
    }

    fn synced(&mut self, id: u64, number: u64) {
        let node = &mut self.nodes[id as usize - 1];
        if node.syncs_held_until_us > self.now_us {
            let at = node.syncs_held_until_us;
            self.schedule(at, id, Event::SyncEnds { number });
            return;
        }
        node.disk.sync(number);
        let Some(running) = &mut node.running else { return };
        running.syncing = false;
        let send = running.core.persisted(number);
        self.send_all(id, send);
    }

    fn client(&mut self, id: u64) {
        let at = self.now_us + self.random.between(1000, 30_000);
        self.schedule(at, id, Event::Client);
        let value = self.next_value;
        let (now_us, node) = (self.now_us, &mut self.nodes[id as usize - 1]);
        let leased = node.has_lease(now_us);
        let Some(running) = &mut node.running else { return };
        if leased
            && running.core.has_applied_own_term()
            && let Some(index) = running.core.propose(Bytes::copy_from_slice(&value.to_le_bytes()))
        {
            self.next_value += 1;
            running.waiting.push(Waiting {
                term: running.core.term(),
                index: index.0,
                received: false,
            });
        }
    }

    /// What the daemon's loop does after each event.
    fn after(&mut self, id: u64) {
        self.invariants.before_output(&self.nodes);
        loop {
            let Some(running) = &mut self.node(id).running else {
                return;
            };
            let output = running.core.output();
            let more = output.more;
            self.hand_out(id, output);
            if !more {
                break;
            }
        }
        self.acknowledge(id);
        let now_us = self.now_us;
        self.invariants.check(&mut self.nodes, id, now_us);
    }

    fn hand_out(&mut self, id: u64, output: Output) {
        let now_us = self.now_us;
        for persist in output.persist {
            let node = self.node(id);
            if let Some(running) = &mut node.running {
                running.take(&persist.entries);
            }
            node.disk.write(persist);
        }
        self.send_all(id, output.send);
        self.begin_sync(id);
        for wanted in output.fetch {
            if let Some(running) = &mut self.node(id).running {
                running.fetching += 1;
                assert!(running.fetching <= FETCHES_MAX, "reads of old entries pile up");
            }
            let at = now_us + self.random.between(100, 20_000);
            self.schedule(at, id, Event::Fetched { wanted });
        }
        if let Some(last) = output.committed.last() {
            self.invariants.applies(&mut self.nodes, id, &output.committed);
            // One thread applies, in order.
            let (index, most) = (last.index.0, self.random.between(50, 8000));
            let node = self.node(id);
            node.applying_until_us = node.applying_until_us.max(now_us) + most;
            let at = node.applying_until_us;
            self.schedule(at, id, Event::Applied { index });
        }
    }

    fn begin_sync(&mut self, id: u64) {
        let node = self.node(id);
        let (Some(number), Some(running)) = (node.disk.newest(), &mut node.running) else {
            return;
        };
        if !running.syncing {
            running.syncing = true;
            let most = [500, 5000, 50_000][self.random.between(0, 3) as usize];
            let at = self.now_us + self.random.between(100, most);
            self.schedule(at, id, Event::SyncEnds { number });
        }
    }

    pub(crate) fn send_all(&mut self, from: u64, messages: Vec<(u64, PeerMessage)>) {
        for (to, message) in messages {
            self.invariants
                .leaves(&self.nodes[from as usize - 1], &message, self.timers.election_ticks);
            for at in self.net.arrivals(from, to, self.now_us, &mut self.random) {
                self.schedule(
                    at,
                    to,
                    Event::Arrived {
                        from,
                        message: message.clone(),
                    },
                );
            }
        }
    }

    /// As the daemon does it: only while its lease runs.
    fn acknowledge(&mut self, id: u64) {
        let now_us = self.now_us;
        let node = &mut self.nodes[id as usize - 1];
        let leased = node.has_lease(now_us);
        let Some(running) = &mut node.running else { return };
        let (term, received, committed) = (running.core.term(), running.core.received(), running.core.committed());
        running.waiting.retain(|waiting| waiting.term == term);
        if !leased {
            return;
        }
        for waiting in &mut running.waiting {
            if !waiting.received && waiting.index <= received {
                waiting.received = true;
                self.invariants.received.acknowledged(waiting);
            }
            if waiting.index <= committed {
                self.invariants.committed.acknowledged(waiting);
            }
        }
        running.waiting.retain(|waiting| waiting.index > committed);
    }
}
