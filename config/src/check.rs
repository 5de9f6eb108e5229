//! From the raw file to a `Config`: the parts are checked in the order of the file.
//! The certificate and the key are opened elsewhere (`tls_files`).

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::document::Document;
use crate::error::ConfigError;
use crate::{Cluster, Config, Node, Scrub, Tls, classes, defaults, network, paths, raw, timers, units, vip, watchdog};

pub(crate) fn config(document: &Document) -> Result<Config, ConfigError> {
    let raw = document.parse()?;
    version(document, raw.version)?;
    let cluster = cluster(
        document,
        need(
            document,
            "cluster",
            raw.cluster,
            "a table [cluster] with name, id, nodes",
        )?,
    )?;
    let this = this(document, raw.node, &cluster)?;
    let socket = paths::socket(document, raw.socket)?;
    let tls = tls(
        document,
        need(document, "tls", raw.tls, "a table [tls] with ca, cert, key")?,
    )?;
    let store = paths::store(document, raw.store)?;
    let timers = timers::check(document, &raw.timers)?;
    let mount = paths::mount(document, raw.mount, &timers)?;
    let scrub = scrub(document, &raw.scrub)?;
    let classes = classes::check(document, raw.classes)?;
    let vip = raw
        .vip
        .map(|raw| vip::check(document, raw, &cluster.nodes, &timers))
        .transpose()?;
    let watchdog = raw.watchdog.map(|raw| watchdog::check(document, raw)).transpose()?;
    let units = units::check(document, raw.unit)?;
    let file = document.file.clone();
    let config = Config {
        file,
        cluster,
        this,
        tls,
        store,
        mount,
        scrub,
        classes,
        timers,
        vip,
        watchdog,
        socket,
        units,
    };
    paths::apart(document, &config)?;
    Ok(config)
}

fn scrub(document: &Document, raw: &raw::Scrub) -> Result<Scrub, ConfigError> {
    let default = Scrub::default();
    let number = |key, unit| Number { document, key, unit };
    let every_h = number("scrub.every_h", " hours").within(raw.every_h, default.every.as_secs() / 3600, 1..=720)?;
    let mib_s = number("scrub.mib_s", " MiB a second").within(raw.mib_s, default.rate / defaults::MIB, 1..=10_000)?;
    Ok(Scrub {
        every: Duration::from_secs(every_h * 3600),
        rate: mib_s * defaults::MIB,
    })
}

fn version(document: &Document, version: Option<u64>) -> Result<(), ConfigError> {
    let right = "version = 1 is the format that this holdfast reads";
    match need(document, "version", version, right)? {
        1 => Ok(()),
        other => Err(document.wrong("version", format!("{other} isn't known"), right)),
    }
}

fn cluster(document: &Document, raw: raw::Cluster) -> Result<Cluster, ConfigError> {
    let right = "1 to 64 letters, digits, dots, dashes or underscores";
    let name = need(document, "cluster.name", raw.name, right)?;
    if !is_word(&name, 64, |c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Err(document.wrong("cluster.name", format!("{name:?} is no name of a cluster"), right));
    }
    let right = "the id that `holdfast init` wrote, the same on all three nodes";
    let id = need(document, "cluster.id", raw.id, right)?;
    if !is_word(&id, 64, |c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(document.wrong("cluster.id", format!("{id:?} is no cluster id"), right));
    }
    if raw.nodes.len() != 3 {
        let right = "a cluster has exactly three [[cluster.nodes]], in the same order in every node's file";
        return Err(document.wrong("cluster.nodes", format!("{} nodes are given", raw.nodes.len()), right));
    }
    let mut nodes: Vec<Node> = Vec::new();
    for (index, raw) in raw.nodes.into_iter().enumerate() {
        let node = node(document, index, raw)?;
        distinct(document, index, &node, &nodes)?;
        nodes.push(node);
    }
    let gone = nodes.iter().filter(|node| node.removed).count();
    if gone > 1 {
        let right = "at most one of the three: two are needed for everything";
        return Err(document.wrong("cluster.nodes", format!("{gone} nodes are removed"), right));
    }
    let revision = Number {
        document,
        key: "cluster.revision",
        unit: "",
    };
    Ok(Cluster {
        name,
        id,
        revision: revision.within(raw.revision, 0, 0..=u32::MAX.into())?,
        nodes,
    })
}

