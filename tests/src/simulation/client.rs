//! Programs on the node that serves: each does one thing after the other, and knows what it was told.

use super::choice::{Chosen, choose, created, touched};
use super::model::Change;
use super::replica::{Event, Proposed};
use super::timers;
use super::world::{What, Whom, World};
use bytes::Bytes;
use holdfast_replicator::api::{Failure, Request, Scope, Wait};
use holdfast_replicator::roles::Role;
use holdfast_storage::effects::{CheckPart, Entry};
use holdfast_storage::op::{Op, Refusal, Reply};
use holdfast_storage::types::LogIndex;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub type Outcomes = Arc<Mutex<Vec<(u64, Result<Option<Reply>, Failure>)>>>;

/// An operation under way, or one whose client has given it up.
pub struct Running {
    slot: u64,
    node: u64,
    start: u64,
    /// What it changes; the number of a new inode comes with its entry.
    change: Option<Change>,
    /// Asked for by the client, beyond what the class wants.
    wait: Wait,
    /// Where it stands in the log, and as what it will be acknowledged.
    placed: Option<(u64, u64, Wait)>,
    /// An fsync: what it covers.
    covers: Vec<(u64, u64)>,
}

#[derive(Default)]
pub struct Clients {
    pub running: BTreeMap<u64, Running>,
    /// Per client: the operation that it waits for.
    waits_for: BTreeMap<u64, u64>,
    next_op: u64,
    pub outcomes: Outcomes,
    /// No new operations.
    pub quiet: bool,
    /// Nor before then.
    pub rest_until_us: u64,
}

impl World {
    pub(super) fn client(&mut self, slot: u64) {
        let pause = self.random.one_of(&[5_000, 20_000, 100_000]);
        let pause = self.random.between(500, pause);
        let rests = self.clients.quiet || self.now_us < self.clients.rest_until_us;
        if rests || self.clients.waits_for.contains_key(&slot) {
            self.schedule(20_000 + pause, Whom::World, What::Client(slot));
            return;
        }
        let has_role = |id: &u64| {
            let role = self.machines[*id as usize - 1].replica().map(|replica| replica.role);
            !matches!(role, None | Some(Role::None | Role::Lost { .. }))
        };
        // Programs run where there is a mount, also where it waits for its lease.
        let nodes: Vec<u64> = (1..=3).filter(has_role).collect();
        if nodes.is_empty() {
            self.schedule(10_000 + pause, Whom::World, What::Client(slot));
            return;
        }
        let id = self.random.one_of(&nodes);
        self.act(slot, id);
        self.schedule(pause, Whom::World, What::Client(slot));
    }

    fn act(&mut self, slot: u64, id: u64) {
        let now_us = self.now_us;
        let machine = &self.machines[id as usize - 1];
        let (Some(files), Some(replica)) = (&machine.sequenced, machine.replica()) else {
            return;
        };
        let stamp = self.clients.next_op + 1;
        let chosen = choose(files, stamp, &mut self.random);
        let now_ms = machine.clock.at_ms(now_us);
        let answers = replica.may_answer(now_ms);
        match chosen {
            Chosen::Read(ino) if answers => self.read(id, ino),
            Chosen::Read(_) => {}
            Chosen::Check => {
                let part = CheckPart::Meta {
                    from: Bytes::new(),
                    limit: 100_000,
                };
                self.daemon(id, Event::Check(part));
            }
            Chosen::Change(op, change) => {
                let wait = if self.random.chance(100) {
                    Wait::Committed
                } else {
                    Wait::Sequenced
                };
                let (number, done) = self.begin(slot, id, Some(change), wait, Vec::new());
                let request = Request {
                    op,
                    wait,
                    deadline_ms: now_ms + timers::DEADLINE_MS,
                    done: Box::new(move |outcome| done(outcome.map(Some))),
                };
                self.daemon(id, Event::Submit(number, request));
            }
            Chosen::Sync(scope) => {
                let covers = machine
                    .role_ops
                    .iter()
                    .filter(|(_, _, inos, names)| match scope {
                        Scope::All => true,
                        Scope::File(ino) => *names || inos.contains(&ino),
                    })
                    .map(|(index, term, ..)| (*index, *term));
                let covers = covers.collect();
                let (_, done) = self.begin(slot, id, None, Wait::Committed, covers);
                let deadline_ms = now_ms + timers::DEADLINE_MS;
                let done = Box::new(move |outcome: Result<(), Failure>| done(outcome.map(|()| None)));
                self.daemon(
                    id,
                    Event::Sync {
                        scope,
                        deadline_ms,
                        done,
                    },
                );
            }
        }
    }

    fn begin(
        &mut self,
        slot: u64,
        node: u64,
        change: Option<Change>,
        wait: Wait,
        covers: Vec<(u64, u64)>,
    ) -> (u64, impl FnOnce(Result<Option<Reply>, Failure>) + Send + use<>) {
        self.clients.next_op += 1;
        let op = self.clients.next_op;
        let start = self.machines[node as usize - 1].start;
        let running = Running {
            slot,
            node,
            start,
            change,
            wait,
            placed: None,
            covers,
        };
        self.clients.running.insert(op, running);
        self.clients.waits_for.insert(slot, op);
        let late_ms = timers::DEADLINE_MS + super::promises_late_ms();
        let late_us = self.machines[node as usize - 1].clock.true_us(late_ms);
        self.schedule(late_us, Whom::World, What::Late(op));
        let outcomes = self.clients.outcomes.clone();
        (op, move |outcome| {
            outcomes.lock().expect("one thread").push((op, outcome));
        })
    }

