//! The kinds of runs: which faults come when, and what must be true at the end besides the invariants.

use crate::cluster::{Cluster, NODES, SECOND};
use crate::faults;
use crate::net::Weather;

fn calm(_: &mut crate::random::Random) -> Weather {
    Weather::FAIR
}

/// A majority is up and can talk: a leader serves within this time, and clients' entries are committed.
fn must_serve(cluster: &mut Cluster, within_us: u64) {
    let before = cluster.invariants.committed.acknowledged;
    let commits = cluster.run_until(within_us, |cluster| {
        cluster.invariants.committed.acknowledged > before + 3
    });
    assert!(commits, "nobody commits anything {within_us} µs after the last fault");
}

/// Elections that split their vote a few times; a fresh start waits one timeout before it votes.
fn few_elections_us(cluster: &Cluster) -> u64 {
    8 * cluster.timers.election_us() + 2 * SECOND
}

fn everything_back(cluster: &mut Cluster) {
    cluster.heal();
    NODES.into_iter().for_each(|id| cluster.start(id));
    cluster.run_until(4 * SECOND, Cluster::is_thawed);
}

/// Who gives the leadership away ends its lease early, and its agent may not have heard of it. After a crash the lease has run out.
pub(crate) fn an_address_whose_lease_ended_early(seed: u64) {
    const AFTER_LEASE_MS: u64 = 750;
    let mut cluster = Cluster::new(seed, calm);
    let wait_ms = |cluster: &Cluster, id: u64| {
        let core = &cluster.nodes[id as usize - 1].running.as_ref()?.core;
        Some((core.term(), core.address_wait_ms(AFTER_LEASE_MS)))
    };
    assert!(cluster.run_until(10 * SECOND, |cluster| cluster.serving().is_some()));
    let first = cluster.serving().expect("seen just now");
    let (term, waits) = wait_ms(&cluster, first).expect("it runs");
    assert_eq!(waits, AFTER_LEASE_MS);
    cluster.run_for(3 * SECOND);
    cluster.transfer();
    let other = |cluster: &Cluster, former: u64| cluster.serving().filter(|id| *id != former);
    assert!(cluster.run_until(10 * SECOND, |cluster| other(cluster, first).is_some()));
    let second = cluster.serving().expect("seen just now");
    let waits = wait_ms(&cluster, second).expect("it runs");
    assert_eq!(waits, (term + 1, cluster.timers.lease_ms() + AFTER_LEASE_MS));
    cluster.crash(second);
    assert!(cluster.run_until(20 * SECOND, |cluster| other(cluster, second).is_some()));
    let third = cluster.serving().expect("seen just now");
    assert_eq!(wait_ms(&cluster, third).expect("it runs").1, AFTER_LEASE_MS);
}

/// A role may end while its node goes on leading: the next role waits for what the former one has sequenced.
pub(crate) fn a_role_that_begins_again_in_its_term(seed: u64) {
    let mut cluster = Cluster::new(seed, calm);
    let behind = |cluster: &Cluster| {
        let id = cluster.serving()?;
        let core = &cluster.nodes[id as usize - 1].running.as_ref()?.core;
        (core.last() > core.applied).then_some((id, core.last()))
    };
    assert!(cluster.run_until(10 * SECOND, |cluster| behind(cluster).is_some()));
    let (id, last) = behind(&cluster).expect("seen just now");
    let core = &mut cluster.node(id).running.as_mut().expect("serves").core;
    core.role_ended();
    assert!(
        !core.has_applied_own_term(),
        "would plan on a state without entry {last}"
    );
    assert!(cluster.run_until(5 * SECOND, |cluster| cluster.serving().is_some()));
    let core = &cluster.node(id).running.as_ref().expect("serves").core;
    assert!(core.applied >= last);
}