fn node(document: &Document, index: usize, raw: raw::Node) -> Result<Node, ConfigError> {
    let key = |name: &str| format!("cluster.nodes[{index}].{name}");
    let right = "1 to 32 lower-case letters, digits or dashes, such as \"n1\"";
    let name = need(document, &key("name"), raw.name, right)?;
    if !is_word(&name, 32, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(document.wrong(&key("name"), format!("{name:?} is no name of a node"), right));
    }
    let right = "the static IP address of the machine, such as \"10.0.0.131\"";
    let text = need(document, &key("address"), raw.address, right)?;
    let address: IpAddr = text
        .parse()
        .map_err(|_| document.wrong(&key("address"), format!("{text:?} is no IP address"), right))?;
    if !network::can_be_bound(address) {
        return Err(document.wrong(
            &key("address"),
            format!("{address} isn't the address of one machine"),
            right,
        ));
    }
    let ports = 1..=u64::from(u16::MAX);
    let replication_port = u16::try_from(
        Number {
            document,
            key: &key("replication_port"),
            unit: "",
        }
        .within(raw.replication_port, defaults::REPLICATION_PORT.into(), ports.clone())?,
    )
    .expect("within the range of ports");
    let control_port = u16::try_from(
        Number {
            document,
            key: &key("control_port"),
            unit: "",
        }
        .within(raw.control_port, defaults::CONTROL_PORT.into(), ports)?,
    )
    .expect("within the range of ports");
    if replication_port == control_port {
        let problem = format!("{control_port} is the replication port too");
        return Err(document.wrong(&key("control_port"), problem, "two different ports"));
    }
    Ok(Node {
        name,
        address,
        replication_port,
        control_port,
        removed: raw.removed.unwrap_or(false),
    })
}

fn distinct(document: &Document, index: usize, node: &Node, before: &[Node]) -> Result<(), ConfigError> {
    let key = |name: &str| format!("cluster.nodes[{index}].{name}");
    for other in before {
        if other.name == node.name {
            let problem = format!("{:?} is the name of two nodes", node.name);
            return Err(document.wrong(&key("name"), problem, "three different names"));
        }
        if other.address == node.address {
            let problem = format!(
                "{} is the address of both {} and {}",
                node.address, other.name, node.name
            );
            return Err(document.wrong(&key("address"), problem, "three different addresses"));
        }
        if other.address.is_ipv4() != node.address.is_ipv4() {
            let problem = format!("{} and {} are of different families", other.address, node.address);
            return Err(document.wrong(&key("address"), problem, "all three IPv4 or all three IPv6"));
        }
    }
    Ok(())
}

fn this(document: &Document, node: Option<String>, cluster: &Cluster) -> Result<usize, ConfigError> {
    let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
    let right = format!("the name of this machine: one of {}", names.join(", "));
    let node = need(document, "node", node, &right)?;
    let position = names.iter().position(|name| *name == node);
    let position =
        position.ok_or_else(|| document.wrong("node", format!("no node is named {node:?}"), right.clone()))?;
    if cluster.nodes[position].removed {
        let problem = format!("{node} was removed from the cluster");
        let right = format!("`holdfast node replace {node}` on another node, then what it says here");
        return Err(document.wrong("node", problem, right));
    }
    Ok(position)
}

fn tls(document: &Document, raw: raw::Tls) -> Result<Tls, ConfigError> {
    let file = |key: &str, value: Option<String>, right: &str| {
        let path = need(document, key, value, right)?;
        if path.is_empty() {
            return Err(document.wrong(key, "is empty", right));
        }
        Ok(document.folder().join(path))
    };
    Ok(Tls {
        ca: file("tls.ca", raw.ca, "the file of the cluster's CA certificate")?,
        cert: file("tls.cert", raw.cert, "the file of this node's certificate")?,
        key: file("tls.key", raw.key, "the file of this node's private key")?,
    })
}

/// The value of a key that has no default.
pub(crate) fn need<T>(document: &Document, key: &str, value: Option<T>, right: &str) -> Result<T, ConfigError> {
    value.ok_or_else(|| document.wrong(key, "is missing", right))
}

pub(crate) fn is_word(text: &str, longest: usize, allowed: impl Fn(char) -> bool) -> bool {
    (1..=longest).contains(&text.len()) && text.chars().all(allowed)
}

/// A whole number that must lie in a range.
pub(crate) struct Number<'a> {
    pub(crate) document: &'a Document,
    pub(crate) key: &'a str,
    /// With a space before it; empty for a plain count.
    pub(crate) unit: &'a str,
}

impl Number<'_> {
    pub(crate) fn within(
        &self,
        value: Option<u64>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let value = value.unwrap_or(default);
        if range.contains(&value) {
            return Ok(value);
        }
        let unit = self.unit;
        let right = format!("{} to {}{unit} (default {default}{unit})", range.start(), range.end());
        Err(self
            .document
            .wrong(self.key, format!("{value}{unit} can't be used"), right))
    }
}

/// A number of milliseconds that must lie in a range.
pub(crate) fn millis(
    document: &Document,
    key: &str,
    value: Option<u64>,
    default: Duration,
    range: RangeInclusive<u64>,
) -> Result<Duration, ConfigError> {
    let number = Number {
        document,
        key,
        unit: " ms",
    };
    number.within(value, to_ms(default), range).map(Duration::from_millis)
}

/// Whole milliseconds; configured durations are far below the limit of u64.
pub(crate) fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
