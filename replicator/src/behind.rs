//! What was acknowledged before it was received or durable: bounded, in amount and in time.

use holdfast_storage::class::Behind;
use holdfast_storage::types::LogIndex;
use std::collections::VecDeque;

struct Entry {
    index: LogIndex,
    bytes: u64,
    since_ms: u64,
}

/// Acknowledged and not yet as safe as it is to be, in the order of the log.
#[derive(Default)]
pub(crate) struct Unwaited {
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Unwaited {
    /// Whether this change may be acknowledged at once; if not, it is to wait until it is safe itself, for then all
    /// before it is.
    pub(crate) fn admit(&mut self, limit: Behind, index: LogIndex, bytes: u64, now_ms: u64) -> bool {
        let late = self
            .entries
            .front()
            .is_some_and(|oldest| oldest.since_ms.saturating_add(limit.ms) <= now_ms);
        if late || self.bytes + bytes > limit.bytes {
            return false;
        }
        self.bytes += bytes;
        self.entries.push_back(Entry {
            index,
            bytes,
            since_ms: now_ms,
        });
        true
    }

    /// All up to this index is safe.
    pub(crate) fn reached(&mut self, index: LogIndex) {
        while let Some(first) = self.entries.front().filter(|entry| entry.index <= index) {
            self.bytes -= first.bytes;
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Behind = Behind { bytes: 1000, ms: 100 };

    #[test]
    fn an_old_one_holds_up_the_next() {
        let mut unwaited = Unwaited::default();
        assert!(unwaited.admit(LIMIT, LogIndex(1), 1, 0));
        assert!(unwaited.admit(LIMIT, LogIndex(2), 1, 99));
        assert!(!unwaited.admit(LIMIT, LogIndex(3), 1, 100));
        unwaited.reached(LogIndex(1));
        assert!(unwaited.admit(LIMIT, LogIndex(4), 1, 100));
    }

    proptest! {
        #[test]
        fn never_more_is_acknowledged_than_the_limit(
            steps in proptest::collection::vec((1_u64..600, 0_u64..80, 0_u64..4), 1..200),
        ) {
            let mut unwaited = Unwaited::default();
            let mut model: Vec<(u64, u64, u64)> = Vec::new();
            let (mut now, mut durable) = (0, 0);
            for (index, (bytes, pause, ahead)) in (1_u64..).zip(steps) {
                now += pause;
                durable = durable.max(index.saturating_sub(ahead * 2 + 1));
                unwaited.reached(LogIndex(durable));
                model.retain(|(index, ..)| *index > durable);
                let room = model.iter().map(|(_, bytes, _)| bytes).sum::<u64>() + bytes <= LIMIT.bytes;
                let fresh = model.iter().all(|(.., since)| since + LIMIT.ms > now);
                let admitted = unwaited.admit(LIMIT, LogIndex(index), bytes, now);
                prop_assert_eq!(admitted, room && fresh);
                if admitted {
                    model.push((index, bytes, now));
                }
            }
        }
    }
}
