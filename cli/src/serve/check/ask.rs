//! One part of the state, asked of all three replicas through the log.

use super::super::shared::Shared;
use super::compare::Answers;
use bytes::Bytes;
use holdfast_replicator::clock::boottime_ms;
use holdfast_storage::apply::REDOING;
use holdfast_storage::check::Found;
use holdfast_storage::effects::CheckPart;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A replica that doesn't answer for so long takes no further part.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);

pub(in super::super) struct Asker {
    pub(super) shared: Arc<Shared>,
    /// Nodes that didn't answer, with the reason.
    pub(super) missing: BTreeMap<String, String>,
    /// Of the last question.
    pub(super) at_index: u64,
}

impl Asker {
    pub(in super::super) fn new(shared: Arc<Shared>) -> Self {
        Self {
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

    /// On all nodes that still take part. One that was just started is asked again: a later entry it can answer.
    pub(super) async fn part(&mut self, part: CheckPart) -> Result<Answers, String> {
        let until_ms = boottime_ms() + PATIENCE.as_millis() as u64;
        loop {
            let mut answers = self.once(part.clone()).await?;
            let is_redoing = |found: &Result<Found, String>| found.as_ref().is_err_and(|why| why == REDOING);
            let redoing: Vec<String> = answers
                .iter()
                .filter(|(_, found)| is_redoing(found))
                .map(|(node, _)| node.clone())
                .collect();
            if redoing.is_empty() {
                return Ok(answers);
            }
            if boottime_ms() < until_ms {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            for node in redoing {
                answers.remove(&node);
                self.missing.insert(node, REDOING.into());
            }
            return Ok(answers);
        }
    }

    async fn once(&mut self, part: CheckPart) -> Result<Answers, String> {
        let is_data = matches!(part, CheckPart::Data { .. });
        let (index, mut parts) = self.shared.handle.check(part).await?;
        self.at_index = index;
        let nodes = self.shared.members();
        let mut answers = Answers::new();
        let wanted = |answers: &Answers, missing: &BTreeMap<String, String>| {
            nodes
                .iter()
                .any(|node| !answers.contains_key(node) && !missing.contains_key(node))
        };
        while wanted(&answers, &self.missing) {
            match tokio::time::timeout(PATIENCE, parts.recv()).await {
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
                        let why = format!("didn't reach log entry {index} within {} s", PATIENCE.as_secs());
                        self.missing.entry(node.clone()).or_insert(why);
                    }
                }
            }
        }
        Ok(answers)
    }
}
