//! `holdfast init`: the configuration folders of a new cluster, complete or not at all.

pub mod folders;
pub mod parse;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_config::defaults::{MIB, SOCKET};
use holdfast_config::{Cluster, Config, ConfigError, Mount, Node, Scrub, Store, Timers, Tls, Vip};

use crate::authority::Authority;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, Args)]
pub struct Init {
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// A node and its static address; three times, in an order that stays. ADDR:PORT sets the replication port,
    /// and the next port for control
    #[arg(long = "node", value_name = "NAME=ADDR[:PORT]", required = true)]
    pub nodes: Vec<String>,
    /// The address that follows the data; without it none is managed
    #[arg(long, value_name = "ADDR/PREFIX")]
    pub vip: Option<String>,
    /// The directory to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where each node keeps its replica
    #[arg(long, value_name = "PATH")]
    pub store: Option<PathBuf>,
    /// Where each node mounts the file system
    #[arg(long, value_name = "PATH")]
    pub mount: Option<PathBuf>,
    /// The network interface for the VIP; without it, the one with a static address in its network
    #[arg(long, value_name = "IF", requires = "vip")]
    pub interface: Option<String>,
    /// The daemon's socket on each node
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Length of the replicated log in MiB
    #[arg(long, value_name = "N")]
    pub log_mib: Option<u64>,
}

impl Init {
    pub fn run(&self) -> Result<()> {
        let nodes = self.create(Clock::read())?;
        output::print(&self.what_next(&nodes))?;
        Ok(())
    }

    /// Makes `out` with a folder for each node and one for the CA.
    pub fn create(&self, clock: Clock) -> Result<Vec<Node>> {
        let nodes = self
            .nodes
            .iter()
            .map(|text| parse::node(text))
            .collect::<Result<Vec<Node>>>()?;
        let vip = self.vip.as_deref().map(parse::vip).transpose()?;
        let folders = folders::Folders::begin(&self.out)?;
        let (authority, cluster_id) = Authority::new(&self.cluster, clock.now_unix_ms)?;
        folders.write_authority(&authority)?;
        for this in 0..nodes.len() {
            let config = self.config(&nodes, this, vip, &cluster_id, folders.path());
            // Its names make folders: checked here, before one of them can climb out of `out`.
            check_names(&config)?;
            folders.write_node(&config, &authority)?;
        }
        for node in &nodes {
            holdfast_config::load(&folders.config_of(node)).map_err(from_the_plan)?;
        }
        folders.finish()?;
        Ok(nodes)
    }

    fn config(&self, nodes: &[Node], this: usize, vip: Option<(IpAddr, u8)>, id: &str, out: &Path) -> Config {
        let folder = out.join(&nodes[this].name);
        let (store, mount) = (Store::default(), Mount::default());
        let tls = Tls {
            ca: folder.join("ca.pem"),
            cert: folder.join("node.pem"),
            key: folder.join("node.key"),
        };
        Config {
            file: folder.join("holdfast.toml"),
            cluster: Cluster {
                name: self.cluster.clone(),
                id: id.to_owned(),
                revision: 0,
                nodes: nodes.to_vec(),
            },
            this,
            tls,
            store: Store {
                path: self.store.clone().unwrap_or(store.path),
                log_bytes: self.log_mib.map_or(store.log_bytes, |mib| mib.saturating_mul(MIB)),
            },
            mount: Mount {
                path: self.mount.clone().unwrap_or(mount.path),
                ..mount
            },
            scrub: Scrub::default(),
            classes: holdfast_config::defaults::classes(),
            timers: Timers::default(),
            vip: vip.map(|(address, prefix)| Vip {
                interface: self.interface.clone(),
                ..Vip::new(address, prefix)
            }),
            socket: self.socket.clone().unwrap_or_else(|| SOCKET.into()),
            watchdog: None,
            units: Vec::new(),
        }
    }

    fn what_next(&self, nodes: &[Node]) -> String {
        let out = self.out.display();
        let mut text = format!(
            "Cluster {}: a configuration folder for each node is in {out}.\n\nNext:\n",
            self.cluster
        );
        text += "1. Add the PBX's units to each holdfast.toml (the same on all three), at its end.\n";
        text += "2. Copy each folder to its machine:\n";
        for node in nodes {
            let host = match node.address {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            };
            text += &format!("     scp -p {out}/{}/* root@{host}:/etc/holdfast/\n", node.name);
        }
        if let Some(store) = self.store.as_ref().filter(|store| !store.starts_with(UNITS_STORE)) {
            let store = store.display();
            text += &format!(
                "     The units wait for the volume of {UNITS_STORE}. The store is in {store}: say so on each machine, with\n     \
                 `systemctl edit holdfast`: [Unit] RequiresMountsFor={store}\n"
            );
        }
        text += "3. On each machine:\n     holdfast config validate /etc/holdfast/holdfast.toml\n";
        text += "     systemctl enable --now holdfast vip-agent\n";
        text += "4. On any of them: holdfast status\n\n";
        text += &format!("Keep {out}/ca/ca.key in a safe place that is none of the three: who has it can join.\n");
        text
    }
}

/// What `RequiresMountsFor=` names in the units.
const UNITS_STORE: &str = "/var/lib/holdfast";

fn check_names(config: &Config) -> Result<()> {
    for (index, node) in config.cluster.nodes.iter().enumerate() {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let twice = config.cluster.nodes[..index]
            .iter()
            .any(|other| other.name == node.name);
        if node.name == "ca" || twice || node.name.is_empty() || !node.name.chars().all(allowed) {
            return Err(Error::Argument {
                text: node.name.clone(),
                right: "three different names of lower-case letters, digits or dashes, and none of them \"ca\"",
            });
        }
    }
    Ok(())
}

/// The file that a mistake was found in is gone again: say what was wrong with the wish.
fn from_the_plan(error: ConfigError) -> Error {
    match error {
        ConfigError::Value {
            key, problem, right, ..
        } => Error::Plan { key, problem, right },
        other => other.into(),
    }
}
