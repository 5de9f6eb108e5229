//! The cluster as `holdfast status --json` and `holdfast check --json` show it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::node::Node;
use crate::process::ProcessInfo;

const STATUS_LIMIT: Duration = Duration::from_secs(3);

/// What `holdfast check` found.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckOutcome {
    pub verdict: CheckVerdict,
    /// What it printed, whole.
    pub said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVerdict {
    Same,
    Different,
    CouldNotCheck,
}

/// One node's view of the cluster.
pub fn of_node(node: &Node) -> Result<Value> {
    let output = node.exec_within(&["holdfast", "status", "--json"], STATUS_LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "{} answered no status ({}): {}",
            node.name(),
            output.status,
            said.trim()
        )
    })
}

/// A daemon that isn't there or is stopped would only cost time.
pub fn is_live(node: &Node) -> bool {
    node.daemon("holdfast").is_some_and(|info| info.state != 'T')
}

/// The best informed of the live nodes' views: one that names an active node, of the highest term. A node that is cut
/// off keeps an old view.
pub fn best<'a>(nodes: &'a [Node]) -> Result<(&'a Node, Value)> {
    let mut best: Option<((bool, u64), &'a Node, Value)> = None;
    let mut problem = None;
    for node in nodes.iter().filter(|node| is_live(node)) {
        match of_node(node) {
            Ok(view) => {
                let rank = (active(&view).is_some(), view["term"].as_u64().unwrap_or(0));
                if best.as_ref().is_none_or(|(known, ..)| rank > *known) {
                    best = Some((rank, node, view));
                }
            }
            Err(error) => problem = Some(error),
        }
    }
    match (best, problem) {
        (Some((_, node, view)), _) => Ok((node, view)),
        (None, Some(error)) => Err(error),
        (None, None) => bail!("no node's daemon runs; see the logs, or start one with `holdfast-lab start NODE`"),
    }
}

/// Name of the active node, if there is one.
pub fn active(view: &Value) -> Option<&str> {
    view["active"].as_str().filter(|name| !name.is_empty())
}

/// The entry of one node.
pub fn entry<'a>(view: &'a Value, node: &str) -> &'a Value {
    let nodes = view["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().find(|entry| entry["name"] == node).unwrap_or(&Value::Null)
}

/// Whether the entry says that the node holds the address.
pub fn has_vip(entry: &Value) -> bool {
    match &entry["vip"] {
        Value::Bool(held) => *held,
        Value::String(address) => !address.is_empty(),
        _ => false,
    }
}

/// The view with each node's processes in its entry; where nobody answers, at least those.
pub fn with_processes(nodes: &[Node]) -> Value {
    let mut view = match best(nodes) {
        Ok((_, view)) => view,
        Err(error) => {
            let entries: Vec<_> = nodes
                .iter()
                .map(|node| json!({"name": node.name(), "role": "down"}))
                .collect();
            json!({"cluster": null, "term": 0, "active": null, "why": format!("{error:#}"), "nodes": entries})
        }
    };
    for entry in view["nodes"].as_array_mut().into_iter().flatten() {
        let named = nodes.iter().find(|node| entry["name"] == node.name());
        let list: Vec<_> = named
            .map(|node| node.netns().processes())
            .unwrap_or_default()
            .iter()
            .map(process)
            .collect();
        entry["processes"] = Value::Array(list);
    }
    view
}

fn process(info: &ProcessInfo) -> Value {
    let state = match info.state {
        'T' | 't' => "stopped",
        'D' => "blocked",
        _ => "running",
    };
    json!({"name": info.name, "pid": info.id.pid, "state": state})
}

/// Compares the three replicas, asked on the best informed node.
pub fn check(nodes: &[Node], limit: Duration) -> Result<CheckOutcome> {
    let (node, _) = best(nodes)?;
    let output = node.exec_within(&["holdfast", "check", "--json"], limit)?;
    let verdict = match output.status.code() {
        Some(0) => CheckVerdict::Same,
        Some(1) => CheckVerdict::Different,
        Some(2) => CheckVerdict::CouldNotCheck,
        _ => bail!("`holdfast check` ended with {}", output.status),
    };
    let said = [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        .join("\n");
    Ok(CheckOutcome {
        verdict,
        said: said.trim().to_owned(),
    })
}

/// All three nodes take part and each has applied all up to `index`.
pub fn all_applied(view: &Value, index: u64) -> Result<()> {
    let nodes = view["nodes"].as_array().context("the status names no nodes")?;
    ensure!(nodes.len() == 3, "the status names {} nodes", nodes.len());
    for entry in nodes {
        let (name, role) = (&entry["name"], entry["role"].as_str().unwrap_or("?"));
        ensure!(matches!(role, "active" | "standby"), "{name} is {role}");
        let applied = entry["applied"].as_u64().unwrap_or(0);
        ensure!(applied >= index, "{name} has applied {applied} of {index}");
    }
    Ok(())
}
