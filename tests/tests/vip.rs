//! The address goes by itself when its agent can't renew it, and takes none of the node's own routes with it.

mod common;

use std::fs;

use common::{PATIENCE, holds_vip, lab, ready, seconds};
use holdfast_tests::clock::{now, wait_for};
use holdfast_tests::lab::{Lab, LabOptions, Node};
use rustix::process::Signal;

/// The main table and the addresses that don't expire, as `ip` shows them, without what belongs to the VIP.
fn own_network(lab: &Lab, node: &Node) -> Vec<String> {
    let show = |words: &[&str]| {
        let output = lab.exec(node.name(), words).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = show(&["ip", "-4", "route", "show", "table", "main"]) + &show(&["ip", "-o", "-4", "addr", "show"]);
    let vip = lab.vip().to_string();
    shown
        .lines()
        .filter(|line| !line.contains(&vip))
        .map(|line| line.trim().to_owned())
        .collect()
}

fn wait_held(lab: &Lab, node: &Node) {
    let held = wait_for("the address on the active node", PATIENCE, || {
        Ok(holds_vip(lab, node.name()).then_some(()))
    });
    held.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
}

/// Gives each node a second interface for the address alone, whose other end is in the same machine, and starts all anew with that.
fn with_an_interface_for_the_address(lab: &Lab) {
    for node in lab.nodes() {
        node.kill().unwrap();
        let add = ["ip", "link", "add", "pbx0", "type", "veth", "peer", "name", "far0"];
        for words in [
            &add[..],
            &["ip", "link", "set", "pbx0", "up"],
            &["ip", "link", "set", "far0", "up"],
        ] {
            let done = lab.exec(node.name(), words).unwrap();
            assert!(done.status.success(), "{done:?}");
        }
        let file = node.dir().join("holdfast.toml");
        let mut text: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        let vip = text["vip"].as_table_mut().unwrap();
        vip.insert("interface".into(), "pbx0".into());
        fs::write(file, text.to_string()).unwrap();
    }
    for node in lab.nodes() {
        node.start().unwrap();
    }
}

/// The nodes still reach each other: only who calls the PBX doesn't.
#[test]
fn status_says_that_the_interface_for_the_address_has_lost_its_link() {
    let lab = lab(LabOptions::default());
    ready(&lab);
    with_an_interface_for_the_address(&lab);
    let active = ready(&lab);
    wait_held(&lab, &active);
    let says = |wanted: bool| {
        wait_for("what status says", PATIENCE, || {
            let status = lab.exec(active.name(), &["holdfast", "status"])?;
            let text = String::from_utf8_lossy(&status.stdout).into_owned();
            let said = text.contains("interface pbx0, on which the virtual address belongs, has no link");
            Ok((said == wanted).then_some(()))
        })
        .unwrap();
    };
    for (state, said) in [("down", true), ("up", false)] {
        let done = lab.exec(active.name(), &["ip", "link", "set", "far0", state]).unwrap();
        assert!(done.status.success(), "{done:?}");
        says(said);
    }
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), active.name());
    assert!(holds_vip(&lab, active.name()));
}

