//! Compares the replicas: a log entry names a part, each replica hashes it when it reaches that entry, and
//! the answers are laid side by side here, on the active node.

use super::shared::Shared;
use holdfast_proto::control::{
    CheckDifference, CheckEvent, CheckProgress, CheckRequest, CheckVerdict, check_event::Event,
};
use holdfast_storage::check::Found;
use holdfast_storage::effects::CheckPart;
use holdfast_storage::types::Ino;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// Keys of metadata in one part.
const KEYS: u32 = 4096;
/// Bytes of a file in one part: the apply thread of each replica stands still for so long.
const BYTES: u64 = 4 << 20;
/// A replica that doesn't answer for so long takes no further part.
const PATIENCE: Duration = Duration::from_secs(10);

type Events = mpsc::Sender<Result<CheckEvent, Status>>;

struct Check {
    shared: Arc<Shared>,
    events: Events,
    verdict: CheckVerdict,
    /// Nodes that didn't answer, with the reason.
    missing: BTreeMap<String, String>,
    /// Bytes of all files, and those of the files that are behind us: holes count in both.
    total: u64,
    passed: u64,
}

pub(super) async fn run(shared: Arc<Shared>, request: CheckRequest, events: Events) {
    let mut check = Check {
        shared,
        events,
        verdict: CheckVerdict::default(),
        missing: BTreeMap::new(),
        total: 0,
        passed: 0,
    };
    let last = match check.everything(request.max_ranges).await {
        Ok(()) => {
            check.verdict.same = check.verdict.differences == 0;
            check.verdict.not_checked = check
                .missing
                .iter()
                .map(|(node, why)| format!("{node}: {why}"))
                .collect();
            Ok(CheckEvent {
                event: Some(Event::Verdict(check.verdict.clone())),
            })
        }
        Err(why) => Err(Status::unavailable(why)),
    };
    let _ = check.events.send(last).await;
}

