//! The end of a copy: the store becomes one that goes on behind the checkpoint at which the copy began.

use super::mark::{self, Voted};
use super::target::Target;
use crate::apply;
use crate::checkpoint;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::identity::Identity;
use crate::log::{HardState, Log};
use crate::meta::{Change, Meta};
use crate::open;
use crate::types::{LogIndex, Term};
use bytes::Bytes;

/// Where the copied replica goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joint {
    /// The source's published checkpoint when the copy began, and the term of the entry there.
    pub checkpoint: LogIndex,
    pub checkpoint_term: Term,
    /// An entry that the source, which led, sequenced when all had been read: nothing behind it can have been applied to what
    /// was copied.
    pub joined: LogIndex,
    /// The source's term, and its Raft id: nobody else can have been elected in that term.
    pub term: Term,
    pub leader: u64,
}

impl Joint {
    /// What Raft goes on with. A vote that this node gave in a higher term, or to another in this one, still counts.
    fn hard_state(&self, voted: Voted) -> HardState {
        let own_counts = voted.term > self.term || (voted.term == self.term && voted.vote != 0);
        let (term, vote) = if own_counts {
            (voted.term, voted.vote)
        } else {
            (self.term, self.leader)
        };
        HardState {
            term,
            vote,
            commit: self.checkpoint,
        }
    }
}

impl<D: Disk, M: Meta> Target<D, M> {
    /// After the last piece. The store gets a new id, `store`: what its log held before counts no more.
    pub fn finish(self, identity: &Identity, store: [u8; 16], joint: Joint) -> Result<Identity, StoreError> {
        let applied = Bytes::copy_from_slice(&joint.checkpoint.0.to_le_bytes());
        self.meta
            .write(vec![Change::Put(Bytes::from_static(apply::APPLIED), applied)])?;
        // All of it, not only what this process knows to have changed: the one before may have been killed after writing, and
        // what it wrote was taken for there.
        self.disk
            .sync_all()
            .map_err(StoreError::disk("syncing", "the store's file system"))?;
        self.meta.flush()?;
        let state = joint.hard_state(self.voted);
        Log::begin_after(
            self.disk.clone(),
            store,
            (joint.checkpoint, joint.checkpoint_term),
            state,
        )?;
        checkpoint::publish(&self.disk, joint.checkpoint)?;
        open::unmark_clean(&self.disk)?;
        let identity = Identity {
            store,
            joined: joint.joined,
            ..identity.clone()
        };
        identity.write(&self.disk)?;
        // Crash here: the store is whole and still marked, so the copy is made once more, with nothing to send.
        mark::remove(&self.disk)?;
        Ok(identity)
    }
}
