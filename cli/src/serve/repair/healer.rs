//! Gets damaged blocks of this node their bytes back.

use super::super::check;
use super::super::peers::Peers;
use super::super::shared::Shared;
use bytes::Bytes;
use holdfast_proto::repair::{
    BlockChange, BlockNumber, BlockRequest, ExamineRequest, KeyChange, MendAnswer, MendRequest, ValueRequest,
};
use holdfast_storage::data::sums::{self, Sum};
use holdfast_storage::digest;
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::mend::{self, Mended, State};
use holdfast_storage::types::{BLOCK, Ino, LogIndex, MAX_OFFSET};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A peer that doesn't answer for so long is passed over.
const WITHIN: Duration = Duration::from_secs(2);
/// All metadata are read for it.
const VERIFY_WITHIN: Duration = Duration::from_secs(3600);
/// Blocks that are mended in one go.
pub(in super::super) const AT_ONCE: usize = 16;

pub(in super::super) struct Healer {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    /// Two that find the same digest wrong must not both correct it.
    verifying: Arc<tokio::sync::Mutex<()>>,
}

/// What became of blocks that were suspected.
#[derive(Debug, Default)]
pub(in super::super) struct Healed {
    pub(super) mended: u64,
    /// Damaged still, and why.
    pub(super) left: BTreeMap<(Ino, u64), String>,
    /// Nothing is known yet: to be looked at again in a moment.
    pub(super) again: Vec<(Ino, u64)>,
}

const HALTED: &str = "this node has stopped by itself and changes nothing on its disk";

impl Healer {
    pub(in super::super) fn new(shared: Arc<Shared>, peers: Arc<Peers>) -> Self {
        Self {
            shared,
            peers,
            verifying: Arc::default(),
        }
    }

    pub(in super::super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(in super::super) fn name(&self) -> &str {
        &self.shared.node().name
    }

    /// Those that are damaged indeed get what a peer has. Remembers what came of it, for status.
    pub(in super::super) async fn heal(&self, blocks: &[(Ino, u64)]) -> Healed {
        let mut healed = Healed::default();
        for some in blocks.chunks(AT_ONCE) {
            self.heal_some(some, &mut healed).await;
        }
        self.shared.healed(&healed, blocks);
        healed
    }

    async fn heal_some(&self, blocks: &[(Ino, u64)], healed: &mut Healed) {
        let Some(states) = self.shared.handle.look(blocks.to_vec()).await else {
            healed.left.extend(blocks.iter().map(|at| (*at, HALTED.to_owned())));
            return;
        };
        let (mut rotten, mut unknown) = (Vec::new(), Vec::new());
        for (at, state) in blocks.iter().zip(states) {
            match state {
                State::Sound => {}
                State::Rotten(sum) => rotten.push((*at, sum)),
                State::Damaged => unknown.push(*at),
                State::Redoing => healed.again.push(*at),
            }
        }
        let fetched = rotten.iter().map(|(at, sum)| self.fetch(at.0, at.1, *sum, None));
        let fetched = futures::future::join_all(fetched).await;
        let mut found = Vec::new();
        for ((at, is), data) in rotten.into_iter().zip(fetched) {
            match data {
                Some(data) => found.push(mend::Block {
                    ino: at.0,
                    number: at.1,
                    is,
                    data,
                    by_one: false,
                }),
                // The others may have something else there, which is right then.
                None => unknown.push(at),
            }
        }
        if !found.is_empty() {
            let at: Vec<_> = found.iter().map(|block| (block.ino, block.number)).collect();
            match self.shared.handle.mend_damaged(None, found).await {
                Some(mended) => at
                    .into_iter()
                    .zip(mended)
                    .for_each(|(at, mended)| healed.count(at, mended)),
                None => healed.left.extend(at.into_iter().map(|at| (at, HALTED.to_owned()))),
            }
        }
        if !unknown.is_empty() {
            self.heal_by_all(&unknown, healed).await;
        }
        if healed.left.values().any(|why| why == DOES_NOT_HOLD) {
            self.shared.handle.read_failed(&disk_does_not_hold());
        }
    }

    /// What these should be only all three together can tell, at one index of the log.
    async fn heal_by_all(&self, blocks: &[(Ino, u64)], healed: &mut Healed) {
        let asked = self.examine(blocks).await;
        let states = self.shared.handle.look(blocks.to_vec()).await;
        let why = match (&asked, &states) {
            (_, None) => HALTED.to_owned(),
            (Err(why), _) => why.clone(),
            (Ok(()), _) => "no other node that answers has it sound, or it changes all the time".into(),
        };
        let states = states.unwrap_or_else(|| vec![State::Damaged; blocks.len()]);
        for (at, state) in blocks.iter().zip(states) {
            match state {
                State::Sound => healed.count(*at, Mended::Done),
                State::Redoing => healed.again.push(*at),
                State::Rotten(_) | State::Damaged => drop(healed.left.insert(*at, why.clone())),
            }
        }
    }

    async fn examine(&self, blocks: &[(Ino, u64)]) -> Result<(), String> {
        let active = self.shared.active().ok_or("no node is active, to ask all three")?;
        if active == self.name() {
            // A check tells this node, too, and ends up in `mend`, not here.
            return Box::pin(check::examine(self, blocks)).await;
        }
        let mut client = self
            .peers
            .mender(&active)
            .ok_or("the active node isn't in this node's configuration")?;
        let number = |(ino, number): &(Ino, u64)| BlockNumber {
            ino: ino.0,
            number: *number,
        };
        let request = ExamineRequest {
            blocks: blocks.iter().map(number).collect(),
        };
        let answer = tokio::time::timeout(WITHIN * 10, client.examine(request)).await;
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(format!("{active}: {}", status.message())),
            Err(_) => Err(format!("{active} doesn't answer")),
        }
    }

