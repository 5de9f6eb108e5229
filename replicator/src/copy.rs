//! Copies of a whole store between nodes: what the loop knows of where one may begin and where it ends, how the source's
//! log is kept meanwhile, and the receiving node's store. The data itself is `holdfast_storage::copy`; how it travels is
//! the caller's affair.
//!
//! Why a node whose disk is new may come back under its old number: it takes no part in anything until an entry that a
//! leader sequenced after all that the node can ever have confirmed is committed, without it. So both others have all
//! that on disk, and whatever it voted for is beaten by that leader's term; its vote in that very term is the leader's
//! (`Joint::hard_state`).

use crate::clock::boottime_ms;
use crate::error::ReplicaError;
use crate::handle::Handle;
use crate::own_store;
use crate::start::Options;
use crate::view::{PeerView, View};
use bytes::Bytes;
use holdfast_storage::copy::{Joint, Target, is_copying};
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::effects::CheckPart;
use holdfast_storage::error::StoreError;
use holdfast_storage::identity::{Identity, hex};
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::types::{LogIndex, Term};
use rand::RngExt as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A receiver that hasn't asked for so long is gone.
const ASKS_WITHIN_MS: u64 = 30_000;
/// After the copy it starts and gets the entries from the log.
const STARTS_WITHIN_MS: u64 = 60_000;
const COMMITTED_WITHIN: Duration = Duration::from_secs(10);

/// The entries that receivers of copies will need, as long as the log has room for more.
#[derive(Default)]
pub struct Kept(Mutex<BTreeMap<u64, Keep>>);

#[derive(Clone, Copy)]
pub struct Keep {
    /// Entries behind it.
    pub after: LogIndex,
    pub until_ms: u64,
}

impl Kept {
    /// By the receiver's Raft id.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Keep>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the log may be trimmed, of `index` which is checkpointed.
    pub fn trim_to(&self, index: LogIndex, now_ms: u64) -> LogIndex {
        let mut all = self.all();
        all.retain(|_, keep| keep.until_ms > now_ms);
        all.values()
            .map(|keep| keep.after)
            .min()
            .map_or(index, |after| after.min(index))
    }

    /// The log needs its room: the receivers have to compare once more.
    pub fn give_up(&self) {
        let mut all = self.all();
        if !all.is_empty() {
            tracing::warn!(
                "the log is almost full: it can't be kept for the copy that is under way, which compares once more"
            );
            all.clear();
        }
    }
}

/// Where a copy begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    pub checkpoint: LogIndex,
    pub checkpoint_term: Term,
}

impl Handle {
    /// After `Replica::stop`: all that may have been applied before this start was applied again, and nothing broke off, so the
    /// store's checksums fit its files.
    pub fn is_sound(&self) -> bool {
        self.store.applied() >= self.last_before && self.view.latest().halted.is_none()
    }

    /// Or be the only replica that is left: then nothing changes here, and there is nobody who could lead.
    fn must_lead(&self) -> Result<(), String> {
        if self.is_recovering() || self.gate.may_answer(boottime_ms()) {
            Ok(())
        } else {
            Err("it isn't the active node, or its lease has run out".into())
        }
    }

    /// A copy for the node of this number may begin, and the log's entries from there on are kept for a while. `begun`: that
    /// node has given up what it had.
    pub fn begin_copy(&self, node: u64, begun: bool) -> Result<Basis, String> {
        self.must_lead()?;
        let view = self.view.latest();
        if !begun && !self.needs_copy(&view, node) {
            return Err("the node can catch up by the log, or hasn't been heard yet".into());
        }
        let checkpoint = self.store.checkpointed();
        self.keep(node, checkpoint, ASKS_WITHIN_MS);
        let term = self
            .log
            .term(checkpoint)
            .filter(|_| self.log.first_index() <= checkpoint.next());
        let checkpoint_term = term.ok_or("the log doesn't reach back to the last checkpoint any more")?;
        Ok(Basis {
            checkpoint,
            checkpoint_term,
        })
    }

    /// A peer can't come back by itself.
    pub fn needs_copy(&self, view: &View, node: u64) -> bool {
        let is_behind = |peer: &PeerView| peer.up && !peer.other_history && peer.last_index + 1 < view.first;
        view.needs_copy(node) || (self.is_recovering() && view.peers.get(&node).is_some_and(is_behind))
    }

    fn keep(&self, node: u64, after: LogIndex, ms: u64) {
        let until_ms = boottime_ms() + ms;
        self.kept.all().insert(node, Keep { after, until_ms });
    }

    /// The receiver is still there.
    pub fn go_on_copy(&self, node: u64, basis: &Basis) {
        let mut all = self.kept.all();
        if let Some(keep) = all.get_mut(&node).filter(|keep| keep.after == basis.checkpoint) {
            keep.until_ms = boottime_ms() + ASKS_WITHIN_MS;
        }
    }

