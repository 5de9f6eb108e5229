//! What fate does to a cluster.

use crate::cluster::{Cluster, NODES, SECOND};
use crate::net::Weather;

/// One more fault, or the end of some, at random.
pub(crate) fn strike(cluster: &mut Cluster) {
    let id = cluster.random.between(1, 4);
    match cluster.random.between(0, 16) {
        0..=2 => cluster.crash(id),
        3 => cluster.stop(id),
        4..=6 => NODES.into_iter().for_each(|id| cluster.start(id)),
        7 => cut_off(cluster, id),
        8 => cut_one_way(cluster),
        9 => cut_pair(cluster),
        10 => cluster.net.heal(),
        11 => {
            let us = cluster.random.between(10_000, 3 * SECOND);
            cluster.freeze(id, us);
        }
        12 => {
            let us = cluster.random.between(10_000, 3 * SECOND);
            cluster.hold_syncs(id, us);
        }
        13 => cluster.transfer(),
        14 => cluster.net.weather = Weather::drawn(&mut cluster.random),
        // The failure that hurts most: of the node that serves.
        _ => {
            if let Some(id) = cluster.serving() {
                cluster.crash(id);
            }
        }
    }
}

/// Without a machine being restarted: what a shaky network does.
pub(crate) fn strike_network(cluster: &mut Cluster) {
    let id = cluster.random.between(1, 4);
    match cluster.random.between(0, 6) {
        0 => cut_off(cluster, id),
        1 => cut_one_way(cluster),
        2 => cut_pair(cluster),
        3 => cluster.net.heal(),
        4 => {
            let us = cluster.random.between(10_000, 3 * SECOND);
            cluster.freeze(id, us);
        }
        _ => cluster.transfer(),
    }
}

/// All links of a node, both ways.
pub(crate) fn cut_off(cluster: &mut Cluster, id: u64) {
    for peer in NODES {
        cluster.net.cut(id, peer);
        cluster.net.cut(peer, id);
    }
}

fn cut_one_way(cluster: &mut Cluster) {
    let (from, to) = (cluster.random.between(1, 4), cluster.random.between(1, 4));
    cluster.net.cut(from, to);
}

fn cut_pair(cluster: &mut Cluster) {
    let (one, two) = (cluster.random.between(1, 4), cluster.random.between(1, 4));
    cluster.net.cut(one, two);
    cluster.net.cut(two, one);
}