    /// Bytes with exactly this checksum, from the first of the peers that has them.
    async fn fetch(&self, ino: Ino, number: u64, sum: Sum, from: Option<&[String]>) -> Option<Bytes> {
        for (peer, mut client) in self.peers.menders() {
            if from.is_some_and(|names| !names.contains(&peer)) {
                continue;
            }
            let request = BlockRequest {
                ino: ino.0,
                number,
                sum: Bytes::copy_from_slice(&sum),
            };
            let answer = tokio::time::timeout(WITHIN, client.block(request)).await;
            if let Ok(Ok(answer)) = answer {
                let answer = answer.into_inner();
                let is_whole = answer.data.len() as u64 == BLOCK;
                if answer.found && is_whole && sums::of(&answer.data) == sum {
                    return Some(answer.data);
                }
            }
        }
        None
    }

    async fn fetch_value(&self, key: &Bytes, hash: Sum, from: &[String]) -> Option<Bytes> {
        for (_, mut client) in self.peers.menders().into_iter().filter(|(peer, _)| from.contains(peer)) {
            let request = ValueRequest {
                key: key.clone(),
                hash: Bytes::copy_from_slice(&hash),
            };
            if let Ok(Ok(answer)) = tokio::time::timeout(WITHIN, client.value(request)).await {
                let answer = answer.into_inner();
                if answer.found && mend::hash_of(&answer.value) == hash {
                    return Some(answer.value);
                }
            }
        }
        None
    }