impl Check {
    async fn everything(&mut self, max_ranges: u64) -> Result<(), String> {
        let files = self.metadata().await?;
        // Sparse files can be as long as they like: together longer than a number is.
        self.total = files.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size));
        let mut ranges = 0;
        for (ino, size) in files {
            let mut offset = 0;
            while offset < size {
                ranges += 1;
                if max_ranges > 0 && ranges > max_ranges {
                    return Ok(());
                }
                offset = self.data(ino, offset, size).await?;
            }
            self.passed = self.passed.saturating_add(size);
        }
        Ok(())
    }

    /// All metadata, part by part; the files with data and their sizes, as the active node has them.
    async fn metadata(&mut self) -> Result<Vec<(Ino, u64)>, String> {
        let (mut from, mut files) = (bytes::Bytes::new(), Vec::new());
        loop {
            let answers = self
                .part(CheckPart::Meta {
                    from: from.clone(),
                    limit: KEYS,
                })
                .await?;
            let own = self.own(&answers)?;
            self.verdict.keys += own.count;
            files.extend(own.files.iter().copied());
            let what = format!("metadata keys from 0x{}", holdfast_storage::identity::hex(&from));
            self.compare(&what, None, &answers).await;
            self.progress(0).await;
            if own.next.is_empty() {
                return Ok(files);
            }
            from = own.next;
        }
    }

    /// One part of a file. Returns where the next begins: where any replica has data again.
    async fn data(&mut self, ino: Ino, offset: u64, size: u64) -> Result<u64, String> {
        let answers = self
            .part(CheckPart::Data {
                ino,
                offset,
                len: BYTES,
            })
            .await?;
        let len = answers
            .values()
            .filter_map(|found| found.as_ref().ok())
            .map(|found| found.count)
            .max()
            .unwrap_or(0);
        self.verdict.bytes += len;
        self.compare(
            &format!("data of inode {ino} at {offset}, {len} bytes"),
            Some(ino),
            &answers,
        )
        .await;
        let data = answers.values().filter_map(|found| found.as_ref().ok());
        let next = data.map(|found| found.next_data).min().unwrap_or(0);
        let next = (next / BYTES * BYTES).max(offset.saturating_add(BYTES)).min(size);
        self.progress(self.passed.saturating_add(next)).await;
        Ok(next)
    }

    /// After each part: whoever asked gives up if nothing comes for a minute.
    async fn progress(&self, bytes: u64) {
        let progress = CheckProgress {
            bytes,
            bytes_total: self.total,
            keys: self.verdict.keys,
        };
        let event = CheckEvent {
            event: Some(Event::Progress(progress)),
        };
        let _ = self.events.send(Ok(event)).await;
    }

    fn own(&self, answers: &BTreeMap<String, Result<Found, String>>) -> Result<Found, String> {
        match answers.get(&self.shared.node().name) {
            Some(Ok(found)) => Ok(found.clone()),
            Some(Err(why)) => Err(format!("{}: {why}", self.shared.node().name)),
            None => Err("this node lost the active role during the check".into()),
        }
    }

    /// One part on all nodes that still take part.
    async fn part(&mut self, part: CheckPart) -> Result<BTreeMap<String, Result<Found, String>>, String> {
        if self.events.is_closed() {
            return Err("nobody listens any more".into());
        }
        let (index, mut parts) = self.shared.handle.check(part).await?;
        self.verdict.at_index = index;
        let names: BTreeSet<String> = self
            .shared
            .config
            .cluster
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .collect();
        let mut answers = BTreeMap::new();
        let wanted = |answers: &BTreeMap<String, _>, missing: &BTreeMap<String, String>| {
            names
                .iter()
                .any(|name| !answers.contains_key(name) && !missing.contains_key(name))
        };
        while wanted(&answers, &self.missing) {
            match tokio::time::timeout(PATIENCE, parts.recv()).await {
                Ok(Some((node, part))) => {
                    answers.insert(self.shared.name_of(node), part.found);
                }
                Ok(None) => return Err("this node lost the active role during the check".into()),
                Err(_) => {
                    for name in names.iter().filter(|name| !answers.contains_key(*name)) {
                        let why = format!("didn't reach log entry {index} within {} s", PATIENCE.as_secs());
                        self.missing.entry(name.clone()).or_insert(why);
                    }
                }
            }
        }
        Ok(answers)
    }

    async fn compare(&mut self, what: &str, ino: Option<Ino>, answers: &BTreeMap<String, Result<Found, String>>) {
        let mut groups: BTreeMap<Vec<u8>, Vec<&str>> = BTreeMap::new();
        let mut faults = Vec::new();
        for (node, found) in answers {
            match found {
                Ok(found) => groups
                    .entry([&found.count.to_le_bytes()[..], &found.hash].concat())
                    .or_default()
                    .push(node),
                Err(why) => faults.push((node.as_str(), why)),
            }
        }
        if groups.len() <= 1 && faults.is_empty() {
            return;
        }
        self.verdict.differences += 1;
        let alone: Vec<&str> = groups
            .values()
            .filter(|nodes| nodes.len() == 1)
            .map(|nodes| nodes[0])
            .chain(faults.iter().map(|(node, _)| *node))
            .collect();
        let majority = groups.values().any(|nodes| nodes.len() >= 2);
        let odd_one_out = if majority && alone.len() == 1 {
            alone[0].to_owned()
        } else {
            String::new()
        };
        let mut what = what.to_owned();
        for (node, why) in &faults {
            what.push_str(&format!("; {node}: {why}"));
        }
        let groups = groups
            .values()
            .map(|nodes| nodes.join("+"))
            .chain(faults.iter().map(|(node, _)| (*node).to_owned()))
            .collect();
        let path = ino.and_then(|ino| path_of(&self.shared, ino)).unwrap_or_default();
        let difference = CheckDifference {
            what,
            path,
            groups,
            odd_one_out,
        };
        let _ = self
            .events
            .send(Ok(CheckEvent {
                event: Some(Event::Difference(difference)),
            }))
            .await;
    }
}

/// A name that leads to the inode, found from its parents; only asked for when something differs.
fn path_of(shared: &Shared, ino: Ino) -> Option<String> {
    let store = shared.handle.store();
    let mut parts = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT && parts.len() < 256 {
        let parent = store.inode(at).ok()?.parent;
        let mut after = 0;
        let name = loop {
            let entries = store.readdir(parent, after, 1024).ok()?;
            after = entries.last()?.0;
            if let Some((_, child)) = entries.into_iter().find(|(_, child)| child.ino == at) {
                break String::from_utf8_lossy(&child.name).into_owned();
            }
        };
        parts.push(name);
        at = parent;
    }
    parts.reverse();
    Some(format!("/{}", parts.join("/")))
}
