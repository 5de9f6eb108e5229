//! Compares the replicas: a log entry names a part, each replica looks at its own when it reaches that entry, and the
//! answers are laid side by side here, on the active node. What two have alike can be put in the place of what the third has.

mod ask;
mod compare;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod mend;
mod walk;
mod watch;
mod words;

use ask::Asked;
pub(super) use ask::Asker;
pub(super) use watch::{Divergence, follow as follow_digests};

use super::repair::Healer;
use super::shared::Shared;
use bytes::Bytes;
use compare::{Answers, Difference};
use futures::future::join_all;
use holdfast_proto::control::{
    CheckDifference, CheckEvent, CheckProgress, CheckRequest, CheckVerdict, check_event::Event,
};
use holdfast_proto::repair::MendRequest;
use holdfast_storage::check::{self, Found, LISTED};
use holdfast_storage::effects::CheckPart;
use holdfast_storage::error::chain;
use holdfast_storage::identity::hex;
use holdfast_storage::types::{BLOCK, Ino};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;
use walk::{Place, Walk};
use words::Names;

/// Keys of metadata in one part.
const KEYS: u32 = 4096;
/// Files listed at once.
const FILES: usize = 4096;
/// Parts that are on their way together, and their bytes.
const PARTS: usize = 32;
const BYTES_ON_THEIR_WAY: u64 = 16 * walk::BYTES;

/// Whoever asked hears something at least so often.
const TELL_EVERY: Duration = Duration::from_secs(5);

type Events = mpsc::Sender<Result<CheckEvent, Status>>;

struct Check {
    asker: Asker,
    healer: Arc<Healer>,
    repair: bool,
    events: Events,
    verdict: CheckVerdict,
    /// Bytes of all files, and those that are behind us: holes count in both.
    total: u64,
    passed: u64,
    /// Differences that were mended when the digests were verified last.
    verified: u64,
    /// Ranges after which it stopped, as it was asked to.
    stopped_after: Option<u64>,
    names: Arc<Names>,
}

pub(super) async fn run(healer: Arc<Healer>, request: CheckRequest, events: Events) {
    let mut check = Check {
        asker: Asker::patient(healer.shared().clone()),
        healer,
        repair: request.repair,
        events,
        verdict: CheckVerdict::default(),
        total: 0,
        passed: 0,
        verified: 0,
        stopped_after: None,
        names: Arc::default(),
    };
    let done = if request.quick {
        check.quick().await
    } else {
        check.everything(request.max_ranges).await
    };
    if check.repair && (check.verdict.mended > check.verified || check.digests_differ().await) {
        let all_verified = check.verify().await;
        let is_whole = done.is_ok() && all_verified && check.stopped_after.is_none();
        if is_whole && check.verdict.differences == check.verdict.mended {
            check.look_again().await;
        }
    }
    let last = done.map_err(Status::unavailable).map(|()| {
        let CheckVerdict {
            differences, mended, ..
        } = check.verdict;
        check.verdict.same = differences == mended;
        let missing = check.asker.missing.iter();
        check.verdict.not_checked = missing.map(|(node, why)| format!("{node}: {why}")).collect();
        let stopped = check
            .stopped_after
            .map(|ranges| format!("data behind the first {ranges} ranges: it was to stop there"));
        check.verdict.not_checked.extend(stopped);
        CheckEvent {
            event: Some(Event::Verdict(check.verdict.clone())),
        }
    });
    let _ = check.events.send(last).await;
}

/// What blocks of a file should be, by all three at one index of the log; the nodes that have them otherwise are told.
pub(super) async fn examine(healer: &Healer, blocks: &[(Ino, u64)]) -> Result<(), String> {
    let mut asker = Asker::new(healer.shared().clone());
    for (ino, number) in blocks {
        let part = CheckPart::Data {
            ino: *ino,
            offset: number * BLOCK,
            len: BLOCK,
        };
        let answers = asker.part(part).await?;
        let differences = of_file(*ino, *number, compare::blocks(&answers));
        let damaged: Vec<_> = differences
            .into_iter()
            .filter(|difference| !difference.damaged().is_empty())
            .collect();
        let left = mend::all(healer, asker.at_index, &damaged).await;
        if !left.is_empty() {
            tracing::warn!(%ino, offset = number * BLOCK, why = left.join("; "), "a damaged block isn't mended yet");
        }
    }
    Ok(())
}

/// Parts that are on their way, or about to be, and their bytes.
#[derive(Default)]
struct Load {
    parts: usize,
    bytes: u64,
}

