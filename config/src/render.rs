//! Writes a node's configuration as a commented file, for `holdfast init` and for the lab.
//!
//! Every key is written with its value, so that nobody has to guess a default. What comes back from
//! loading it is what went in.

use std::fmt::Write;
use std::path::Path;

use crate::check::to_ms;
use crate::defaults::MIB;
use crate::{ClassRule, Cluster, Config, Health, Scrub, Timers, Tls, Unit, UnitControl, Vip, Watchdog};

/// The text of `config.file`. The TLS files are named relative to its folder where they lie in it.
/// Durations are written in whole milliseconds, `vip.valid` in whole seconds, the log in whole MiB.
pub fn render(config: &Config) -> String {
    let mut out = String::new();
    head(&mut out, config);
    cluster(&mut out, &config.cluster);
    tls(&mut out, &config.tls, config.file.parent().unwrap_or(Path::new("/")));
    places(&mut out, config);
    scrub(&mut out, &config.scrub);
    classes(&mut out, &config.classes);
    timers(&mut out, &config.timers);
    vip(&mut out, config.vip.as_ref());
    watchdog(&mut out, config.watchdog.as_ref());
    units(&mut out, &config.units);
    out
}

macro_rules! line {
    ($out:expr, $($text:tt)*) => {
        writeln!($out, $($text)*).expect("writing to a String can't fail")
    };
}

fn head(out: &mut String, config: &Config) {
    let node = &config.cluster.nodes[config.this].name;
    line!(
        out,
        "# Holdfast: the configuration of node {node}. Read by `holdfast` and by vip-agent."
    );
    line!(
        out,
        "# Check a change with `holdfast config validate FILE`. Addresses and certificates take effect at once, all else at"
    );
    line!(out, "# the next start of the daemon.");
    line!(
        out,
        "# [cluster], [timers] and [vip] must be the same on all three nodes."
    );
    line!(out, "version = 1");
    line!(out, "");
    line!(out, "# This machine: one of the names below.");
    line!(out, "node = {}", quoted(node));
    line!(
        out,
        "# Where the daemon answers vip-agent and `holdfast status` on this machine."
    );
    line!(out, "socket = {}", path(&config.socket));
}

fn cluster(out: &mut String, cluster: &Cluster) {
    line!(out, "");
    line!(out, "[cluster]");
    line!(out, "name = {}", quoted(&cluster.name));
    line!(
        out,
        "# Made once by `holdfast init`; a node with another id is refused."
    );
    line!(out, "id = {}", quoted(&cluster.id));
    line!(
        out,
        "# Counts the changes made by `holdfast node`: nodes that meet go by the highest."
    );
    line!(out, "revision = {}", cluster.revision);
    line!(out, "");
    line!(
        out,
        "# Exactly three, in the same order everywhere. The address is the machine's static one, never the VIP."
    );
    for node in &cluster.nodes {
        line!(out, "[[cluster.nodes]]");
        line!(out, "name = {}", quoted(&node.name));
        line!(out, "address = {}", quoted(&node.address.to_string()));
        line!(out, "replication_port = {}", node.replication_port);
        line!(out, "control_port = {}", node.control_port);
        if node.removed {
            line!(out, "removed = true");
        }
        line!(out, "");
    }
}

fn tls(out: &mut String, tls: &Tls, folder: &Path) {
    let near = |file: &Path| path(file.strip_prefix(folder).unwrap_or(file));
    line!(
        out,
        "# Nodes speak mutual TLS only. Paths may be relative to this file; the key must have mode 0600."
    );
    line!(out, "[tls]");
    line!(out, "ca = {}", near(&tls.ca));
    line!(out, "cert = {}", near(&tls.cert));
    line!(out, "key = {}", near(&tls.key));
}

fn places(out: &mut String, config: &Config) {
    line!(out, "");
    line!(out, "# This node's replica.");
    line!(out, "[store]");
    line!(out, "path = {}", path(&config.store.path));
    line!(
        out,
        "# The replicated log, preallocated: how far a node may fall behind and still catch up from it."
    );
    line!(
        out,
        "# As much again is kept free for recovery. A larger number later makes it longer at the next start."
    );
    line!(out, "log_mib = {}", config.store.log_bytes / MIB);
    line!(out, "");
    line!(out, "# Where the PBX finds its files.");
    line!(out, "[mount]");
    line!(out, "path = {}", path(&config.mount.path));
    line!(
        out,
        "# A request that can't be carried out by then fails with EIO. Longer than grace_ms."
    );
    line!(out, "request_deadline_ms = {}", to_ms(config.mount.request_deadline));
}

fn scrub(out: &mut String, scrub: &Scrub) {
    line!(out, "");
    line!(
        out,
        "# Everything stored here is read so often, at most so many MiB a second, and what has rotted is mended from a peer."
    );
    line!(out, "[scrub]");
    line!(out, "every_h = {}", scrub.every.as_secs() / 3600);
    line!(out, "mib_s = {}", scrub.rate / MIB);
}

