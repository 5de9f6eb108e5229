//! At any true time at most one node's lease runs, by that node's own clock.

use crate::node::Node;

pub(crate) fn check(nodes: &[Node], now_us: u64) {
    let mut holders = nodes.iter().filter(|node| node.has_lease(now_us)).map(|node| node.id);
    if let (Some(one), Some(two)) = (holders.next(), holders.next()) {
        panic!("at {now_us} µs both {one} and {two} hold a lease");
    }
}
