//! Nothing that was committed, and nothing that was acknowledged as committed, is ever lost or changed.

use crate::node::{Node, Waiting};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct CommittedStays {
    /// Index to its term, and the term of the node that first knew it to be committed.
    terms: BTreeMap<u64, (u64, u64)>,
    /// How many entries clients were told are committed.
    pub(crate) acknowledged: u64,
}

impl CommittedStays {
    pub(crate) fn acknowledged(&mut self, waiting: &Waiting) {
        self.commits(waiting.index, waiting.term, waiting.term);
        self.acknowledged += 1;
    }

    pub(crate) fn commits(&mut self, index: u64, term: u64, known_in: u64) {
        let (known, _) = *self.terms.entry(index).or_insert((term, known_in));
        assert_eq!(
            known, term,
            "entry {index} was committed with term {known}, now with {term}"
        );
    }

    /// A new leader has them all, those of later terms excepted: votes that come late still make a leader of the past.
    pub(crate) fn elected(&self, node: &Node) {
        let elected_in = node.running.as_ref().map_or(0, |running| running.core.term());
        for (index, (term, known_in)) in &self.terms {
            assert!(
                *known_in >= elected_in || node.holds(*index, *term),
                "leader {} lacks the committed entry {index} of term {term}",
                node.id
            );
        }
    }
}
