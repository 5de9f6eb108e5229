//! What a lab can be told when it is made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::disk::FileSystem;

/// A lab as tests want it; `LabOptions::default()` is a good one.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// None: a fresh folder under /var/tmp, on a real disk, removed with the lab.
    pub dir: Option<PathBuf>,
    /// Length of each node's log.
    pub log_mib: u64,
    /// Whether `vip-agent` runs beside each daemon. Without it there is no address and no PBX.
    pub agent: bool,
    /// `[[unit]]` tables in TOML for every node, with `{mnt}`, `{dir}`, `{node}` and `{bin}` to be filled in.
    pub units: String,
    /// Further settings for every node's file, merged over what `holdfast init` wrote; filled in likewise.
    pub settings: toml::Table,
    /// For the daemons.
    pub environment: Vec<(String, String)>,
    /// A disk of its own for each node, whose power can be cut, with this file system; see `with_disks`.
    pub disks: Option<[FileSystem; 3]>,
    /// Folder of `holdfast` and `vip-agent`. None: where this program itself lies.
    pub binaries: Option<PathBuf>,
    /// How long `up` waits for an active node.
    pub wait: Duration,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            dir: None,
            log_mib: 64,
            agent: true,
            units: String::new(),
            settings: toml::Table::new(),
            environment: Vec::new(),
            disks: None,
            binaries: None,
            wait: Duration::from_secs(30),
        }
    }
}

impl LabOptions {
    /// Sets a key of every node's configuration: `set("timers.grace_ms", 500)`.
    pub fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        let mut keys: Vec<&str> = path.split('.').collect();
        let Some(last) = keys.pop() else { return self };
        let mut nested = toml::Table::from_iter([(last.to_owned(), value.into())]);
        for key in keys.into_iter().rev() {
            nested = toml::Table::from_iter([(key.to_owned(), toml::Value::Table(nested))]);
        }
        merge(&mut self.settings, &nested);
        self
    }

    /// The nodes' stores lie on disks of their own (see `disk`).
    pub fn with_disks(mut self, kinds: [FileSystem; 3]) -> Self {
        self.disks = Some(kinds);
        self.set("store.path", "{dir}/disk/store")
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Lays one table over another; tables inside are merged, everything else is replaced.
pub fn merge(under: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            _ => drop(under.insert(key.clone(), value.clone())),
        }
    }
}

/// The folder in which `holdfast` and `vip-agent` lie: beside this program, or above it if it is a test.
pub fn find_binaries(asked: Option<&Path>) -> Result<PathBuf> {
    let dir = match asked {
        Some(dir) => dir.to_owned(),
        None => {
            let own = std::env::current_exe().context("finding this program's own file")?;
            let dir = own.parent().context("this program's file has no folder")?;
            let in_deps = dir.file_name().is_some_and(|name| name == "deps");
            if in_deps {
                dir.parent().unwrap_or(dir).to_owned()
            } else {
                dir.to_owned()
            }
        }
    };
    for name in ["holdfast", "vip-agent"] {
        if !dir.join(name).is_file() {
            bail!("there is no `{name}` in {}: build it with `make build`", dir.display());
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::LabOptions;

    #[test]
    fn settings_of_one_table_are_merged() {
        let options = LabOptions::default()
            .set("timers.grace_ms", 500)
            .set("timers.tick_ms", 20)
            .set("socket", "x");
        let expected: toml::Table = "socket = 'x'\n[timers]\ngrace_ms = 500\ntick_ms = 20".parse().unwrap();
        assert_eq!(options.settings, expected);
    }
}