impl Load {
    fn of(on_their_way: &VecDeque<(Place, Asked)>) -> Self {
        Self {
            parts: on_their_way.len(),
            bytes: on_their_way.iter().map(|(place, _)| place.len).sum(),
        }
    }

    fn add(&mut self, place: &Place) {
        self.parts += 1;
        self.bytes += place.len;
    }

    /// Those that are asked for together share a sync of the logs.
    fn is_low(&self) -> bool {
        self.parts <= PARTS / 2 && self.bytes <= BYTES_ON_THEIR_WAY / 2
    }

    fn has_room(&self, at_once: usize) -> bool {
        self.parts < at_once && self.bytes < BYTES_ON_THEIR_WAY
    }
}

fn of_file(ino: Ino, first: u64, differences: Vec<Difference<u64>>) -> Vec<Difference<(Ino, u64)>> {
    let place = |difference: Difference<u64>| Difference {
        place: (ino, first + difference.place),
        views: difference.views,
    };
    differences.into_iter().map(place).collect()
}

impl Check {
    /// The store of a node that differed was changed beside its digest: that is reckoned anew. Whether it was on all.
    async fn verify(&mut self) -> bool {
        self.verified = self.verdict.mended;
        let (shared, healer) = (self.asker.shared.clone(), self.healer.clone());
        let term = shared.view().term;
        let all = async move {
            let mut done = true;
            for node in shared.members() {
                let request = MendRequest {
                    verify: true,
                    term,
                    ..MendRequest::default()
                };
                if let Err(why) = healer.tell(&node, request).await {
                    tracing::warn!(node, why, "the digest couldn't be verified after the repair");
                    done = false;
                }
            }
            done
        };
        let mut all = std::pin::pin!(all);
        loop {
            match tokio::time::timeout(TELL_EVERY, &mut all).await {
                Ok(done) => return done,
                Err(_) => self.progress().await,
            }
        }
    }

    /// What no part of a check compares may differ still.
    async fn look_again(&mut self) {
        let Ok(answers) = self.asker.digests().await else {
            return;
        };
        if let Some(difference) = compare::digests(&answers) {
            let what = "the digest of all metadata and checksums, after the repair".to_owned();
            let (groups, odd) = (difference.groups(), difference.odd_one_out());
            let advice = "not mended: give that node a new copy (`A new replica` in the runbook)".to_owned();
            self.differs(what, String::new(), groups, odd, advice).await;
        }
    }

    /// Also where nothing was to be mended: an earlier repair may have been broken off.
    async fn digests_differ(&mut self) -> bool {
        let answers = self.asker.digests().await;
        answers.is_ok_and(|answers| compare::digests(&answers).is_some())
    }

    /// Whether all have applied the same, by one number of each.
    async fn quick(&mut self) -> Result<(), String> {
        let answers = self.asker.digests().await?;
        self.verdict.at_index = self.asker.at_index;
        if let Some(difference) = compare::digests(&answers) {
            let what = "the digest of all metadata and checksums".to_owned();
            self.differs(
                what,
                String::new(),
                difference.groups(),
                difference.odd_one_out(),
                String::new(),
            )
            .await;
        }
        self.same_keys(b"", &answers).await;
        Ok(())
    }

    async fn everything(&mut self, max_ranges: u64) -> Result<(), String> {
        self.metadata().await?;
        // Data take long, and all the while the digests would say that there is a difference.
        if self.verdict.mended > 0 {
            self.verify().await;
        }
        self.all_data(max_ranges).await
    }

    /// Several parts are on their way, so that no disk waits for an answer; beside other writes only one, so that those find
    /// the apply threads free.
    async fn all_data(&mut self, max_ranges: u64) -> Result<(), String> {
        let (mut walk, mut unlisted) = (Walk::default(), Some(Bytes::new()));
        let mut on_their_way: VecDeque<(Place, Asked)> = VecDeque::new();
        let (mut ranges, mut last_index, mut at_once) = (0, 0, 1);
        loop {
            let (mut load, mut places) = (Load::of(&on_their_way), Vec::new());
            let refill = load.is_low();
            while refill
                && load.has_room(at_once)
                && (max_ranges == 0 || ranges < max_ranges)
                && let Some(place) = self.next_place(&mut walk, &mut unlisted).await?
            {
                load.add(&place);
                ranges += 1;
                places.push(place);
            }
            let asked = join_all(places.iter().map(|place| self.ask(place.part()))).await;
            for (place, asked) in places.into_iter().zip(asked) {
                let asked = asked?;
                at_once = if asked.index() == last_index + 1 { PARTS } else { 1 };
                last_index = asked.index();
                on_their_way.push_back((place, asked));
            }
            let Some((place, asked)) = on_their_way.pop_front() else {
                // That of the last range of all isn't known to be that.
                self.stopped_after = (max_ranges > 0 && ranges >= max_ranges).then_some(ranges);
                return Ok(());
            };
            let answers = self.answers(asked).await?;
            let next_data = self.data(&place, &answers).await?;
            walk.skip(place.ino, next_data);
            self.passed = self.passed.max(place.before.saturating_add(place.len));
            // Files grow meanwhile, and new ones are made.
            self.total = self.total.max(self.passed);
            self.progress().await;
        }
    }