fn expires_and_leaves_the_routes(signal: Signal) {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    wait_held(&lab, &active);
    let before = own_network(&lab, &active);
    assert!(before.iter().any(|line| line.starts_with("default via")), "{before:?}");
    active.signal_daemon("vip-agent", signal).unwrap();
    let since = now();
    wait_for("the address to expire", seconds(20), || {
        Ok((!holds_vip(&lab, active.name())).then_some(()))
    })
    .unwrap();
    assert!(
        since.elapsed() < seconds(4),
        "the address outlived its agent by {:?}",
        since.elapsed()
    );
    assert_eq!(
        own_network(&lab, &active),
        before,
        "the node's own routes and addresses"
    );
    // What the node sends by itself must not carry an address that is gone, or another node's.
    let gateway = lab.id().address("switch").to_string();
    let ping = lab
        .exec(active.name(), &["ping", "-c", "3", "-i", "0.3", "-W", "1", &gateway])
        .unwrap();
    assert!(
        ping.status.success(),
        "the node can't reach its gateway:\n{}{}",
        String::from_utf8_lossy(&ping.stdout),
        String::from_utf8_lossy(
            &lab.exec(active.name(), &["ip", "-4", "route", "show", "table", "all"])
                .unwrap()
                .stdout
        )
    );
    match signal {
        Signal::STOP => active.signal_daemon("vip-agent", Signal::CONT).unwrap(),
        _ => drop(active.start().unwrap()),
    }
    let owner = wait_for("someone with the address", PATIENCE, || {
        Ok(lab.nodes().iter().find(|node| holds_vip(&lab, node.name())))
    });
    let owner = owner.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    let ping = lab
        .client(&["ping", "-q", "-c", "3", "-W", "1", &lab.vip().to_string()])
        .unwrap();
    assert!(ping.status.success(), "the address doesn't answer on {}", owner.name());
    lab.wait_ready(PATIENCE).unwrap();
    assert_eq!(
        own_network(&lab, &active),
        before,
        "the node's own routes and addresses at the end"
    );
}

#[test]
fn an_agent_that_is_killed_loses_the_address_and_nothing_else() {
    expires_and_leaves_the_routes(Signal::KILL);
}

#[test]
fn an_agent_that_hangs_loses_the_address_and_nothing_else() {
    expires_and_leaves_the_routes(Signal::STOP);
}

/// A kernel looks for addresses that have run out when it likes: here it doesn't for as long as the test wants.
#[test]
fn an_address_that_outlives_its_time_is_waited_for() {
    let lab = lab(LabOptions::default());
    let former = ready(&lab);
    wait_held(&lab, &former);
    let vip = format!("{}/24", lab.vip());
    former.signal_daemon("vip-agent", Signal::STOP).unwrap();
    former.signal_daemon("holdfast", Signal::STOP).unwrap();
    let forever = ["valid_lft", "forever", "preferred_lft", "forever"];
    let kept = lab.exec(
        former.name(),
        &[&["ip", "addr", "change", &vip, "dev", "eth0"][..], &forever].concat(),
    );
    assert!(kept.unwrap().status.success());
    let others = lab.others(former.name());
    wait_for("a new owner that asks first", PATIENCE, || {
        assert!(
            !others.iter().any(|node| holds_vip(&lab, node.name())),
            "two nodes have the address"
        );
        let said = |node: &&&Node| node.log_tails(20).contains("answers for the virtual address");
        Ok(others.iter().find(said).map(|_| ()))
    })
    .unwrap();
    let gone = lab.exec(former.name(), &["ip", "addr", "del", &vip, "dev", "eth0"]);
    assert!(gone.unwrap().status.success());
    wait_for("the address on the new active node", PATIENCE, || {
        Ok(others.iter().any(|node| holds_vip(&lab, node.name())).then_some(()))
    })
    .unwrap();
    former.signal_daemon("holdfast", Signal::CONT).unwrap();
    former.signal_daemon("vip-agent", Signal::CONT).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert!(!holds_vip(&lab, former.name()));
}

#[test]
fn a_daemon_that_hangs_loses_the_address() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    wait_held(&lab, &active);
    let before = own_network(&lab, &active);
    active.signal_daemon("holdfast", Signal::STOP).unwrap();
    let since = now();
    wait_for("the address to go", seconds(20), || {
        Ok((!holds_vip(&lab, active.name())).then_some(()))
    })
    .unwrap();
    assert!(
        since.elapsed() < seconds(6),
        "the address outlived its daemon by {:?}",
        since.elapsed()
    );
    assert_eq!(own_network(&lab, &active), before);
    let next = lab.wait_active_other_than(active.name(), PATIENCE).unwrap();
    wait_held(&lab, lab.node(&next));
    active.signal_daemon("holdfast", Signal::CONT).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert!(!holds_vip(&lab, active.name()));
}
