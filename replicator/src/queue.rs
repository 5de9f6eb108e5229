//! Requests that wait to be admitted: in their order, but those of a class that goes last let the others pass.

use crate::api::{Failure, Request};
use std::collections::VecDeque;

/// So long a request lets others pass; far below any request's deadline.
const PATIENCE_MS: u64 = 1000;

#[derive(Default)]
pub(crate) struct Queue {
    /// With the time of their arrival.
    first: VecDeque<(u64, Request)>,
    last: VecDeque<(u64, Request)>,
}

impl Queue {
    pub(crate) fn push(&mut self, request: Request, last: bool, now_ms: u64) {
        if last {
            self.last.push_back((now_ms, request));
        } else {
            self.first.push_back((now_ms, request));
        }
    }

    /// The one that was popped last and couldn't be admitted: it is the next again.
    pub(crate) fn put_back(&mut self, request: Request) {
        self.first.push_front((0, request));
    }

    /// One that goes last passes those alone that came when its patience had ended.
    pub(crate) fn pop(&mut self) -> Option<Request> {
        let last_is_next = match (self.first.front(), self.last.front()) {
            (Some((first, _)), Some((last, _))) => last.saturating_add(PATIENCE_MS) <= *first,
            (None, _) => true,
            (_, None) => false,
        };
        let next = if last_is_next {
            self.last.pop_front()
        } else {
            self.first.pop_front()
        };
        next.map(|(_, request)| request)
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.last.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends those whose deadline has come.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        for queue in [&mut self.first, &mut self.last] {
            if queue.iter().any(|(_, request)| request.deadline_ms <= now_ms) {
                for (since_ms, request) in std::mem::take(queue) {
                    if request.deadline_ms <= now_ms {
                        (request.done)(Err(Failure::Deadline));
                    } else {
                        queue.push_back((since_ms, request));
                    }
                }
            }
        }
    }

    pub(crate) fn fail_all(&mut self, failure: Failure) {
        for queue in [&mut self.first, &mut self.last] {
            for (_, request) in std::mem::take(queue) {
                (request.done)(Err(failure));
            }
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
        queue.push(request(3), false, PATIENCE_MS - 1);
        queue.push(request(4), false, PATIENCE_MS);
        queue.push(request(5), true, PATIENCE_MS);
        let order: Vec<_> = std::iter::from_fn(|| number(queue.pop())).collect();
        assert_eq!(order, [2, 3, 1, 4, 5]);
    }

    #[test]
    fn after_a_stall_logs_pass_nobody_who_waited_as_long() {
        let mut queue = Queue::default();
        queue.push(request(1), true, 0);
        (2..5).for_each(|other| queue.push(request(other), false, 10));
        let order: Vec<_> = std::iter::from_fn(|| number(queue.pop())).collect();
        assert_eq!(order, [2, 3, 4, 1]);
    }

    #[test]
    fn what_could_not_be_admitted_is_the_next_again() {
        let mut queue = Queue::default();
        queue.push(request(1), true, 0);
        let popped = queue.pop().unwrap();
        queue.push(request(2), true, 0);
        queue.push(request(3), false, 5 * PATIENCE_MS);
        queue.put_back(popped);
        assert_eq!(number(queue.pop()), Some(1));
    }

    #[test]
    fn each_ends_at_its_deadline_wherever_it_waits() {
        let mut queue = Queue::default();
        queue.push(request(1), true, 0);
        queue.push(request(2), false, 0);
        queue.push(request(3), false, 0);
        queue.expire(10_002);
        assert_eq!((queue.len(), number(queue.pop())), (1, Some(3)));
    }
}
