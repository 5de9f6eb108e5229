//! Requests that wait to be admitted: in their order, but those of a class that goes last let the others pass.

use crate::api::{Failure, Request};
use std::collections::VecDeque;

/// So long a request lets others pass; far below any request's deadline.
const PATIENCE_MS: u64 = 1000;

#[derive(Default)]
pub(crate) struct Queue {
    first: VecDeque<Request>,
    /// With the time from which on it waits no longer for others.
    last: VecDeque<(u64, Request)>,
}

impl Queue {
    pub(crate) fn push(&mut self, request: Request, last: bool, now_ms: u64) {
        if last {
            self.last.push_back((now_ms.saturating_add(PATIENCE_MS), request));
        } else {
            self.first.push_back(request);
        }
    }

    /// The one that was popped last and couldn't be admitted: it is the next again.
    pub(crate) fn put_back(&mut self, request: Request) {
        self.first.push_front(request);
    }

    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Request> {
        let impatient = self.last.front().is_some_and(|(until, _)| *until <= now_ms);
        if (impatient || self.first.is_empty())
            && let Some((_, request)) = self.last.pop_front()
        {
            return Some(request);
        }
        self.first.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.last.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends those whose deadline has come.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let expired = |request: &Request| request.deadline_ms <= now_ms;
        if !self.first.iter().any(expired) && !self.last.iter().any(|(_, request)| expired(request)) {
            return;
        }
        for request in std::mem::take(&mut self.first) {
            if expired(&request) {
                (request.done)(Err(Failure::Deadline));
            } else {
                self.first.push_back(request);
            }
        }
        for (until, request) in std::mem::take(&mut self.last) {
            if expired(&request) {
                (request.done)(Err(Failure::Deadline));
            } else {
                self.last.push_back((until, request));
            }
        }
    }

    pub(crate) fn fail_all(&mut self, failure: Failure) {
        let last = std::mem::take(&mut self.last).into_iter().map(|(_, request)| request);
        for request in std::mem::take(&mut self.first).into_iter().chain(last) {
            (request.done)(Err(failure));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Wait;
    use holdfast_storage::op::Op;
    use holdfast_storage::types::Ino;

    fn request(number: u64) -> Request {
        Request {
            op: Op::Reap { ino: Ino(number) },
            wait: Wait::Sequenced,
            deadline_ms: 10_000 + number,
            done: Box::new(|_| {}),
        }
    }

    fn number(request: Option<Request>) -> Option<u64> {
        request.map(|request| match request.op {
            Op::Reap { ino } => ino.0,
            _ => unreachable!(),
        })
    }

    #[test]
    fn logs_let_others_pass_for_a_while_and_not_for_ever() {
        let mut queue = Queue::default();
        queue.push(request(1), true, 0);
        queue.push(request(2), false, 0);
        queue.push(request(3), false, 0);
        assert_eq!(number(queue.pop(0)), Some(2));
        assert_eq!(number(queue.pop(PATIENCE_MS)), Some(1));
        assert_eq!(number(queue.pop(PATIENCE_MS)), Some(3));
        assert_eq!(number(queue.pop(PATIENCE_MS)), None);
    }

    #[test]
    fn what_could_not_be_admitted_is_the_next_again() {
        let mut queue = Queue::default();
        queue.push(request(1), true, 0);
        let popped = queue.pop(0).unwrap();
        queue.push(request(2), false, 0);
        queue.put_back(popped);
        assert_eq!(number(queue.pop(0)), Some(1));
    }

    #[test]
    fn each_ends_at_its_deadline_wherever_it_waits() {
        let mut queue = Queue::default();
        queue.push(request(1), true, 0);
        queue.push(request(2), false, 0);
        queue.push(request(3), false, 0);
        queue.expire(10_002);
        assert_eq!((queue.len(), number(queue.pop(10_002))), (1, Some(3)));
    }
}
