//! Guesses which changes an fsync will follow, so that their sync begins with them and the fsync finds it under way.
//! All other changes are held by two machines when they are acknowledged, and synced a few milliseconds later
//! together with what came meanwhile: many recordings' small writes share one.

use holdfast_storage::types::Ino;
use std::collections::HashMap;

/// A file that was synced counts as one that is synced after each change until so many changes went without.
const PATIENCE: u32 = 32;
/// Files remembered.
const FILES: usize = 4096;
/// For files not seen before, what programs have done lately counts: a sync weighs as much as so many changes.
const SYNC_WEIGHT: u32 = 4;
const EAGER_MAX: u32 = 64;

#[derive(Default)]
pub struct Urgency {
    /// Files that were synced, with the changes since.
    synced: HashMap<Ino, u32>,
    eager: u32,
    urgent: bool,
}

impl Urgency {
    /// This file, or its name, has changed.
    pub fn changed(&mut self, ino: Ino) {
        let expected = match self.synced.get_mut(&ino) {
            Some(since) => {
                *since += 1;
                *since <= PATIENCE
            }
            None => self.eager > 0,
        };
        self.eager = self.eager.saturating_sub(1);
        self.urgent |= expected;
    }

    /// Somebody waits for the sync of this file, or of all.
    pub fn synced(&mut self, ino: Option<Ino>) {
        self.urgent = true;
        self.eager = (self.eager + SYNC_WEIGHT).min(EAGER_MAX);
        if let Some(ino) = ino {
            if self.synced.len() >= FILES {
                self.synced.retain(|_, since| *since == 0);
            }
            if self.synced.len() < FILES {
                self.synced.insert(ino, 0);
            }
        }
    }

    /// Somebody waits, whatever was guessed.
    pub fn now(&mut self) {
        self.urgent = true;
    }

    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether what was sequenced since the last time is to be synced at once.
    pub fn take(&mut self) -> bool {
        std::mem::take(&mut self.urgent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_synced_after_each_change_is_synced_with_it_and_a_recording_is_not() {
        let mut urgency = Urgency::default();
        let (database, recording) = (Ino(2), Ino(3));
        urgency.changed(database);
        assert!(!urgency.take(), "nothing is known yet");
        urgency.synced(Some(database));
        assert!(urgency.take());
        for _ in 0..SYNC_WEIGHT {
            urgency.changed(recording);
        }
        let _ = urgency.take();
        for _ in 0..100 {
            for _ in 0..10 {
                urgency.changed(recording);
                assert!(!urgency.take());
            }
            urgency.changed(database);
            assert!(urgency.take());
            urgency.synced(Some(database));
            assert!(urgency.take());
            (0..SYNC_WEIGHT).for_each(|_| urgency.changed(recording));
            let _ = urgency.take();
        }
    }

    #[test]
    fn a_file_that_is_no_longer_synced_is_forgotten_after_a_while() {
        let mut urgency = Urgency::default();
        urgency.synced(Some(Ino(2)));
        (0..=PATIENCE.max(SYNC_WEIGHT)).for_each(|_| urgency.changed(Ino(2)));
        let _ = urgency.take();
        urgency.changed(Ino(2));
        assert!(!urgency.take());
    }

    #[test]
    fn new_files_are_synced_at_once_where_new_files_are_fsynced() {
        let mut urgency = Urgency::default();
        for ino in 2..10 {
            urgency.changed(Ino(ino));
            urgency.changed(Ino(ino));
            urgency.synced(Some(Ino(ino)));
        }
        let _ = urgency.take();
        urgency.changed(Ino(10));
        assert!(urgency.take());
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut urgency = Urgency::default();
        (0..100_000).for_each(|ino| urgency.synced(Some(Ino(ino))));
        assert!(urgency.synced.len() <= FILES);
    }
}
