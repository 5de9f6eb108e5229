//! What was acknowledged as received is in every later leader's log as long as one node still has it, unless the
//! durable logs alone decided after the configured wait. With one failure at a time one node always has it.

use crate::node::{Node, Waiting};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct ReceivedStays {
    /// Index to term.
    terms: BTreeMap<u64, u64>,
    /// Acknowledged, and then lost with all nodes that held it.
    pub(crate) lost: u64,
    /// Acknowledged in all.
    pub(crate) acknowledged: u64,
    /// A forgetful node stopped waiting for the third; an election without it may follow.
    durable_alone: bool,
}

impl ReceivedStays {
    pub(crate) fn acknowledged(&mut self, waiting: &Waiting) {
        self.terms.insert(waiting.index, waiting.term);
        self.acknowledged += 1;
    }

    pub(crate) fn look(&mut self, nodes: &[Node]) {
        let alone = |node: &Node| {
            node.running
                .as_ref()
                .is_some_and(|running| running.core.is_forgetful() && running.core.durable_alone_ms().is_some())
        };
        self.durable_alone |= nodes.iter().any(alone);
    }

    pub(crate) fn elected(&mut self, node: &Node, now_us: u64) {
        let elected_in = node.running.as_ref().map_or(0, |running| running.core.term());
        for (index, term) in std::mem::take(&mut self.terms) {
            // Votes that come late still make a leader of the past.
            if term >= elected_in || node.holds(index, term) {
                self.terms.insert(index, term);
            } else if self.durable_alone {
                self.lost += 1;
            } else {
                panic!(
                    "at {now_us} µs leader {} lacks entry {index} of term {term}, acknowledged as received",
                    node.id
                );
            }
        }
        self.durable_alone = false;
    }

    pub(crate) fn ended(&mut self, nodes: &[Node]) {
        let before = self.terms.len();
        self.terms
            .retain(|index, term| nodes.iter().any(|node| node.holds(*index, *term)));
        self.lost += (before - self.terms.len()) as u64;
    }
}