    /// Has a node put something right; that may be this one.
    pub(in super::super) async fn tell(&self, node: &str, request: MendRequest) -> Result<MendAnswer, String> {
        if node == self.name() {
            return self.mend(request).await;
        }
        let mut client = self.peers.mender(node).ok_or("it isn't in the configuration")?;
        let within = if request.verify { VERIFY_WITHIN } else { WITHIN * 10 };
        match tokio::time::timeout(within, client.mend(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("it doesn't answer".into()),
        }
    }

    /// Puts right here what the active node says that the others have.
    pub(super) async fn mend(&self, request: MendRequest) -> Result<MendAnswer, String> {
        const MOVED: &str = "its role or the term has changed meanwhile, or it has stopped by itself";
        let (as_of, term) = (LogIndex(request.as_of), request.term);
        let mut answer = MendAnswer::default();
        let wanted = request.blocks.iter().map(|change| self.block(change));
        let fetched = futures::future::join_all(wanted).await;
        let (mut damaged, mut blocks) = (Vec::new(), Vec::new());
        for (change, block) in request.blocks.iter().zip(fetched) {
            match block? {
                Ok(block) if change.damaged => damaged.push(block),
                Ok(block) => blocks.push(block),
                Err(why) => answer.left.push(why),
            }
        }
        let mut keys = Vec::new();
        for key in futures::future::join_all(request.keys.into_iter().map(|change| self.key(change))).await {
            match key? {
                Ok(key) => keys.push(key),
                Err(why) => answer.left.push(why),
            }
        }
        let handle = &self.shared.handle;
        let mut mended = Vec::new();
        if !damaged.is_empty() {
            mended.extend(handle.mend_damaged(Some(as_of), damaged).await.ok_or(HALTED)?);
        }
        if !blocks.is_empty() {
            mended.extend(handle.mend_blocks(term, as_of, blocks).await.ok_or(MOVED)?);
        }
        if !keys.is_empty() {
            mended.extend(handle.mend_keys(term, as_of, keys).await.ok_or(MOVED)?);
        }
        let done = mended.iter().filter(|mended| **mended == Mended::Done).count();
        if mended.contains(&Mended::DoesNotHold) {
            answer.left.push(DOES_NOT_HOLD.into());
            handle.read_failed(&disk_does_not_hold());
        }
        if done > 0 {
            tracing::warn!(
                blocks_and_keys = done,
                "what was damaged here, or differed from the two other nodes, was put right"
            );
        }
        if request.verify {
            self.verify().await?;
        }
        Ok(answer)
    }

    /// Whether the metadata are what was applied. If not, the digest says what they are from now on: the comparison with the
    /// others is to show it. Whether they are.
    pub(super) async fn verify(&self) -> Result<bool, String> {
        // To its end, also if whoever asked has gone.
        let verified = tokio::spawn(verify(self.shared.clone(), self.verifying.clone())).await;
        verified.map_err(|panic| panic.to_string())?
    }

    /// The outer error: a request that makes no sense.
    async fn block(&self, change: &BlockChange) -> Result<Result<mend::Block, String>, String> {
        let (ino, number, is) = (Ino(change.ino), change.number, sum(&change.is)?);
        if number > MAX_OFFSET / BLOCK {
            return Err("no file has such a block".into());
        }
        let data = if is == sums::HOLE {
            Some(Bytes::new())
        } else {
            self.fetch(ino, number, is, Some(&change.from)).await
        };
        let from = || change.from.join(" and ");
        let by_one = change.from.len() < 2;
        let block = |data| mend::Block {
            ino,
            number,
            is,
            data,
            by_one,
        };
        Ok(data.map(block).ok_or_else(|| {
            format!(
                "{} didn't give block {number} of inode {ino}: it may have changed meanwhile",
                from()
            )
        }))
    }

    async fn key(&self, change: KeyChange) -> Result<Result<mend::Key, String>, String> {
        let key = change.key;
        if change.is.is_empty() {
            return Ok(Ok(mend::Key { key, value: None }));
        }
        let value = self.fetch_value(&key, sum(&change.is)?, &change.from).await;
        let from = change.from.join(" and ");
        Ok(value
            .map(|value| mend::Key {
                key,
                value: Some(value),
            })
            .ok_or_else(|| format!("{from} didn't give a value of the metadata: it may have changed meanwhile")))
    }
}

async fn verify(shared: Arc<Shared>, turn: Arc<tokio::sync::Mutex<()>>) -> Result<bool, String> {
    let _one_at_a_time = turn.lock().await;
    let store = shared.handle.store().clone();
    let verified = tokio::task::spawn_blocking(move || digest::verify(&store.meta)).await;
    let verified = verified.map_err(|panic| panic.to_string())?;
    let Some(mismatch) = verified.map_err(|error| chain(&error))? else {
        return Ok(true);
    };
    tracing::error!(
        "the metadata stored here aren't what was applied: the comparison with the others will say whether they differ"
    );
    shared.handle.correct_digest(mismatch).await.ok_or(HALTED)?;
    Ok(false)
}

fn disk_does_not_hold() -> StoreError {
    StoreError::Disk {
        what: "mending",
        path: "data".into(),
        source: std::io::Error::other("a block that was written came back as something else"),
    }
}

const DOES_NOT_HOLD: &str = "what was written came back as something else: replace its disk";

impl Healed {
    pub(super) fn join(&mut self, other: Self) {
        self.mended += other.mended;
        self.left.extend(other.left);
        self.again.extend(other.again);
    }

    fn count(&mut self, at: (Ino, u64), mended: Mended) {
        match mended {
            Mended::Done => self.mended += 1,
            Mended::Sound => {}
            Mended::Changed => self.again.push(at),
            Mended::DoesNotHold => drop(self.left.insert(at, DOES_NOT_HOLD.into())),
        }
    }
}

pub(super) fn sum(bytes: &Bytes) -> Result<Sum, String> {
    bytes
        .as_ref()
        .try_into()
        .map_err(|_| "a checksum has 16 bytes".to_owned())
}