    /// As this node has the files now, some at a time: there can be millions.
    async fn next_place(&self, walk: &mut Walk, unlisted: &mut Option<Bytes>) -> Result<Option<Place>, String> {
        loop {
            if let Some(place) = walk.next() {
                return Ok(Some(place));
            }
            let Some(from) = unlisted.take() else {
                return Ok(None);
            };
            let store = self.asker.shared.handle.store().clone();
            let listed = tokio::task::spawn_blocking(move || check::files(&store, &from, FILES)).await;
            let listed = listed
                .map_err(|panic| panic.to_string())?
                .map_err(|error| chain(&error))?;
            walk.add(listed.files);
            *unlisted = listed.next;
        }
    }

    async fn part(&mut self, part: CheckPart) -> Result<Answers, String> {
        let asked = self.ask(part).await?;
        self.answers(asked).await
    }

    async fn ask(&self, part: CheckPart) -> Result<Asked, String> {
        if self.events.is_closed() {
            return Err("nobody listens any more".into());
        }
        self.asker.ask(part).await
    }

    async fn answers(&mut self, asked: Asked) -> Result<Answers, String> {
        let answers = self.asker.answers(asked).await?;
        self.verdict.at_index = self.asker.at_index;
        Ok(answers)
    }

    /// All metadata, part by part.
    async fn metadata(&mut self) -> Result<(), String> {
        let mut from = Bytes::new();
        loop {
            let part = CheckPart::Meta {
                from: from.clone(),
                limit: KEYS,
            };
            let answers = self.part(part).await?;
            let own = self.own(&answers)?;
            self.verdict.keys += own.count;
            // Sparse files can be as long as they like: together longer than a number is.
            self.total = self.total.saturating_add(own.sizes);
            if !self.same_keys(&from, &answers).await {
                self.key_by_key(from, &own.next).await?;
            }
            self.progress().await;
            if own.next.is_empty() {
                return Ok(());
            }
            from = own.next;
        }
    }

    /// Nodes that can't say what they have are a difference of their own.
    async fn same_keys(&mut self, from: &[u8], answers: &Answers) -> bool {
        let faults: Vec<String> = answers
            .iter()
            .filter_map(|(node, found)| Some(format!("{node}: {}", found.as_ref().err()?)))
            .collect();
        if !faults.is_empty() {
            let what = format!("metadata keys from 0x{}; {}", hex(from), faults.join("; "));
            let (groups, odd) = compare::faults(answers, |found| (found.count, found.hash.clone(), found.next.clone()));
            self.differs(what, String::new(), groups, odd, String::new()).await;
        }
        let found = answers.values().filter_map(|found| found.as_ref().ok());
        let seen: BTreeSet<_> = found.map(|found| (found.count, &found.hash, &found.next)).collect();
        seen.len() <= 1
    }

