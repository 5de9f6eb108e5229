//! A term has at most one leader.

use crate::node::Node;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct OneLeaderATerm(BTreeMap<u64, u64>);

impl OneLeaderATerm {
    /// True: this node was elected just now.
    pub(crate) fn check(&mut self, node: &Node) -> bool {
        let Some(running) = node.running.as_ref().filter(|running| running.core.is_leader()) else {
            return false;
        };
        let term = running.core.term();
        match self.0.insert(term, node.id) {
            None => true,
            Some(before) => {
                assert_eq!(before, node.id, "term {term} has two leaders");
                false
            }
        }
    }
}