    /// The deadline of an operation has passed.
    pub(super) fn late(&mut self, op: u64) {
        let Some(running) = self.clients.running.get(&op) else {
            return;
        };
        let (node, start, slot) = (running.node, running.start, running.slot);
        let machine = &self.machines[node as usize - 1];
        let runs = machine.start == start && machine.replica().is_some_and(|replica| !replica.out);
        if runs && machine.daemon_frozen_us + 1_000_000 >= self.now_us {
            // The process stood still meanwhile.
            self.schedule(2_000_000, Whom::World, What::Late(op));
            return;
        }
        if runs {
            self.request_is_late(node, op);
        }
        self.clients.running.remove(&op);
        self.clients.waits_for.retain(|of, waits| *of != slot || *waits != op);
    }

    /// What was sequenced on a node just now.
    pub(super) fn placed(&mut self, id: u64, proposed: Vec<Proposed>) {
        for Proposed { index, term, data, op } in proposed {
            let Some(running) = op.and_then(|op| self.clients.running.get_mut(&op)) else {
                continue;
            };
            let Some(mut change) = running.change.clone() else {
                continue;
            };
            let entry = Entry::decode(LogIndex(index), &data).expect("just encoded");
            if let Change::Create { ino, .. } = &mut change {
                *ino = created(&entry).expect("a create has a name");
            }
            let machine = &mut self.machines[id as usize - 1];
            let Some(files) = &mut machine.sequenced else { continue };
            let touched = touched(&change, files);
            files.apply(&change);
            // What removes an inode leaves none that could have a class.
            let class_wants = match change {
                Change::Reap { .. } => Wait::Sequenced,
                _ => files.wait_for(&touched),
            };
            running.placed = Some((index, term, class_wants.max(running.wait)));
            let names = matches!(
                change,
                Change::Create { .. } | Change::Rename { .. } | Change::Unlink { .. }
            );
            machine.role_ops.push((index, term, touched, names));
            self.judge.order.propose(index, term, change);
        }
    }

    /// What clients were told just now.
    pub(super) fn hear_outcomes(&mut self) {
        let outcomes = std::mem::take(&mut *self.clients.outcomes.lock().expect("one thread"));
        for (op, outcome) in outcomes {
            let Some(running) = self.clients.running.remove(&op) else {
                continue;
            };
            self.clients.waits_for.retain(|_, waits| *waits != op);
            match outcome {
                Ok(reply) => self.succeeded(running, reply.as_ref()),
                Err(Failure::Refused(refusal)) => self.refused(op, &running, refusal),
                Err(_) => {}
            }
        }
    }

    fn succeeded(&mut self, running: Running, reply: Option<&Reply>) {
        let (now_us, order) = (self.now_us, &self.judge.order);
        let mut verdicts = Vec::new();
        match running.placed {
            Some((index, term, Wait::Committed)) => {
                self.figures.durable += 1;
                verdicts.push(self.judge.durable.acknowledged(index, term, order));
            }
            Some((index, term, Wait::Received)) => {
                self.figures.received += 1;
                if order.term(index).is_none() {
                    self.judge.received.acknowledged(index, term);
                }
            }
            Some((_, _, Wait::Sequenced)) => self.figures.sequenced += 1,
            None if !running.covers.is_empty() => {
                self.figures.durable += 1;
                for (index, term) in running.covers {
                    verdicts.push(self.judge.durable.acknowledged(index, term, order));
                }
            }
            None => {}
        }
        for verdict in verdicts {
            self.judge.judge(now_us, "what is durable stays", verdict);
        }
        // Nobody has it open: it can go.
        if let Some(Reply::Done { orphaned: Some(ino) }) = reply {
            let now_ms = self.machines[running.node as usize - 1].clock.at_ms(now_us);
            let (number, done) = self.begin(
                running.slot,
                running.node,
                Some(Change::Reap { ino: *ino }),
                Wait::Sequenced,
                Vec::new(),
            );
            let request = Request {
                op: Op::Reap { ino: *ino },
                wait: Wait::Sequenced,
                deadline_ms: now_ms + timers::DEADLINE_MS,
                done: Box::new(move |outcome| done(outcome.map(Some))),
            };
            self.schedule(
                200,
                Whom::Daemon(running.node, running.start),
                What::Daemon(Event::Submit(number, request)),
            );
        }
    }

    fn refused(&mut self, op: u64, running: &Running, refusal: Refusal) {
        if let Some((index, ..)) = running.placed {
            let facts = format!("operation {op} was refused ({refusal}), but stands in the log at {index}");
            self.judge.blame(self.now_us, "what is refused isn't done", facts);
        }
    }

    /// A process has ended: nobody answers what it had.
    pub(super) fn abandon(&mut self, id: u64) {
        let gone: Vec<u64> = self
            .clients
            .running
            .iter()
            .filter(|(_, running)| running.node == id)
            .map(|(op, _)| *op)
            .collect();
        for op in gone {
            self.clients.running.remove(&op);
            self.clients.waits_for.retain(|_, waits| *waits != op);
        }
    }
}