    /// The keys of a part that differs, one by one, up to where it ended (empty: to the end).
    async fn key_by_key(&mut self, mut from: Bytes, end: &Bytes) -> Result<(), String> {
        loop {
            let part = CheckPart::Meta {
                from: from.clone(),
                limit: LISTED,
            };
            let answers = self.part(part.clone()).await?;
            let (found, next) = compare::keys(&answers);
            if !found.is_empty() {
                let left = self.mend(&found).await;
                let again = self.again(part).await?;
                let (still, end) = compare::keys(&again);
                for difference in found {
                    // Names that were made meanwhile may have pushed it out of what was looked at.
                    let is_seen = end.as_ref().is_none_or(|end| difference.place < *end);
                    let is_left = !is_seen || !compare::is_mended(&difference, &again, &still);
                    let key = difference.place.clone();
                    let (what, path) = self.look(move |shared, names| words::of_key(shared, &key, names)).await;
                    let done = self.outcome(is_left, &left);
                    self.differs(what, path, difference.groups(), difference.odd_one_out(), done)
                        .await;
                }
            }
            match next {
                Some(next) if next > from && (end.is_empty() || next < *end) => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// One part of a file. Returns where any replica has data again.
    async fn data(&mut self, place: &Place, answers: &Answers) -> Result<u64, String> {
        let found = || answers.values().filter_map(|found| found.as_ref().ok());
        self.verdict.bytes += found().map(|found| found.count).max().unwrap_or(0);
        self.blocks(place.ino, place.offset, place.part(), answers).await?;
        Ok(found().map(|found| found.next_data).min().unwrap_or(0))
    }

    async fn blocks(&mut self, ino: Ino, offset: u64, part: CheckPart, answers: &Answers) -> Result<(), String> {
        let found = of_file(ino, offset / BLOCK, compare::blocks(answers));
        if found.is_empty() && answers.values().all(Result::is_ok) {
            return Ok(());
        }
        let path = self
            .look(move |shared, names| names.path_of(shared, ino).unwrap_or_default())
            .await;
        for (node, why) in answers
            .iter()
            .filter_map(|(node, found)| Some((node, found.as_ref().err()?)))
        {
            let what = format!("data of inode {ino} at {offset}; {node}: {why}");
            let (groups, odd) = compare::faults(answers, |found| found.sums.clone());
            self.differs(what, path.clone(), groups, odd, String::new()).await;
        }
        if found.is_empty() {
            return Ok(());
        }
        let left = self.mend(&found).await;
        let again = self.again(part).await?;
        let still = of_file(ino, offset / BLOCK, compare::blocks(&again));
        for run in words::runs(&found) {
            let is_left = |difference: &Difference<_>| !compare::is_mended(difference, &again, &still);
            let done = self.outcome(run.iter().any(is_left), &left);
            let what = words::of_blocks(run);
            self.differs(what, path.clone(), run[0].groups(), run[0].odd_one_out(), done)
                .await;
        }
        Ok(())
    }

    /// On a thread that may wait for the disk: a folder can be long.
    async fn look<T: Default + Send + 'static>(&self, look: impl FnOnce(&Shared, &Names) -> T + Send + 'static) -> T {
        let (shared, names) = (self.asker.shared.clone(), self.names.clone());
        let looked = tokio::task::spawn_blocking(move || look(&shared, &names)).await;
        looked.unwrap_or_default()
    }

    async fn mend<P: mend::Place>(&mut self, differences: &[Difference<P>]) -> Vec<String> {
        if !self.repair {
            return Vec::new();
        }
        let healer = self.healer.clone();
        let mut all = std::pin::pin!(mend::all(&healer, self.asker.at_index, differences));
        loop {
            match tokio::time::timeout(TELL_EVERY, &mut all).await {
                Ok(left) => return left,
                Err(_) => self.progress().await,
            }
        }
    }

    /// The same part after mending; without, nobody is asked.
    async fn again(&mut self, part: CheckPart) -> Result<Answers, String> {
        if !self.repair {
            return Ok(Answers::new());
        }
        self.part(part).await
    }

    /// Counts it as mended if all replicas have it alike now.
    fn outcome(&mut self, is_left: bool, left: &[String]) -> String {
        match (self.repair, is_left, left) {
            (false, ..) => String::new(),
            (true, false, _) => {
                self.verdict.mended += 1;
                "mended".into()
            }
            (true, true, []) => "not mended: it was changed meanwhile, or a node didn't answer again".into(),
            (true, true, left) => format!("not mended: {}", left.join("; ")),
        }
    }

    /// After each part: whoever asked gives up if nothing comes for a minute.
    async fn progress(&self) {
        let progress = CheckProgress {
            bytes: self.passed,
            bytes_total: self.total,
            keys: self.verdict.keys,
        };
        let event = CheckEvent {
            event: Some(Event::Progress(progress)),
        };
        let _ = self.events.send(Ok(event)).await;
    }

    fn own(&self, answers: &Answers) -> Result<Found, String> {
        let name = &self.asker.shared.node().name;
        match answers.get(name) {
            Some(Ok(found)) => Ok(found.clone()),
            Some(Err(why)) => Err(format!("{name}: {why}")),
            None => Err("this node lost the active role during the check".into()),
        }
    }

    async fn differs(
        &mut self,
        what: String,
        path: String,
        groups: Vec<Vec<String>>,
        odd_one_out: Option<String>,
        mended: String,
    ) {
        self.verdict.differences += 1;
        let difference = CheckDifference {
            what,
            path,
            groups: groups.into_iter().map(|nodes| nodes.join("+")).collect(),
            odd_one_out: odd_one_out.unwrap_or_default(),
            mended,
        };
        let event = CheckEvent {
            event: Some(Event::Difference(difference)),
        };
        let _ = self.events.send(Ok(event)).await;
    }
}