    /// All has been read: where the receiver goes on. `None`: the log no longer reaches back to where the copy began, so it has
    /// to be made once more, of what has changed since.
    pub async fn end_copy(&self, node: u64, id: u64, basis: &Basis) -> Result<Option<Joint>, String> {
        self.keep(node, basis.checkpoint, STARTS_WITHIN_MS);
        let (joined, view) = if self.gate.may_answer(boottime_ms()) || !self.is_recovering() {
            self.mark_in_log().await?
        } else {
            (self.store.applied().0, self.view.latest())
        };
        self.must_lead()?;
        if self.log.first_index() > basis.checkpoint.next() {
            return Ok(None);
        }
        Ok(Some(Joint {
            checkpoint: basis.checkpoint,
            checkpoint_term: basis.checkpoint_term,
            joined: LogIndex(joined),
            term: Term(view.term),
            leader: id,
        }))
    }

    /// Sequences an entry that does nothing, after all that can have been applied to what was copied, and waits until it is
    /// committed: so this node surely led until then. No other copy ends at that entry, so of two stores of one node the one
    /// with the higher `joined` is the later one.
    async fn mark_in_log(&self) -> Result<(u64, Arc<View>), String> {
        let nothing = CheckPart::Meta {
            from: Bytes::from_static(b"\xff"),
            limit: 0,
        };
        let term = self.view.latest().term;
        let (index, _found) = self.check(nothing).await?;
        let mut watch = self.view.clone();
        let committed = async {
            loop {
                let view = watch.take();
                if view.committed >= index {
                    return Some(view);
                }
                if !watch.changed().await {
                    return None;
                }
            }
        };
        let committed = tokio::time::timeout(COMMITTED_WITHIN, committed).await;
        let view = committed
            .ok()
            .flatten()
            .ok_or("no majority confirms the end of the copy")?;
        // In another term another entry may stand there.
        if view.term != term {
            return Err("the active role changed meanwhile".into());
        }
        Ok((index, view))
    }
}

impl View {
    /// A peer can't come back by itself: the log doesn't reach back to it, or its store isn't the one that it had.
    pub fn needs_copy(&self, node: u64) -> bool {
        self.left_behind.contains(&node)
            || self
                .peers
                .get(&node)
                .is_some_and(|peer| peer.strange && !peer.other_history)
    }
}

/// A node's store while it is being copied; nothing else runs on it.
pub struct Receiver {
    pub target: Target<RealDisk, Rocks>,
    identity: Identity,
    /// Until the end.
    _lock: std::fs::File,
}

impl Receiver {
    /// Whether the last copy into this node's store wasn't finished: nothing but a copy may go on with it.
    pub fn is_needed(options: &Options) -> Result<bool, ReplicaError> {
        if !options.store.exists() {
            return Ok(false);
        }
        Ok(is_copying(&own_store::open_disk(options)?)?)
    }

    /// `sound`: the replica that ran on it had applied all that its log held when it started, and ended in order.
    pub fn open(options: &Options, sound: bool) -> Result<Self, ReplicaError> {
        let lock = own_store::lock(&options.store)?;
        let disk = own_store::open_disk(options)?;
        let identity = Identity::read(&disk)?.ok_or_else(|| StoreError::Identity {
            path: options.store.display().to_string(),
            why: "it isn't formatted".into(),
        })?;
        identity.must_be(&options.cluster_id, &options.node)?;
        let meta = Rocks::create(&options.store.join("meta"))?;
        Ok(Self {
            target: Target::begin(disk, meta, &identity, sound)?,
            identity,
            _lock: lock,
        })
    }

    /// The store is whole; it can be started.
    pub fn finish(self, joint: Joint) -> Result<(), ReplicaError> {
        let store: [u8; 16] = rand::rng().random();
        self.target.finish(&self.identity, store, joint)?;
        tracing::info!(
            store = hex(&store),
            checkpoint = %joint.checkpoint,
            joined = %joint.joined,
            "the copy is whole"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_kept_for_whoever_is_there_and_no_longer() {
        let kept = Kept::default();
        assert_eq!(kept.trim_to(LogIndex(9), 0), LogIndex(9));
        let keep = |after, until_ms| Keep {
            after: LogIndex(after),
            until_ms,
        };
        kept.all().insert(2, keep(5, 100));
        kept.all().insert(3, keep(7, 200));
        assert_eq!(kept.trim_to(LogIndex(9), 99), LogIndex(5));
        assert_eq!(kept.trim_to(LogIndex(4), 99), LogIndex(4));
        assert_eq!(kept.trim_to(LogIndex(9), 100), LogIndex(7));
        kept.give_up();
        assert_eq!(kept.trim_to(LogIndex(9), 101), LogIndex(9));
    }
}
