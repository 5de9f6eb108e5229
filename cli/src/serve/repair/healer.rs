//! Gets damaged blocks of this node their bytes back.

use super::super::check;
use super::super::peers::Peers;
use super::super::shared::Shared;
use bytes::Bytes;
use holdfast_proto::repair::{
    BlockChange, BlockNumber, BlockRequest, ExamineRequest, KeyChange, MendAnswer, MendRequest, ValueRequest,
};
use holdfast_storage::data::sums::{self, Sum};
use holdfast_storage::mend::{self, Mended, State};
use holdfast_storage::types::{BLOCK, Ino, LogIndex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A peer that doesn't answer for so long is passed over.
const WITHIN: Duration = Duration::from_secs(2);
/// Blocks that are mended in one go.
pub(super) const AT_ONCE: usize = 64;

pub(in super::super) struct Healer {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
}

/// What became of blocks that were suspected.
#[derive(Debug, Default)]
pub(in super::super) struct Healed {
    pub(super) mended: u64,
    /// Damaged still, and why.
    pub(super) left: BTreeMap<(Ino, u64), String>,
}

const HALTED: &str = "this node has stopped by itself and changes nothing on its disk";

impl Healer {
    pub(in super::super) fn new(shared: Arc<Shared>, peers: Arc<Peers>) -> Self {
        Self { shared, peers }
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
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for (at, state) in blocks.iter().zip(states) {
            match state {
                State::Sound => {}
                State::Rotten(sum) => match self.fetch(at.0, at.1, sum, None).await {
                    Some(data) => found.push(of_same(*at, sum, data)),
                    None => drop(
                        healed
                            .left
                            .insert(*at, "no peer that answers has these very bytes".into()),
                    ),
                },
                State::Damaged => unknown.push(*at),
                State::Redoing => {
                    let why = "what was done before the last start or a copy is still being done again";
                    healed.left.insert(*at, why.into());
                }
            }
        }
        if !found.is_empty() {
            let at: Vec<_> = found.iter().map(|block| (block.ino, block.number)).collect();
            match self.shared.handle.mend_blocks(found).await {
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
    }

    /// What these should be only all three together can tell, at one index of the log.
    async fn heal_by_all(&self, blocks: &[(Ino, u64)], healed: &mut Healed) {
        let asked = self.examine(blocks).await;
        let states = self.shared.handle.look(blocks.to_vec()).await;
        let why = match (&asked, &states) {
            (_, None) => HALTED.to_owned(),
            (Err(why), _) => why.clone(),
            (Ok(()), _) => "a part of it was overwritten when it was rotten already, and the others don't agree on it or it changes all the time".into(),
        };
        let states = states.unwrap_or_else(|| vec![State::Damaged; blocks.len()]);
        for (at, state) in blocks.iter().zip(states) {
            if state == State::Sound {
                healed.count(*at, Mended::Done);
            } else {
                healed.left.insert(*at, why.clone());
            }
        }
    }

    async fn examine(&self, blocks: &[(Ino, u64)]) -> Result<(), String> {
        let active = self.shared.active().ok_or("no node is active, to ask all three")?;
        if active == self.name() {
            // A check tells this node, too, and ends up in `mend`, not here.
            return Box::pin(check::examine(self, blocks)).await.map(drop);
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
            if from.is_some_and(|names| !names.iter().any(|name| name == peer)) {
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
        for (_, mut client) in self
            .peers
            .menders()
            .filter(|(peer, _)| from.iter().any(|name| name == peer))
        {
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
        match tokio::time::timeout(WITHIN * 10, client.mend(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("it doesn't answer".into()),
        }
    }

    /// Puts right here what the active node says that two others have alike.
    pub(super) async fn mend(&self, request: MendRequest) -> Result<MendAnswer, String> {
        let mut answer = MendAnswer::default();
        let (mut blocks, mut keys) = (Vec::new(), Vec::new());
        for change in request.blocks {
            match self.block(LogIndex(request.as_of), change).await? {
                Ok(block) => blocks.push(block),
                Err(why) => answer.left.push(why),
            }
        }
        for change in request.keys {
            match self.key(change).await? {
                Ok(key) => keys.push(key),
                Err(why) => answer.left.push(why),
            }
        }
        let handle = &self.shared.handle;
        let mut mended = handle.mend_blocks(blocks).await.ok_or(HALTED)?;
        mended.extend(handle.mend_keys(keys).await.ok_or(HALTED)?);
        for mended in mended {
            match mended {
                Mended::Done => answer.mended += 1,
                Mended::Sound | Mended::Changed => answer.changed += 1,
                Mended::DoesNotHold => answer.left.push(DOES_NOT_HOLD.into()),
            }
        }
        if answer.mended > 0 {
            tracing::warn!(
                blocks_and_keys = answer.mended,
                "what differed here from the two other nodes was put right"
            );
        }
        Ok(answer)
    }

    /// The outer error: a request that makes no sense.
    async fn block(&self, as_of: LogIndex, change: BlockChange) -> Result<Result<mend::Block, String>, String> {
        let (ino, number) = (Ino(change.ino), change.number);
        let (was, is) = (sum(&change.was)?, sum(&change.is)?);
        if number > holdfast_storage::types::MAX_FILE / BLOCK {
            return Err("no file has such a block".into());
        }
        let data = if is == sums::of_zeros() {
            Bytes::new()
        } else {
            match self.fetch(ino, number, is, Some(&change.from)).await {
                Some(data) => data,
                None => {
                    let from = change.from.join(" and ");
                    return Ok(Err(format!(
                        "{from} didn't give block {number} of inode {ino}: it may have changed meanwhile"
                    )));
                }
            }
        };
        Ok(Ok(mend::Block {
            ino,
            number,
            was,
            is,
            as_of,
            data,
        }))
    }

    async fn key(&self, change: KeyChange) -> Result<Result<mend::Key, String>, String> {
        let maybe = |bytes: &Bytes| (!bytes.is_empty()).then(|| sum(bytes)).transpose();
        let (was, is) = (maybe(&change.was)?, maybe(&change.is)?);
        let value = match is {
            None => None,
            Some(hash) => match self.fetch_value(&change.key, hash, &change.from).await {
                Some(value) => Some(value),
                None => {
                    let from = change.from.join(" and ");
                    return Ok(Err(format!(
                        "{from} didn't give a value of the metadata: it may have changed meanwhile"
                    )));
                }
            },
        };
        let key = change.key;
        Ok(Ok(mend::Key { key, was, value }))
    }
}

const DOES_NOT_HOLD: &str = "what was written came back as something else: replace its disk";

impl Healed {
    fn count(&mut self, at: (Ino, u64), mended: Mended) {
        match mended {
            Mended::Done => self.mended += 1,
            Mended::Sound => {}
            // A write came between, and looked at what stood there itself: if that was rotten it is known as damaged now.
            Mended::Changed => drop(
                self.left
                    .insert(at, "it was changed just now; it is looked at again".into()),
            ),
            Mended::DoesNotHold => drop(self.left.insert(at, DOES_NOT_HOLD.into())),
        }
    }
}

fn of_same((ino, number): (Ino, u64), sum: Sum, data: Bytes) -> mend::Block {
    mend::Block {
        ino,
        number,
        was: sum,
        is: sum,
        as_of: LogIndex::ZERO,
        data,
    }
}

pub(super) fn sum(bytes: &Bytes) -> Result<Sum, String> {
    bytes
        .as_ref()
        .try_into()
        .map_err(|_| "a checksum has 16 bytes".to_owned())
}
