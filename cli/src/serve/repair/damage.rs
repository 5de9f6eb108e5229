//! What of this node's data was found damaged since the daemon's start, and what is damaged still.

use super::Healed;
use holdfast_replicator::clock::unix_ms;
use holdfast_storage::types::{BLOCK, Ino};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Damaged blocks of which it is remembered why; there may be more.
const LEFT_MAX: usize = 10_000;

#[derive(Default)]
pub(in super::super) struct Damage {
    pub(in super::super) mended: u64,
    pub(in super::super) mended_unix_ms: u64,
    /// With the reason.
    pub(in super::super) left: BTreeMap<(Ino, u64), String>,
    pub(in super::super) left_since_unix_ms: u64,
    /// To be looked at again in a moment.
    again: BTreeSet<(Ino, u64)>,
    /// Of those that are left, the last one that was tried again.
    retried: Option<(Ino, u64)>,
}

impl Damage {
    pub(super) fn look_again(&mut self, blocks: &[(Ino, u64)]) {
        let room = LEFT_MAX.saturating_sub(self.again.len());
        self.again.extend(blocks.iter().take(room));
    }

    pub(super) fn take_again(&mut self) -> Vec<(Ino, u64)> {
        std::mem::take(&mut self.again).into_iter().collect()
    }

    /// So many at most of those that are left, each in its turn.
    pub(super) fn next_left(&mut self, most: usize) -> Vec<(Ino, u64)> {
        let behind = |at: (Ino, u64)| (Bound::Excluded(at), Bound::Unbounded);
        let later = self.retried.map(|at| self.left.range(behind(at)));
        let all = later.into_iter().flatten().chain(&self.left);
        let next: Vec<_> = all.map(|(at, _)| *at).take(most.min(self.left.len())).collect();
        self.retried = next.last().copied();
        next
    }

    pub(in super::super) fn note(&mut self, healed: &Healed, blocks: &[(Ino, u64)]) {
        let before = blocks.iter().filter_map(|at| self.left.remove(at)).count();
        if healed.mended > 0 {
            self.mended += healed.mended;
            self.mended_unix_ms = unix_ms();
            tracing::warn!(
                blocks = healed.mended,
                "blocks on this disk were damaged; a peer's bytes have taken their place"
            );
        }
        for (at, why) in &healed.left {
            if self.left.len() < LEFT_MAX {
                self.left.insert(*at, why.clone());
            }
        }
        // Each once, not whenever it is tried again.
        if healed.left.len() > before
            && let Some(((ino, number), why)) = healed.left.first_key_value()
        {
            tracing::error!(blocks = healed.left.len(), first = %ino, offset = number * BLOCK, why, "blocks on this disk are damaged: reads of them fail until they are mended");
        }
        self.look_again(&healed.again);
        if self.left.is_empty() {
            self.left_since_unix_ms = 0;
        } else if self.left_since_unix_ms == 0 {
            self.left_since_unix_ms = unix_ms();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_that_is_left_is_tried_again_in_its_turn() {
        let mut damage = Damage::default();
        assert!(damage.next_left(2).is_empty());
        let at = |number| (Ino(7), number);
        damage.left.extend((1..=5).map(|number| (at(number), String::new())));
        assert_eq!(damage.next_left(2), [at(1), at(2)]);
        damage.left.remove(&at(2));
        assert_eq!(damage.next_left(2), [at(3), at(4)]);
        assert_eq!(damage.next_left(2), [at(5), at(1)]);
        assert_eq!(damage.next_left(9), [at(3), at(4), at(5), at(1)]);
    }
}