pub(crate) fn all_kinds_of_faults(seed: u64) {
    let mut cluster = Cluster::new(seed, Weather::drawn);
    for _ in 0..40 {
        let calm_us = [50_000, 500_000, 2 * SECOND][cluster.random.between(0, 3) as usize];
        let us = cluster.random.between(1000, calm_us);
        cluster.run_for(us);
        faults::strike(&mut cluster);
    }
    everything_back(&mut cluster);
    let within = few_elections_us(&cluster);
    must_serve(&mut cluster, within);
    let cured = cluster.run_until(5 * SECOND, Cluster::is_recovered);
    assert!(cured, "a node stays behind, or forgetful");
}

pub(crate) fn a_shaky_network(seed: u64) {
    let mut cluster = Cluster::new(seed, Weather::drawn);
    for _ in 0..60 {
        let us = cluster.random.between(1000, SECOND);
        cluster.run_for(us);
        faults::strike_network(&mut cluster);
    }
    everything_back(&mut cluster);
    let within = few_elections_us(&cluster);
    must_serve(&mut cluster, within);
    assert_eq!(cluster.invariants.received.lost, 0, "no node has failed");
}

/// Each failure comes when all nodes that are up have all that the leader has. Nothing received is ever lost.
pub(crate) fn one_failure_at_a_time(seed: u64) {
    let mut cluster = Cluster::new(seed, calm);
    for _ in 0..8 {
        let patience = few_elections_us(&cluster);
        assert!(
            cluster.run_until(patience, Cluster::is_recovered),
            "no recovery from one failure"
        );
        let us = cluster.random.between(1000, SECOND);
        cluster.run_for(us);
        let failing = match cluster.serving() {
            Some(id) if cluster.random.chance(500) => id,
            _ => cluster.random.between(1, 4),
        };
        if cluster.random.chance(300) {
            faults::cut_off(&mut cluster, failing);
        } else {
            cluster.crash(failing);
        }
        let us = cluster.random.between(10_000, 4 * SECOND);
        cluster.run_for(us);
        if cluster.random.chance(800) {
            let patience = few_elections_us(&cluster);
            must_serve(&mut cluster, patience);
        }
        everything_back(&mut cluster);
    }
    assert_eq!(cluster.invariants.received.lost, 0, "one failure at a time");
}

/// Gives the active node, which still has all, and the standby, which has forgotten some of it.
fn crash_of_one_of_two_that_hold_the_newest(cluster: &mut Cluster) -> (u64, u64) {
    let patience = few_elections_us(cluster) + cluster.timers.forgetful_wait_ms * 1000;
    assert!(cluster.run_until(patience, Cluster::is_recovered), "no recovery");
    let active = cluster.serving().expect("is_recovered says so");
    let standby = active % 3 + 1;
    // The other standby hears nothing for a while.
    faults::cut_off(cluster, 6 - active - standby);
    let held = cluster.random.between(10_000, SECOND);
    cluster.hold_syncs(standby, held);
    let us = cluster.random.between(10_000, cluster.timers.election_us());
    cluster.run_for(us);
    cluster.crash(standby);
    (active, standby)
}

/// The standby's failure is no danger by itself; but what it forgot must not be outvoted when the active one goes
/// before the standby has caught up.
pub(crate) fn a_forgetful_standby_and_then_the_active_one(seed: u64) {
    let mut cluster = Cluster::new(seed, calm);
    for _ in 0..6 {
        let (active, standby) = crash_of_one_of_two_that_hold_the_newest(&mut cluster);
        cluster.run_for(5000);
        cluster.net.heal();
        cluster.start(standby);
        let us = cluster.random.between(1000, 2 * SECOND);
        cluster.run_for(us);
        faults::cut_off(&mut cluster, active);
        let us = cluster.random.between(SECOND, cluster.timers.forgetful_wait_ms * 900);
        cluster.run_for(us);
        everything_back(&mut cluster);
    }
    assert_eq!(cluster.invariants.received.lost, 0, "one node always had them");
}

