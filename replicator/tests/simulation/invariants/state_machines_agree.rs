//! All nodes apply the same entries in the same order, each only when its own disk has it.

use crate::node::Node;
use holdfast_storage::apply::Committed;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct StateMachinesAgree(BTreeMap<u64, (u64, Vec<u8>)>);

impl StateMachinesAgree {
    pub(crate) fn applies(&mut self, node: &mut Node, entries: &[Committed]) {
        let stable = node.disk.last();
        let Some(running) = &mut node.running else { return };
        for entry in entries {
            let index = entry.index.0;
            assert_eq!(index, running.handed + 1, "node {} applies out of order", node.id);
            assert!(
                index <= stable,
                "node {} applies {index}, which its own disk doesn't have",
                node.id
            );
            running.handed = index;
            let this = (entry.term.0, entry.data.to_vec());
            let known = self.0.entry(index).or_insert_with(|| this.clone());
            assert_eq!(*known, this, "node {} applies another entry {index}", node.id);
        }
    }
}
