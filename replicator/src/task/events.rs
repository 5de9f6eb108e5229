//! What arrives: from the threads, from peers, from whoever has the handle.

use super::{COMPLAIN_EVERY, Task, clocks};
use crate::api::{Failure, Request};
use crate::clock::boottime_ms;
use crate::fitness::PLANNED;
use crate::handle::{AgentFacts, Command};
use crate::memory_log::Unread;
use crate::net::NetEvent;
use crate::roles::Role;
use crate::sequencer::Submitted;
use crate::threads::ThreadEvent;
use crate::threads::apply::ApplyWork;
use crate::threads::fetch::FetchWork;
use crate::waiting::Answer;
use crate::wire::PeerMessage;
use holdfast_storage::types::Term;

impl Task {
    pub(super) fn thread(&mut self, event: ThreadEvent) {
        match event {
            // Written before the disk failed, and said too late.
            ThreadEvent::Persisted(_) if self.state.out => {}
            ThreadEvent::Persisted(number) => {
                let free = self.core.persisted(number);
                self.send_all(free);
            }
            ThreadEvent::Applied(_) if self.state.out => {}
            ThreadEvent::Applied(parts) => {
                for part in parts {
                    self.found(part);
                }
            }
            ThreadEvent::Halted(why) => {
                tracing::error!(why, "this node can't serve; it still keeps the log");
                self.state.halted.get_or_insert(why);
            }
            ThreadEvent::Failed(why) => self.fail(why),
            ThreadEvent::Fetched(wanted, read) => {
                if let Err(Unread::Failed(why)) = &read
                    && self.state.ticks >= self.state.fetch_complaint + COMPLAIN_EVERY
                {
                    self.state.fetch_complaint = self.state.ticks;
                    tracing::error!(
                        from = wanted.low,
                        why,
                        "log entries that a peer lacks can't be read: it gets a copy"
                    );
                }
                self.core.fetched(wanted, read);
            }
            // Of a role that has ended meanwhile: others may have changed what it was about.
            ThreadEvent::Warmed(request, of) if of != self.state.roles_ended => (request.done)(Err(Failure::Lost)),
            ThreadEvent::Warmed(request, _) => self.submit(request),
            ThreadEvent::CouldNotWarm(request, error) => {
                tracing::error!(error, "reading metadata failed");
                (request.done)(Err(Failure::Unreadable));
            }
        }
    }

    pub(super) fn net(&mut self, event: NetEvent) {
        let now = boottime_ms();
        match event {
            NetEvent::Message { from, message } => {
                if self.state.out || self.has_another_history(from, &message) || !self.pins.is_heard(from) {
                    return;
                }
                if let PeerMessage::State(state) = &message {
                    self.hear_of_third(from, state.third_store);
                }
                match message {
                    PeerMessage::CheckPart(part) => self.peer_found(from, part),
                    PeerMessage::SyncNow => self.state.sync_now = true,
                    message => self.core.message(from, message, now),
                }
            }
            NetEvent::Up { peer } => {
                tracing::info!(peer = self.name(peer), "connected");
                self.core.reached(peer);
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
            NetEvent::HasStore {
                peer,
                store_id,
                joined,
                has_data,
                timing,
            } => {
                self.core.data_elsewhere |= has_data;
                self.core.goes_by(peer, timing);
                if !self.pins.accepts(peer, &store_id, joined) {
                    tracing::error!(
                        peer = self.name(peer),
                        store_id,
                        "this peer has another store than before; its messages are ignored until it has got a copy from the active node"
                    );
                }
                let view = self.state.peers.entry(peer).or_default();
                // Whatever it had before: it may have been emptied since. What it says next tells.
                view.other_history = false;
                view.strange = self.pins.is_strange(peer);
            }
        }
    }

    fn hear_of_third(&mut self, from: u64, print: u64) {
        if self.core.is_leader() {
            return;
        }
        if let Some(peer) = self.pins.vouched(from, print) {
            self.state.peers.entry(peer).or_default().strange = false;
            tracing::warn!(
                peer = self.name(peer),
                by = self.name(from),
                "this peer has another store than before, and the third node knows it with that one: what it says counts again"
            );
        }
    }

    /// Two clusters were made of one configuration. A greeting finds that out, but it may have come before there was a file system.
    fn has_another_history(&mut self, from: u64, message: &PeerMessage) -> bool {
        let PeerMessage::State(state) = message else {
            return false;
        };
        let own = self.core.history;
        if state.last_index == 0 {
            self.state.began_empty.insert(from);
        }
        // After a forced recovery whoever brings a log and can't say of which history is one of the lost.
        let of_the_lost = state.history == 0 && self.is_recovering() && !self.state.began_empty.contains(&from);
        let other = own != 0 && (of_the_lost || (state.history != 0 && state.history != own));
        if other && !std::mem::replace(&mut self.state.peers.entry(from).or_default().other_history, true) {
            self.pins.set_apart(from);
            self.state.peers.entry(from).or_default().strange = true;
            tracing::error!(
                peer = self.name(from),
                "its file system isn't the one that this node has: they were made at different times. What it says is ignored; see `A new replica` in the runbook"
            );
        }
        other
    }

    pub(super) fn command(&mut self, command: Command) {
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
                    self.phase(|failover| &mut failover.mounted_ms);
                    tracing::info!(term, "active");
                }
            }
            Command::MountEnded { term } => {
                // One that is being transferred is lost already.
                if self.role() == (Role::Active { term }) || self.role() == (Role::HandOver { term }) {
                    tracing::error!(
                        term,
                        "the file system was unmounted or aborted by something else: the role ends here and begins anew"
                    );
                    self.state.role = Some(Role::Lost { term });
                    self.end_role();
                }
            }
            Command::OddOneOut(id) => self.state.odd_one_out = id,
            Command::Fenced { term } => {
                if self.role() == (Role::Lost { term }) {
                    self.state.role = Some(Role::None);
                    tracing::info!(term, "the role is over here");
                }
            }
            Command::Agent(facts) => self.agent(facts),
            Command::HandOver { to, outcome } => self.begin_handover(to, PLANNED.into(), outcome),
            Command::Check { part, parts, index } => {
                let _ = index.send(self.begin_check(part, parts));
            }
            // A role begins only after an entry that is applied behind this.
            Command::Mend(_, Some(order)) if order.term != self.core.term() || self.role() != Role::None => {}
            // A halted apply thread has hung up; whoever waits for the answer hears that.
            Command::Mend(work, _) => drop(self.channels.apply.send(ApplyWork::Mend(work))),
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

    pub(super) fn submit(&mut self, request: Request) {
        match self.role() {
            Role::None | Role::Lost { .. } => (request.done)(Err(Failure::NotActive)),
            // The mount is coming up: its first requests wait for the role.
            Role::Promoting { .. } => self.state.held_requests.push_back(request),
            _ if self.state.switch.as_ref().is_some_and(|switch| !switch.is_releasing()) => {
                (request.done)(Err(Failure::NotActive));
            }
            _ if !self.gate.may_answer(boottime_ms()) => self.state.held_requests.push_back(request),
            _ => {
                let term = Term(self.core.term());
                if let Submitted::Fetch(request, keys) = self.sequencer.submit(request, &mut self.core, term, clocks())
                {
                    let _ = self
                        .channels
                        .fetch
                        .send(FetchWork::Keys(request, keys, self.state.roles_ended));
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
            self.phase(|failover| &mut failover.vip_ms);
        }
        if facts.units_healthy && !self.state.agent.units_healthy {
            self.phase(|failover| &mut failover.units_ms);
        }
        self.state.agent = facts;
    }
}
