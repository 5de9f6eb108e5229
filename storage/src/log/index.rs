//! Where each entry lies and which term it has: in memory, one small record a batch. No I/O here.

use crate::types::{LogIndex, Term};
use std::collections::VecDeque;

/// Entries `first..=last` lie in the batch at `offset` of segment `segment`. (The batch may hold later ones too,
/// replaced since.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchRef {
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
    pub(super) segment: u64,
    pub(super) offset: u32,
    /// With padding.
    pub(super) len: u32,
}

#[derive(Debug)]
pub(super) struct Index {
    /// Ascending by index and by place.
    batches: VecDeque<BatchRef>,
    /// The entry before the oldest one held, and its term if it is known.
    before: (LogIndex, Option<Term>),
    /// From this index on entries have this term, up to the next run.
    runs: VecDeque<(LogIndex, Term)>,
}

impl Index {
    /// Nothing held; the next entry comes right after `before`.
    pub(super) fn after(before: LogIndex, term: Option<Term>) -> Self {
        Self {
            batches: VecDeque::new(),
            before: (before, known(before, term)),
            runs: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The oldest one held, or the one that will be.
    pub(super) fn first(&self) -> LogIndex {
        self.before.0.next()
    }

    pub(super) fn last(&self) -> LogIndex {
        self.batches.back().map_or(self.before.0, |batch| batch.last)
    }

    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.before.0 {
            return self.before.1;
        }
        if index < self.before.0 || index > self.last() {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map(|run| self.runs[run].1)
    }

    /// All entries from `from` on are replaced by others. `before_term` is the term of the one before it, for the
    /// case that it isn't held any more.
    pub(super) fn truncate(&mut self, from: LogIndex, before_term: Option<Term>) {
        while self.batches.back().is_some_and(|batch| batch.first >= from) {
            self.batches.pop_back();
        }
        while self.runs.back().is_some_and(|(first, _)| *first >= from) {
            self.runs.pop_back();
        }
        let keep = LogIndex(from.0 - 1);
        if let Some(batch) = self.batches.back_mut() {
            batch.last = batch.last.min(keep);
        } else if keep < self.before.0 {
            self.before = (keep, known(keep, before_term));
        }
    }

    /// The next batch; it begins right after the last entry.
    pub(super) fn push(&mut self, batch: BatchRef) {
        debug_assert_eq!(batch.first, self.last().next());
        self.batches.push_back(batch);
    }

    /// Terms are told entry by entry, in order, before the batch is pushed.
    pub(super) fn push_term(&mut self, index: LogIndex, term: Term) {
        if self.runs.back().is_none_or(|(_, last)| *last != term) {
            self.runs.push_back((index, term));
        }
    }

    /// The last live entry in a segment, none if nothing in it is needed.
    pub(super) fn last_in(&self, segment: u64) -> Option<LogIndex> {
        let after = self.batches.partition_point(|batch| batch.segment <= segment);
        let batch = self.batches.get(after.checked_sub(1)?)?;
        (batch.segment == segment).then_some(batch.last)
    }

    /// The oldest segment is used again: what it held is gone.
    pub(super) fn forget_segment(&mut self, segment: u64) {
        let Some(last) = self.last_in(segment) else { return };
        let term = self.term(last);
        while self.batches.front().is_some_and(|batch| batch.segment <= segment) {
            self.batches.pop_front();
        }
        self.before = (last, term);
        // The run that holds the oldest entry stays, also where it begins earlier.
        while self.runs.get(1).is_some_and(|(first, _)| *first <= last.next()) {
            self.runs.pop_front();
        }
        if self.batches.is_empty() {
            self.runs.clear();
        }
    }

    /// The batch that holds an entry.
    pub(super) fn find(&self, index: LogIndex) -> Option<BatchRef> {
        let after = self.batches.partition_point(|batch| batch.first <= index);
        let batch = self.batches.get(after.checked_sub(1)?)?;
        (index <= batch.last).then_some(*batch)
    }
}

fn known(index: LogIndex, term: Option<Term>) -> Option<Term> {
    if index == LogIndex::ZERO { Some(Term(0)) } else { term }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, last: u64, segment: u64) -> BatchRef {
        BatchRef {
            first: LogIndex(first),
            last: LogIndex(last),
            segment,
            offset: 0,
            len: 4096,
        }
    }

    /// 1..=9 in three batches over two segments; terms 1 (1..=4), 2 (5..=9).
    fn nine() -> Index {
        let mut index = Index::after(LogIndex::ZERO, None);
        for (first, last, segment) in [(1, 3, 1), (4, 6, 1), (7, 9, 2)] {
            for entry in first..=last {
                index.push_term(LogIndex(entry), Term(if entry < 5 { 1 } else { 2 }));
            }
            index.push(batch(first, last, segment));
        }
        index
    }

    #[test]
    fn each_entry_is_found_with_its_term() {
        let index = nine();
        assert_eq!(index.find(LogIndex(4)), Some(batch(4, 6, 1)));
        assert_eq!(index.find(LogIndex(10)), None);
        assert_eq!(
            (0..11)
                .map(|at| index.term(LogIndex(at)).map(|term| term.0))
                .collect::<Vec<_>>(),
            [
                Some(0),
                Some(1),
                Some(1),
                Some(1),
                Some(1),
                Some(2),
                Some(2),
                Some(2),
                Some(2),
                Some(2),
                None
            ]
        );
    }

    #[test]
    fn a_conflict_cuts_inside_a_batch() {
        let mut index = nine();
        index.truncate(LogIndex(5), None);
        assert_eq!(
            (index.last(), index.find(LogIndex(5)), index.term(LogIndex(5))),
            (LogIndex(4), None, None)
        );
        index.push_term(LogIndex(5), Term(3));
        index.push(batch(5, 5, 2));
        assert_eq!(
            (index.term(LogIndex(4)), index.term(LogIndex(5))),
            (Some(Term(1)), Some(Term(3)))
        );
        assert_eq!(
            (index.last_in(1), index.last_in(2)),
            (Some(LogIndex(4)), Some(LogIndex(5)))
        );
    }

    #[test]
    fn a_forgotten_segment_leaves_the_term_before_the_first() {
        let mut index = nine();
        index.forget_segment(1);
        assert_eq!((index.first(), index.last()), (LogIndex(7), LogIndex(9)));
        assert_eq!(
            (index.term(LogIndex(6)), index.term(LogIndex(5))),
            (Some(Term(2)), None)
        );
        index.forget_segment(2);
        assert_eq!((index.first(), index.last()), (LogIndex(10), LogIndex(9)));
        assert_eq!(index.term(LogIndex(9)), Some(Term(2)));
        index.push_term(LogIndex(10), Term(2));
        index.push(batch(10, 10, 3));
        assert_eq!(index.term(LogIndex(10)), Some(Term(2)));
    }
}
