//! What a replica does for a node that needs a copy, as `replicator::copy` has it, and how it makes room for being one.

use super::{Replica, Turn};
use bytes::Bytes;
use holdfast_replicator::copy::{Basis, Keep};
use holdfast_storage::copy::Joint;
use holdfast_storage::effects::CheckPart;
use holdfast_storage::open;
use holdfast_storage::types::{LogIndex, Term};

const ASKS_WITHIN_MS: u64 = 30_000;
const STARTS_WITHIN_MS: u64 = 60_000;

/// A copy may begin.
#[derive(Clone)]
pub struct Offer {
    pub basis: Basis,
}

/// The entry that ends a copy, which has to be committed in this term.
#[derive(Clone, Copy)]
pub struct Ending {
    joined: u64,
    term: u64,
}

impl Replica {
    /// A peer can't come back by itself.
    pub fn needs_copy(&self, node: u64) -> bool {
        self.core.left_behind().contains(&node) || self.pins().is_strange(node)
    }

    pub fn begin_copy(&self, node: u64, begun: bool, now_ms: u64) -> Option<Offer> {
        if !self.gate.may_answer(now_ms) || !(begun || self.needs_copy(node)) {
            return None;
        }
        let checkpoint = self.store.checkpointed();
        self.keep(node, checkpoint, now_ms + ASKS_WITHIN_MS);
        let held = self.reader.first_index() <= checkpoint.next();
        let checkpoint_term = self.reader.term(checkpoint).filter(|_| held)?;
        let basis = Basis {
            checkpoint,
            checkpoint_term,
        };
        Some(Offer { basis })
    }

    fn keep(&self, node: u64, after: LogIndex, until_ms: u64) {
        self.kept.all().insert(node, Keep { after, until_ms });
    }

    /// The receiver is still there.
    pub fn go_on_copy(&self, node: u64, basis: &Basis, now_ms: u64) {
        let mut all = self.kept.all();
        if let Some(keep) = all.get_mut(&node).filter(|keep| keep.after == basis.checkpoint) {
            keep.until_ms = now_ms + ASKS_WITHIN_MS;
        }
    }

    /// All has been read: an entry of its own marks the end.
    pub fn mark_end(&mut self, node: u64, basis: &Basis, turn: &mut Turn<'_>) -> Option<Ending> {
        self.keep(node, basis.checkpoint, turn.now_ms + STARTS_WITHIN_MS);
        let nothing = CheckPart::Meta {
            from: Bytes::from_static(b"\xff"),
            limit: 0,
        };
        let term = self.core.term();
        let joined = self.begin_check(nothing, turn)?;
        Some(Ending { joined, term })
    }

    /// `None`: not committed yet. Then where the receiver goes on, or that it has to be made once more, or that the role is over.
    pub fn end_copy(&self, ending: Ending, basis: &Basis, now_ms: u64) -> Option<Result<Option<Joint>, ()>> {
        if self.core.term() != ending.term {
            return Some(Err(()));
        }
        if self.core.committed() < ending.joined {
            return None;
        }
        if !self.gate.may_answer(now_ms) {
            return Some(Err(()));
        }
        if self.reader.first_index() > basis.checkpoint.next() {
            return Some(Ok(None));
        }
        Some(Ok(Some(Joint {
            checkpoint: basis.checkpoint,
            checkpoint_term: basis.checkpoint_term,
            joined: LogIndex(ending.joined),
            term: Term(ending.term),
            leader: self.id,
        })))
    }

    /// Ends in order and leaves the mark of it, as `Replica::stop` does. Whether the store's checksums surely fit its files.
    pub fn stop(mut self, turn: &mut Turn<'_>) -> Result<bool, String> {
        if self.out {
            return Err("its disk has failed".into());
        }
        self.end_role();
        self.flush(turn);
        let persists = self.gather.rest();
        self.threads.write(persists);
        if let Some(committed) = self.unapplied.due(turn.now_ms, true) {
            self.threads.carry_out(committed);
        }
        if let Some(why) = self.halted {
            return Err(why);
        }
        self.threads.end()?;
        if let Some(last) = self.core.clean_end() {
            open::mark_clean(self.store.data.disk(), last).map_err(|error| error.to_string())?;
        }
        Ok(self.is_redone())
    }
}