/// What a standby forgot isn't there either after it was started and stopped in order: only the active one, which is cut off, has it.
pub(crate) fn a_forgetful_node_that_stops_in_order(seed: u64) {
    let mut cluster = Cluster::new(seed, calm);
    for _ in 0..6 {
        let (active, standby) = crash_of_one_of_two_that_hold_the_newest(&mut cluster);
        cluster.net.heal();
        faults::cut_off(&mut cluster, active);
        for _ in 0..2 {
            cluster.start(standby);
            let us = cluster.random.between(1000, SECOND);
            cluster.run_for(us);
            cluster.stop(standby);
        }
        cluster.start(standby);
        let us = cluster.random.between(SECOND, cluster.timers.forgetful_wait_ms * 900);
        cluster.run_for(us);
        everything_back(&mut cluster);
    }
    assert_eq!(cluster.invariants.received.lost, 0, "one node always had them");
}

/// A standby's disk loses synced entries at its crash. The two others still have them, so it gets them again.
pub(crate) fn a_standby_that_lost_its_synced_tail(seed: u64) {
    let mut cluster = Cluster::new(seed, calm);
    for _ in 0..6 {
        let patience = few_elections_us(&cluster);
        assert!(cluster.run_until(patience, Cluster::is_recovered), "no recovery");
        let us = cluster.random.between(1000, SECOND);
        cluster.run_for(us);
        assert!(cluster.run_until(patience, Cluster::is_recovered), "no recovery");
        let active = cluster.serving().expect("is_recovered says so");
        let standby = [active % 3 + 1, (active + 1) % 3 + 1][cluster.random.between(0, 2) as usize];
        cluster.crash(standby);
        let node = &cluster.nodes[standby as usize - 1];
        let (applied, last) = (node.applied, node.disk.last());
        let kept = cluster.random.between(applied.saturating_sub(3), last + 1);
        cluster.node(standby).lose_behind(kept);
        let us = cluster.random.between(1000, SECOND);
        cluster.run_for(us);
        cluster.start(standby);
    }
    assert!(
        cluster.run_until(5 * SECOND, Cluster::is_recovered),
        "the lost tail doesn't come back"
    );
}

/// A node comes back with a new disk and a copy, under its old number; and before it has caught up another one fails, or a
/// link. What was committed is never outvoted, nor what one of the others still has.
pub(crate) fn a_new_disk(seed: u64) {
    let mut cluster = Cluster::new(seed, calm);
    for _ in 0..6 {
        let patience = few_elections_us(&cluster) + cluster.timers.forgetful_wait_ms * 1000;
        assert!(cluster.run_until(patience, Cluster::is_recovered), "no recovery");
        let struck = cluster.random.between(1, 4);
        // Sometimes only two hold the newest entries, and one of them is struck.
        let late = [struck % 3 + 1, (struck + 1) % 3 + 1][cluster.random.between(0, 2) as usize];
        match cluster.random.between(0, 3) {
            0 => faults::cut_off(&mut cluster, late),
            1 => cluster.hold_syncs(late, 4 * SECOND),
            _ => {}
        }
        let us = cluster.random.between(1000, SECOND);
        cluster.run_for(us);
        cluster.lose_disk(struck);
        cluster.heal();
        while !cluster.copy_to(struck, patience) {}
        // Its copy is whole, and the worst comes before it has the rest.
        let other = 6 - struck - late;
        match cluster.random.between(0, 6) {
            0 => cluster.crash(other),
            // What the late one hasn't synced is gone, and the one that has all is silent.
            5 => {
                cluster.crash(late);
                faults::cut_off(&mut cluster, other);
                cluster.start(late);
            }
            1 => faults::cut_off(&mut cluster, other),
            2 => cluster.hold_syncs(struck, SECOND),
            3 => cluster.transfer(),
            _ => {}
        }
        cluster.start(struck);
        let us = cluster.random.between(1000, 20 * SECOND);
        cluster.run_for(us);
        if cluster.random.chance(300) {
            cluster.crash(struck);
        }
        everything_back(&mut cluster);
    }
    let within = few_elections_us(&cluster) + cluster.timers.forgetful_wait_ms * 1000;
    must_serve(&mut cluster, within);
    assert!(
        cluster.run_until(5 * SECOND, Cluster::is_recovered),
        "the node with the new disk stays behind, or forgetful"
    );
}

