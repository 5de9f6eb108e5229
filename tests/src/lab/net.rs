//! The lab's network: four machines on one switch, each a network namespace; cutting and healing it.
//!
//! What is cut is silent: frames vanish, nobody is told. The switch has its own namespace, so that cuts are made on
//! its side of the cables and no machine can notice them except by silence.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::names::{INTERFACE, LabId, PREFIX, machines, port};
use super::netns::Netns;
use crate::process::{run_ok, run_with_input};

const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const BRIDGE: &str = "br0";

fn ip(words: &str) -> Result<()> {
    run_ok(Command::new("ip").args(words.split_whitespace()), COMMAND_LIMIT).map(drop)
}

/// Makes all namespaces, the bridge and the cables. Names follow from the id, so that a crash halfway leaves nothing
/// that `remove` wouldn't find.
pub fn make(id: &LabId) -> Result<()> {
    let switch = id.namespace("switch");
    ip(&format!("netns add {switch}"))?;
    ip(&format!("-n {switch} link add {BRIDGE} type bridge forward_delay 0"))?;
    ip(&format!(
        "-n {switch} addr add {}/{PREFIX} dev {BRIDGE}",
        id.address("switch")
    ))?;
    ip(&format!("-n {switch} link set {BRIDGE} up"))?;
    for machine in machines() {
        plug_in(id, machine).with_context(|| format!("making the network of {machine}"))?;
    }
    Ok(())
}

fn plug_in(id: &LabId, machine: &str) -> Result<()> {
    let (switch, namespace, port) = (id.namespace("switch"), id.namespace(machine), port(machine));
    ip(&format!("netns add {namespace}"))?;
    // Both ends are born in their namespaces: the host's own network never sees an interface of a lab.
    ip(&format!(
        "link add {INTERFACE} netns {namespace} type veth peer name {port} netns {switch}"
    ))?;
    ip(&format!(
        "-n {namespace} link set {INTERFACE} address {} up",
        id.hardware_text(machine)
    ))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    ip(&format!(
        "-n {namespace} addr add {}/{PREFIX} dev {INTERFACE}",
        id.address(machine)
    ))?;
    ip(&format!("-n {switch} link set {port} master {BRIDGE} up"))?;
    ip(&format!(
        "-n {namespace} route add default via {}",
        id.address("switch")
    ))
}

/// Deletes the lab's namespaces; bridge and cables go with them.
pub fn remove(id: &LabId) -> Result<()> {
    for name in id.namespaces() {
        if Netns::named(&name).exists() {
            ip(&format!("netns del {name}"))?;
        }
    }
    Ok(())
}

/// Takes a machine's cable out of the switch.
pub fn cut(id: &LabId, machine: &str) -> Result<()> {
    ip(&format!(
        "-n {} link set {} down",
        id.namespace("switch"),
        port(machine)
    ))
}

/// What a machine sends leaves it at this rate from here on, as long as its network lives.
pub fn slow_down(id: &LabId, machine: &str, mbit: u32) -> Result<()> {
    let mut shape = Command::new("tc");
    shape.args(["qdisc", "replace", "dev", INTERFACE, "root", "tbf", "rate"]);
    shape.args([&format!("{mbit}mbit"), "burst", "128kb", "latency", "200ms"]);
    Netns::named(id.namespace(machine)).enter(&mut shape)?;
    run_ok(&mut shape, COMMAND_LIMIT).context("this kernel can't shape what is sent (needs CONFIG_NET_SCH_TBF)")?;
    Ok(())
}

/// Takes several machines' cables out in one step.
pub fn cut_together(id: &LabId, machines: &[String]) -> Result<()> {
    let lines: String = machines
        .iter()
        .map(|machine| format!("link set {} down\n", port(machine)))
        .collect();
    let mut batch = Command::new("ip");
    batch.args(["-n", &id.namespace("switch"), "-batch", "-"]);
    let output = run_with_input(&mut batch, lines.as_bytes(), COMMAND_LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cutting {machines:?} off: {}", said.trim());
    Ok(())
}

/// A machine boots, as far as the network goes: with nothing of the connections and addresses that it had. A killed process's
/// connections would else go on for a while, and say to the others what it had not got rid of while the cable was out.
pub fn reboot(id: &LabId, machine: &str) -> Result<()> {
    // Both ends of the cable go. The former namespace may live as long as its connections do, connected to nothing.
    ip(&format!("-n {} link del {}", id.namespace("switch"), port(machine)))?;
    ip(&format!("netns del {}", id.namespace(machine)))?;
    plug_in(id, machine)
}

/// The switch drops all frames between the two, in both directions, broadcasts included; all others pass.
pub fn cut_between(id: &LabId, one: &str, other: &str) -> Result<()> {
    ensure!(one != other, "a node can't be cut from itself: {one}:{other}");
    drop_frames(id, one, other)?;
    drop_frames(id, other, one)
}

/// A filter on the port towards `to`. The kernel has to know only classic BPF, no classifier or action module.
fn drop_frames(id: &LabId, from: &str, to: &str) -> Result<()> {
    const SHOT: u32 = 2;
    const PASS: u32 = u32::MAX;
    let (switch, port) = (Netns::named(id.namespace("switch")), port(to));
    let mut hook = Command::new("tc");
    hook.args(["qdisc", "replace", "dev", &port, "clsact"]);
    switch.enter(&mut hook)?;
    run_ok(&mut hook, COMMAND_LIMIT)?;
    let (high, low) = id.hardware(from);
    // Source address of the frame: four bytes at 6, two at 10.
    let program = format!("6,32 0 0 6,21 0 3 {high},40 0 0 10,21 0 1 {low},6 0 0 {SHOT},6 0 0 {PASS}");
    let mut filter = Command::new("tc");
    filter.args([
        "filter", "add", "dev", &port, "egress", "bpf", "da", "bytecode", &program,
    ]);
    switch.enter(&mut filter)?;
    run_ok(&mut filter, COMMAND_LIMIT)
        .context("this kernel can't drop frames between two nodes (needs CONFIG_NET_CLS_BPF)")?;
    Ok(())
}

/// Puts all cables back and removes all filters.
pub fn heal(id: &LabId) -> Result<()> {
    let switch = Netns::named(id.namespace("switch"));
    for machine in machines() {
        let port = port(machine);
        let mut show = Command::new("tc");
        show.args(["qdisc", "show", "dev", &port]);
        switch.enter(&mut show)?;
        if run_ok(&mut show, COMMAND_LIMIT)?.contains("clsact") {
            let mut unhook = Command::new("tc");
            unhook.args(["qdisc", "del", "dev", &port, "clsact"]);
            switch.enter(&mut unhook)?;
            run_ok(&mut unhook, COMMAND_LIMIT)?;
        }
        ip(&format!("-n {} link set {port} up", switch.name()))?;
    }
    Ok(())
}
