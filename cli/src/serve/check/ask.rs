//! One part of the state, asked of all three replicas through the log.

use super::super::shared::Shared;
use super::compare::Answers;
use bytes::Bytes;
use holdfast_replicator::clock::boottime_ms;
use holdfast_replicator::roles::Role;
use holdfast_storage::apply::{BEHIND, REDOING};
use holdfast_storage::check::{Found, Part};
use holdfast_storage::effects::CheckPart;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A replica that doesn't answer for so long takes no further part.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nor does one to which there was no connection at the beginning: reads of damaged blocks wait for what the others say.
const PATIENCE_WITH_ABSENT: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(200);

pub(in super::super) struct Asker {
    pub(super) shared: Arc<Shared>,
    /// Nodes that didn't answer, with the reason.
    pub(super) missing: BTreeMap<String, String>,
    /// Of the last question that was answered.
    pub(super) at_index: u64,
    /// Nodes to which there was no connection at the beginning.
    absent: BTreeSet<String>,
    /// Who says nothing is asked once more. Not where somebody waits for it: a damaged block that is read, an alarm.
    is_patient: bool,
}

/// A question that stands in the log; its answers are on their way.
pub(super) struct Asked {
    index: u64,
    part: CheckPart,
    parts: mpsc::UnboundedReceiver<(u64, Part)>,
}

impl Asked {
    pub(super) fn index(&self) -> u64 {
        self.index
    }
}

impl Asker {
    pub(in super::super) fn new(shared: Arc<Shared>) -> Self {
        let view = shared.view();
        let absent = view.peers.iter().filter(|(_, peer)| !peer.up);
        Self {
            absent: absent.map(|(id, _)| shared.name_of(*id)).collect(),
            shared,
            missing: BTreeMap::new(),
            at_index: 0,
            is_patient: false,
        }
    }

    /// For a comparison that goes on for long.
    pub(super) fn patient(shared: Arc<Shared>) -> Self {
        Self {
            is_patient: true,
            ..Self::new(shared)
        }
    }

    /// One number of each for all that it has applied. A node of an older version can't say it.
    pub(super) async fn digests(&mut self) -> Result<Answers, String> {
        let part = CheckPart::Meta {
            from: Bytes::from_static(&[0xff]),
            limit: 0,
        };
        let mut answers = self.part(part).await?;
        let is_older = |found: &Result<Found, String>| found.as_ref().is_ok_and(|found| found.hash.len() != 16);
        let older: Vec<String> = answers
            .iter()
            .filter(|(_, found)| is_older(found))
            .map(|(node, _)| node.clone())
            .collect();
        for node in older {
            answers.remove(&node);
            let why = "its software is older than the active node's and keeps no digest";
            self.missing.insert(node, why.into());
        }
        Ok(answers)
    }

    /// On all nodes that still take part.
    pub(super) async fn part(&mut self, part: CheckPart) -> Result<Answers, String> {
        let asked = self.ask(part).await?;
        self.answers(asked).await
    }

    /// Several may be on their way; their answers come in the same order. What refuses for a moment is tried again: the lease
    /// that is to come back, a log that is full.
    pub(super) async fn ask(&self, part: CheckPart) -> Result<Asked, String> {
        let until_ms = boottime_ms() + PATIENCE.as_millis() as u64;
        loop {
            match self.shared.handle.check(part.clone()).await {
                Ok((index, parts)) => return Ok(Asked { index, part, parts }),
                Err(why) => {
                    let may_come_back = matches!(self.shared.view().role, Role::Active { .. } | Role::Suspended { .. });
                    if !may_come_back || boottime_ms() >= until_ms {
                        return Err(why);
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// A node that was just started, or is behind, is asked again: a later entry it can answer. So, once, is one that said
    /// nothing, if this is patient: its answer may have gone with a connection. Without this node's own answer there is nothing to go on with.
    pub(super) async fn answers(&mut self, mut asked: Asked) -> Result<Answers, String> {
        let until_ms = boottime_ms() + PATIENCE.as_millis() as u64;
        let mut last_time = !self.is_patient;
        loop {
            let part = asked.part.clone();
            let (mut answers, silent) = self.once(asked).await?;
            let not_yet =
                |found: &Result<Found, String>| found.as_ref().is_err_and(|why| why == REDOING || why == BEHIND);
            let unready = answers.iter().filter(|(_, found)| not_yet(found));
            let unready: Vec<String> = unready.map(|(node, _)| node.clone()).collect();
            if (silent.is_empty() || last_time) && (unready.is_empty() || boottime_ms() >= until_ms) {
                for node in unready {
                    if let Some(Err(why)) = answers.remove(&node) {
                        self.missing.insert(node, why);
                    }
                }
                self.missing.extend(silent);
                let own = &self.shared.node().name;
                return match self.missing.get(own) {
                    Some(why) => Err(format!("{own}: {why}")),
                    None => Ok(answers),
                };
            }
            last_time |= !silent.is_empty();
            tokio::time::sleep(AGAIN).await;
            asked = self.ask(part).await?;
        }
    }

    /// And those who said nothing, with the reason.
    async fn once(&mut self, asked: Asked) -> Result<(Answers, BTreeMap<String, String>), String> {
        let Asked { index, part, mut parts } = asked;
        let is_data = matches!(part, CheckPart::Data { .. });
        self.at_index = index;
        let nodes = self.shared.members();
        let (mut answers, mut silent) = (Answers::new(), BTreeMap::new());
        let wanted = |answers: &Answers, missing: &BTreeMap<String, String>| {
            nodes
                .iter()
                .any(|node| !answers.contains_key(node) && !missing.contains_key(node))
        };
        while silent.is_empty() && wanted(&answers, &self.missing) {
            let is_awaited = |node: &String| {
                !self.absent.contains(node) && !answers.contains_key(node) && !self.missing.contains_key(node)
            };
            let patience = if nodes.iter().any(is_awaited) {
                PATIENCE
            } else {
                PATIENCE_WITH_ABSENT
            };
            match tokio::time::timeout(patience, parts.recv()).await {
                Ok(Some((node, part))) => {
                    let name = self.shared.name_of(node);
                    let is_older = |found: &Found| is_data && found.count > 0 && found.sums.is_empty();
                    if part.found.as_ref().is_ok_and(is_older) {
                        let why = "its software is older than the active node's and compares in another way";
                        self.missing.insert(name, why.into());
                    } else if !self.missing.contains_key(&name) {
                        // One that was given up comes too late.
                        answers.insert(name, part.found);
                    }
                }
                Ok(None) => return Err("this node lost the active role during the check".into()),
                Err(_) => {
                    let rest = nodes
                        .iter()
                        .filter(|node| !answers.contains_key(*node) && !self.missing.contains_key(*node));
                    let (absent, others): (Vec<_>, Vec<_>) = rest.cloned().partition(|node| self.absent.contains(node));
                    let why = format!("gave no answer for log entry {index} within {} s", PATIENCE.as_secs());
                    silent.extend(others.into_iter().map(|node| (node, why.clone())));
                    let why = "isn't connected to the active node".to_owned();
                    self.missing.extend(absent.into_iter().map(|node| (node, why.clone())));
                }
            }
        }
        Ok((answers, silent))
    }
}
