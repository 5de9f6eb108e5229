//! The nodes' logs agree up to what each of them knows to be committed.

use super::committed_stays::CommittedStays;
use crate::node::Node;

pub(crate) fn check(committed: &mut CommittedStays, node: &mut Node) {
    let Some(running) = &mut node.running else { return };
    for index in running.committed + 1..=running.core.committed() {
        let term = running.log.get(index as usize - 1).map(|entry| entry.term.0);
        let term = term.unwrap_or_else(|| panic!("node {} lacks entry {index}, which it calls committed", node.id));
        committed.commits(index, term, running.core.term());
    }
    running.committed = running.core.committed();
}
