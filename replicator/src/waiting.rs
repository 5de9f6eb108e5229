//! Requests that wait for an index to be received or committed.

use crate::api::Failure;
use std::collections::BTreeMap;

/// Called once, with what became of the request.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), Failure>) + Send>;

struct Waiter {
    deadline_ms: u64,
    answer: Answer,
}

/// Ordered by the index waited for.
#[derive(Default)]
pub(crate) struct Waiting {
    waiters: BTreeMap<(u64, u64), Waiter>,
    next: u64,
}

impl Waiting {
    pub(crate) fn push(&mut self, index: u64, deadline_ms: u64, answer: Answer) {
        self.next += 1;
        self.waiters.insert((index, self.next), Waiter { deadline_ms, answer });
    }

    /// Answers all that waited for this index or an earlier one.
    pub(crate) fn reached(&mut self, index: u64) -> usize {
        let mut answered = 0;
        while let Some(first) = self.waiters.first_entry() {
            if first.key().0 > index {
                break;
            }
            (first.remove().answer)(Ok(()));
            answered += 1;
        }
        answered
    }

    /// Ends those whose deadline has come.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let late: Vec<_> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| waiter.deadline_ms <= now_ms)
            .map(|(at, _)| *at)
            .collect();
        for at in late {
            if let Some(waiter) = self.waiters.remove(&at) {
                (waiter.answer)(Err(Failure::Deadline));
            }
        }
    }

    pub(crate) fn fail_all(&mut self, failure: Failure) {
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            (waiter.answer)(Err(failure));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }
}