pub(crate) fn one_node_gone_for_good(seed: u64) {
    let mut cluster = Cluster::new(seed, Weather::drawn);
    let gone = cluster.random.between(1, 4);
    for round in 0..20 {
        let us = cluster.random.between(1000, SECOND);
        cluster.run_for(us);
        if round == 10 {
            cluster.crash(gone);
            cluster.node(gone).gone_for_good = true;
        }
        faults::strike(&mut cluster);
    }
    everything_back(&mut cluster);
    let within = few_elections_us(&cluster) + cluster.timers.forgetful_wait_ms * 1000;
    must_serve(&mut cluster, within);
}

/// A running cluster with entries that not all nodes have synced.
fn busy(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, calm);
    let within = few_elections_us(&cluster);
    must_serve(&mut cluster, within);
    for id in NODES {
        let us = cluster.random.between(1, SECOND / 2);
        cluster.hold_syncs(id, us);
    }
    let us = cluster.random.between(1, SECOND);
    cluster.run_for(us);
    cluster
}

pub(crate) fn all_three_lose_power(seed: u64) {
    let mut cluster = busy(seed);
    NODES.into_iter().for_each(|id| cluster.crash(id));
    let end = |cluster: &Cluster, id: u64| {
        let entries = cluster.nodes[id as usize - 1].disk.entries();
        entries.last().map(|entry| (entry.term.0, entry.index.0))
    };
    let longest = NODES.into_iter().filter_map(|id| end(&cluster, id)).max();
    let late = cluster.random.between(1, cluster.timers.forgetful_wait_ms * 500);
    cluster.heal();
    cluster.start(1);
    cluster.start(2);
    cluster.run_for(late);
    assert_eq!(cluster.serving(), None, "two forgetful nodes didn't wait for the third");
    cluster.start(3);
    let elected = |cluster: &Cluster| {
        cluster
            .nodes
            .iter()
            .any(|node| node.running.as_ref().is_some_and(|running| running.core.is_leader()))
    };
    let within = few_elections_us(&cluster);
    assert!(
        cluster.run_until(within, elected),
        "all three are back and elect nobody"
    );
    let (term, index) = longest.expect("it committed before");
    let leader = cluster
        .nodes
        .iter()
        .find(|node| node.running.as_ref().is_some_and(|running| running.core.is_leader()));
    assert!(
        leader.is_some_and(|node| node.holds(index, term)),
        "the longest log didn't win"
    );
    must_serve(&mut cluster, within);
    assert!(
        cluster.run_until(5 * SECOND, Cluster::is_recovered),
        "a node stays behind, or forgetful"
    );
}

pub(crate) fn only_two_come_back(seed: u64) {
    let mut cluster = busy(seed);
    NODES.into_iter().for_each(|id| cluster.crash(id));
    cluster.heal();
    let gone = cluster.random.between(1, 4);
    cluster.node(gone).gone_for_good = true;
    NODES.into_iter().for_each(|id| cluster.start(id));
    // The slowest clock of the configured drift waits a little less in true time.
    let wait_us = cluster.timers.forgetful_wait_ms * (1000 - cluster.timers.drift_permille);
    let early = cluster.run_until(wait_us, |cluster| cluster.serving().is_some());
    assert!(!early, "two forgetful nodes elected without waiting for the third");
    let within = few_elections_us(&cluster);
    must_serve(&mut cluster, within);
    let said = |node: &crate::node::Node| {
        node.running
            .as_ref()
            .is_some_and(|running| running.core.durable_alone_ms().is_some())
    };
    assert!(
        cluster.nodes.iter().any(said),
        "nobody says that the durable logs alone decided"
    );
}