fn classes(out: &mut String, classes: &[ClassRule]) {
    line!(out, "");
    line!(
        out,
        "# Directories below the mount that get a class when they are made; what is made in them inherits it."
    );
    line!(
        out,
        "# What each class means, and what applies where: `holdfast classes`. The same on all three nodes; without, all is default."
    );
    line!(out, "[classes]");
    for rule in classes {
        line!(
            out,
            "{} = {}",
            quoted(&rule.path.to_string_lossy()),
            quoted(&rule.class)
        );
    }
}

fn timers(out: &mut String, timers: &Timers) {
    line!(out, "");
    line!(
        out,
        "# The clock of the election. Shorter finds a dead node sooner, longer forgives a slow network."
    );
    line!(out, "[timers]");
    line!(out, "tick_ms = {}", to_ms(timers.tick));
    line!(out, "heartbeat_ticks = {}", timers.heartbeat_ticks);
    line!(
        out,
        "# A silence of this many ticks, or up to a quarter more, starts an election."
    );
    line!(out, "election_ticks = {}", timers.election_ticks);
    line!(
        out,
        "# How far two machines' clocks may differ in rate, in parts per thousand."
    );
    line!(out, "drift_permille = {}", timers.drift_permille);
    line!(
        out,
        "# An active node that lost the others keeps the PBX running so long, without the address."
    );
    line!(out, "grace_ms = {}", to_ms(timers.grace));
    line!(
        out,
        "# Nodes that crashed wait so long for the third before what is on their disks alone decides."
    );
    line!(out, "forgetful_wait_ms = {}", to_ms(timers.forgetful_wait));
    line!(
        out,
        "# A write that this node's disk hasn't done after so long is reason enough to give the active role away."
    );
    line!(out, "disk_stall_ms = {}", to_ms(timers.disk_stall));
}

fn vip(out: &mut String, vip: Option<&Vip>) {
    line!(out, "");
    line!(out, "# The address that follows the data.");
    let Some(vip) = vip else {
        line!(out, "# [vip]");
        line!(out, "# address = \"10.0.0.130/24\"");
        return;
    };
    line!(out, "[vip]");
    line!(out, "address = {}", quoted(&format!("{}/{}", vip.address, vip.prefix)));
    match &vip.interface {
        Some(interface) => line!(out, "interface = {}", quoted(interface)),
        None => line!(
            out,
            "# interface = \"eth0\"    without it: the one with a static address in the same network"
        ),
    }
    line!(
        out,
        "# The kernel drops the address by itself so long after its last renewal."
    );
    line!(out, "valid_s = {}", vip.valid.as_secs());
    line!(out, "renew_every_ms = {}", to_ms(vip.renew_every));
    line!(
        out,
        "# It is renewed only while so much of the lease is left: what makes two owners impossible."
    );
    line!(out, "renew_min_lease_ms = {}", to_ms(vip.renew_min_lease));
}

fn watchdog(out: &mut String, watchdog: Option<&Watchdog>) {
    line!(out, "");
    line!(
        out,
        "# Resets this machine if the PBX of a lost role can't be killed, or vip-agent is gone for good."
    );
    let Some(watchdog) = watchdog else {
        line!(out, "# [watchdog]");
        line!(out, "# device = \"/dev/watchdog\"");
        return;
    };
    line!(out, "[watchdog]");
    line!(out, "device = {}", path(&watchdog.device));
    line!(out, "timeout_s = {}", watchdog.timeout.as_secs());
}

fn units(out: &mut String, units: &[Unit]) {
    line!(out, "");
    line!(
        out,
        "# The PBX: started in this order on the active node, stopped in the reverse order."
    );
    if units.is_empty() {
        line!(out, "# [[unit]]");
        line!(out, "# name = \"pbx\"");
        line!(
            out,
            "# systemd = \"portsip.service\"    or start, stop, status (and kill) = [\"/path/program\", \"argument\"]"
        );
        line!(
            out,
            "# health_tcp = \"127.0.0.1:5060\"   or health_http = \"http://127.0.0.1:8222/\", or health_command"
        );
    }
    for unit in units {
        line!(out, "[[unit]]");
        line!(out, "name = {}", quoted(&unit.name));
        control(out, &unit.control);
        match &unit.health {
            Some(Health::Command(command)) => line!(out, "health_command = {}", list(command)),
            Some(Health::Tcp(address)) => line!(out, "health_tcp = {}", quoted(&address.to_string())),
            Some(Health::Http(url)) => line!(out, "health_http = {}", quoted(url)),
            None => line!(out, "# no health check: it counts as healthy while it runs"),
        }
        line!(out, "health_every_ms = {}", to_ms(unit.health_every));
        line!(out, "health_failures = {}", unit.health_failures);
        line!(out, "start_timeout_ms = {}", to_ms(unit.start_timeout));
        line!(out, "stop_timeout_ms = {}", to_ms(unit.stop_timeout));
        line!(out, "");
    }
}

fn control(out: &mut String, control: &UnitControl) {
    match control {
        UnitControl::Systemd { unit } => line!(out, "systemd = {}", quoted(unit)),
        UnitControl::Command {
            start,
            stop,
            status,
            kill,
        } => {
            line!(out, "start = {}", list(start));
            line!(out, "stop = {}", list(stop));
            line!(out, "status = {}", list(status));
            if !kill.is_empty() {
                line!(out, "kill = {}", list(kill));
            }
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn list(words: &[String]) -> String {
    toml::Value::from(words.to_vec()).to_string()
}
