//! One part of the state, asked of all three replicas through the log.

use super::super::shared::Shared;
use super::compare::Answers;
use bytes::Bytes;
use holdfast_replicator::clock::boottime_ms;
use holdfast_storage::apply::REDOING;
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
        }
    }

    /// One number of each for all that it has applied. A node of an older version can't say it.
    pub(super) async fn digests(&mut self) -> Result<Answers, String> {
        let part = CheckPart::Meta {
            from: Bytes::from_static(&[0xff]),
            limit: 0,
        };
        let mut answers = self.part(part).await?;
        for found in answers.values_mut() {
            if found.as_ref().is_ok_and(|found| found.hash.len() != 16) {
                *found = Err("its software is older than the active node's and keeps no digest".into());
            }
        }
        Ok(answers)
    }

    /// On all nodes that still take part.
    pub(super) async fn part(&mut self, part: CheckPart) -> Result<Answers, String> {
        let asked = self.ask(part).await?;
        self.answers(asked).await
    }

    /// Several may be on their way; their answers come in the same order.
    pub(super) async fn ask(&self, part: CheckPart) -> Result<Asked, String> {
        let (index, parts) = self.shared.handle.check(part.clone()).await?;
        Ok(Asked { index, part, parts })
    }

    /// A node that was just started is asked again: a later entry it can answer.
    pub(super) async fn answers(&mut self, mut asked: Asked) -> Result<Answers, String> {
        let until_ms = boottime_ms() + PATIENCE.as_millis() as u64;
        loop {
            let part = asked.part.clone();
            let mut answers = self.once(asked).await?;
            let is_redoing = |found: &Result<Found, String>| found.as_ref().is_err_and(|why| why == REDOING);
            let redoing: Vec<String> = answers
                .iter()
                .filter(|(_, found)| is_redoing(found))
                .map(|(node, _)| node.clone())
                .collect();
            if redoing.is_empty() {
                return Ok(answers);
            }
            if boottime_ms() >= until_ms {
                for node in redoing {
                    answers.remove(&node);
                    self.missing.insert(node, REDOING.into());
                }
                return Ok(answers);
            }
            tokio::time::sleep(AGAIN).await;
            asked = self.ask(part).await?;
        }
    }

    async fn once(&mut self, asked: Asked) -> Result<Answers, String> {
        let Asked { index, part, mut parts } = asked;
        let is_data = matches!(part, CheckPart::Data { .. });
        self.at_index = index;
        let nodes = self.shared.members();
        let mut answers = Answers::new();
        let wanted = |answers: &Answers, missing: &BTreeMap<String, String>| {
            nodes
                .iter()
                .any(|node| !answers.contains_key(node) && !missing.contains_key(node))
        };
        while wanted(&answers, &self.missing) {
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
                    let found = part.found.and_then(|found| {
                        if is_data && found.count > 0 && found.sums.is_empty() {
                            return Err(
                                "its software is older than the active node's and compares in another way".into(),
                            );
                        }
                        Ok(found)
                    });
                    answers.insert(self.shared.name_of(node), found);
                }
                Ok(None) => return Err("this node lost the active role during the check".into()),
                Err(_) => {
                    for node in nodes.iter().filter(|node| !answers.contains_key(*node)) {
                        let why = if self.absent.contains(node) {
                            "isn't connected to the active node".to_owned()
                        } else {
                            format!("didn't reach log entry {index} within {} s", PATIENCE.as_secs())
                        };
                        self.missing.entry(node.clone()).or_insert(why);
                    }
                }
            }
        }
        Ok(answers)
    }
}
