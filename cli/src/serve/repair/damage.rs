//! What of this node's data was found damaged since the daemon's start, and what is damaged still.

use super::Healed;
use holdfast_replicator::clock::unix_ms;
use holdfast_storage::types::{BLOCK, Ino};
use std::collections::{BTreeMap, BTreeSet};

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
}

impl Damage {
    pub(super) fn look_again(&mut self, blocks: &[(Ino, u64)]) {
        let room = LEFT_MAX.saturating_sub(self.again.len());
        self.again.extend(blocks.iter().take(room));
    }

    pub(super) fn take_again(&mut self) -> Vec<(Ino, u64)> {
        std::mem::take(&mut self.again).into_iter().collect()
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
