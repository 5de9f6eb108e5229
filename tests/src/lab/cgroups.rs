//! The cgroups in which `vip-agent` keeps PBX units. An agent that was killed leaves them behind; the lab removes those
//! of its own nodes, once they are empty.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::configure::NodeFiles;
use super::names::NODES;
use crate::process::look_at_all;

pub struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    /// Looks while the lab's processes still live: those of the units lie below the agents', wherever these were started.
    pub fn of(dir: &Path) -> Self {
        let Some(root) = mount_point() else {
            return Self(Vec::new());
        };
        let paths: BTreeSet<PathBuf> = look_at_all(cgroup_of).0.into_iter().collect();
        let above: BTreeSet<&Path> = paths.iter().flat_map(|path| path.ancestors()).collect();
        let names: Vec<String> = NODES
            .iter()
            .map(|node| agent_name(&NodeFiles::of(dir, node).socket()))
            .collect();
        let below = |path: &Path| -> Vec<PathBuf> { names.iter().map(|name| root.join(path).join(name)).collect() };
        Self(
            above
                .into_iter()
                .flat_map(below)
                .filter(|folder| folder.is_dir())
                .collect(),
        )
    }

    /// Only empty ones go; the kernel refuses the others.
    pub fn remove(&self) {
        for folder in &self.0 {
            remove_tree(folder);
        }
    }
}

fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    drop(fs::remove_dir(folder));
}

/// As vip-agent names it, from the node's socket.
fn agent_name(socket: &Path) -> String {
    format!(
        "vip-agent{}",
        socket.to_string_lossy().replace('-', "--").replace('/', "-")
    )
}

fn mount_point() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// Relative to the mount point.
fn cgroup_of(pid: i32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .map(PathBuf::from)
}
