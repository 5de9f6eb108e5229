//! Committed entries on their way to the apply thread. They are kept together for a while: of many writes to one file, or to
//! one key, the thread then makes few. Until they are applied, readers see them in the overlay.

use holdfast_storage::apply::Committed;
use holdfast_storage::effects;

/// Nothing is held back longer.
const LONGEST_MS: u64 = 250;
/// A new active node applies what is here before it serves: that must not take long.
const BYTES: usize = 4 << 20;
/// Such an entry gains nothing from company.
const LARGE: usize = 64 << 10;

#[derive(Default)]
pub struct Unapplied {
    entries: Vec<Committed>,
    bytes: usize,
    since_ms: u64,
    urgent: bool,
}

impl Unapplied {
    pub fn push(&mut self, committed: Vec<Committed>, now_ms: u64) {
        if self.entries.is_empty() {
            self.since_ms = now_ms;
        }
        for entry in &committed {
            self.bytes += entry.data.len();
            self.urgent |= entry.data.len() >= LARGE || effects::is_check(&entry.data);
        }
        if self.entries.is_empty() {
            self.entries = committed;
        } else {
            self.entries.extend(committed);
        }
    }

    /// What is to be applied now; all of it if somebody waits.
    pub fn due(&mut self, now_ms: u64, awaited: bool) -> Option<Vec<Committed>> {
        let now = awaited || self.urgent || self.bytes >= BYTES || now_ms >= self.since_ms + LONGEST_MS;
        if self.entries.is_empty() || !now {
            return None;
        }
        (self.bytes, self.urgent) = (0, false);
        Some(std::mem::take(&mut self.entries))
    }

    /// How long what is here may stay, if anything is.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        (!self.entries.is_empty()).then(|| (self.since_ms + LONGEST_MS).saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use holdfast_storage::effects::{CheckPart, Effect, Entry};
    use holdfast_storage::types::{Ino, LogIndex, Term};

    fn entry(index: u64, effect: Effect) -> Committed {
        let entry = Entry {
            term: Term(1),
            effects: vec![effect],
        };
        Committed {
            index: LogIndex(index),
            term: Term(1),
            data: entry.encode(),
        }
    }

    fn write(index: u64, len: usize) -> Committed {
        let data = Bytes::from(vec![7; len]);
        entry(
            index,
            Effect::Write {
                ino: Ino(2),
                offset: 0,
                data,
            },
        )
    }

    fn indexes(due: Option<Vec<Committed>>) -> Vec<u64> {
        due.unwrap_or_default().iter().map(|entry| entry.index.0).collect()
    }

    #[test]
    fn small_writes_are_kept_for_a_while_unless_somebody_waits() {
        let mut unapplied = Unapplied::default();
        assert_eq!(unapplied.left_ms(100), None);
        unapplied.push(vec![write(1, 10)], 100);
        unapplied.push(vec![write(2, 10), write(3, 10)], 300);
        assert_eq!(unapplied.left_ms(300), Some(50));
        assert!(unapplied.due(349, false).is_none());
        assert_eq!(indexes(unapplied.due(350, false)), [1, 2, 3]);
        unapplied.push(vec![write(4, 10)], 360);
        assert_eq!(indexes(unapplied.due(360, true)), [4]);
        assert!(unapplied.due(9999, true).is_none());
    }

    #[test]
    fn much_data_and_checks_wait_for_nothing() {
        let mut unapplied = Unapplied::default();
        unapplied.push(vec![write(1, 10), write(2, LARGE)], 100);
        assert_eq!(indexes(unapplied.due(100, false)), [1, 2]);
        for index in 3..100 {
            unapplied.push(vec![write(index, BYTES / 64)], 100);
        }
        assert_eq!(unapplied.due(100, false).map(|due| due.len()), Some(97));
        let part = CheckPart::Meta {
            from: Bytes::new(),
            limit: 1,
        };
        unapplied.push(vec![write(100, 10), entry(101, Effect::Check { id: 1, part })], 100);
        assert_eq!(indexes(unapplied.due(100, false)), [100, 101]);
        unapplied.push(vec![write(102, 10)], 100);
        assert!(unapplied.due(100, false).is_none(), "the hurry was for those before");
    }
}
