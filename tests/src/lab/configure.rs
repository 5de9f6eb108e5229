//! The nodes' configuration files: made by `holdfast init` as on a real site, then pointed into the lab's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::names::{LabId, NODES, PREFIX};
use super::options::{LabOptions, merge};
use crate::process::run_ok;

/// Where a node's files are.
#[derive(Debug, Clone)]
pub struct NodeFiles {
    pub dir: PathBuf,
}

impl NodeFiles {
    pub fn of(lab: &Path, node: &str) -> Self {
        Self { dir: lab.join(node) }
    }
    pub fn config(&self) -> PathBuf {
        self.dir.join("holdfast.toml")
    }
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }
    pub fn mount(&self) -> PathBuf {
        self.dir.join("mnt")
    }
    pub fn socket(&self) -> PathBuf {
        self.dir.join("holdfast.sock")
    }
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.dir.join(format!("{daemon}.log"))
    }
}

/// Folder of what `holdfast init` writes.
pub fn conf(lab: &Path) -> PathBuf {
    lab.join("conf")
}

/// Makes the cluster's certificates and configuration, unless they were kept from before.
pub fn init(lab: &Path, id: &LabId, binaries: &Path) -> Result<()> {
    let out = conf(lab);
    if out.exists() {
        return Ok(());
    }
    let mut command = Command::new(binaries.join("holdfast"));
    command.args(["init", "--cluster", "lab"]);
    for node in NODES {
        command.arg("--node").arg(format!("{node}={}", id.address(node)));
    }
    command
        .arg("--vip")
        .arg(format!("{}/{PREFIX}", id.vip()))
        .arg("--out")
        .arg(&out);
    run_ok(&mut command, Duration::from_secs(20))
        .context("making the lab's configuration")
        .map(drop)
}

/// Makes the node's folders and writes the file that its daemons read.
pub fn write_node(lab: &Path, node: &str, options: &LabOptions, binaries: &Path) -> Result<()> {
    let files = NodeFiles::of(lab, node);
    for folder in [files.dir.clone(), files.mount()] {
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let folder = conf(lab).join(node);
    let source = folder.join("holdfast.toml");
    let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
    let mut table: Table = text.parse().with_context(|| format!("parsing {}", source.display()))?;
    point_into(&mut table, &folder, &files, options.log_mib)?;
    let settings = fill_in(&toml::to_string(&options.settings)?, node, &files, binaries);
    let settings: Table = settings.parse().context("the lab's settings are not valid TOML")?;
    merge(&mut table, &settings);
    append_units(&mut table, &fill_in(&options.units, node, &files, binaries))?;
    if !options.agent {
        table.remove("vip");
    }
    let target = files.config();
    fs::write(&target, toml::to_string(&table)?).with_context(|| format!("writing {}", target.display()))
}

/// Paths that `init` chose for a machine of its own become the node's folder in the lab.
fn point_into(table: &mut Table, folder: &Path, files: &NodeFiles, log_mib: u64) -> Result<()> {
    let text = |path: PathBuf| Value::String(path.to_string_lossy().into_owned());
    let mut ours = Table::new();
    ours.insert("socket".into(), text(files.socket()));
    ours.insert(
        "mount".into(),
        Value::Table(Table::from_iter([("path".into(), text(files.mount()))])),
    );
    let log_mib = Value::Integer(i64::try_from(log_mib)?);
    let store = Table::from_iter([("path".into(), text(files.store())), ("log_mib".into(), log_mib)]);
    ours.insert("store".into(), Value::Table(store));
    merge(table, &ours);
    if let Some(Value::Table(tls)) = table.get_mut("tls") {
        for (_key, value) in tls.iter_mut() {
            let name = value
                .as_str()
                .and_then(|path| Path::new(path).file_name())
                .map(|name| folder.join(name));
            if let Some(path) = name {
                *value = text(path);
            }
        }
    }
    Ok(())
}

fn fill_in(text: &str, node: &str, files: &NodeFiles, binaries: &Path) -> String {
    text.replace("{mnt}", &files.mount().to_string_lossy())
        .replace("{dir}", &files.dir.to_string_lossy())
        .replace("{node}", node)
        .replace("{bin}", &binaries.to_string_lossy())
}

fn append_units(table: &mut Table, units: &str) -> Result<()> {
    let given: Table = units.parse().context("the PBX units are not valid TOML")?;
    for (key, value) in given {
        let (Value::Array(more), "unit") = (value, key.as_str()) else {
            bail!("a unit file holds nothing but [[unit]] tables, and this one has `{key}`");
        };
        match table.entry("unit").or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(all) => all.extend(more),
            _ => bail!("`unit` in the node's configuration is not a list of tables"),
        }
    }
    Ok(())
}
