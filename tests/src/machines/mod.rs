//! Three booted machines: systemd, D-Bus and our units as they are shipped, in containers. For what the lab's bare
//! processes can't show: how the daemons live under systemd, and PBX units that are systemd's own.

mod image;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub use machine::Machine;

use crate::clock::wait_for;
use crate::lab::{mounts, options::find_binaries};
use crate::process::{ProcessId, run_ok};

const LIMIT: Duration = Duration::from_secs(30);
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const FOLDERS: &str = "/var/tmp";
const PREFIX: &str = "holdfast-machines-";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VIP: &str = "10.91.0.10";

fn address(number: usize) -> String {
    format!("10.91.0.{}", number + 1)
}

/// All of it goes with the value.
pub struct Machines {
    dir: PathBuf,
    /// Of the network namespace with the switch.
    switch: String,
    machines: Vec<Machine>,
}

impl Machines {
    /// Boots three machines with a cluster on them. `configuration` is added to each node's file; each unit, a name and its
    /// text, is known to systemd and not started by it.
    pub fn boot(configuration: &str, units: &[(&str, &str)]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "booting containers takes root: run this as root"
        );
        sweep();
        let image = image::prepare()?;
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(FOLDERS)?.keep();
        let own = ProcessId::own().context("this process has an id")?;
        fs::write(dir.join("owner"), serde_json::to_string(&own)?)?;
        let id = dir.file_name().map(|name| name.to_string_lossy().replace(PREFIX, ""));
        let mut machines = Self {
            switch: format!("hf-m-{}", id.context("the folder has a name")?),
            dir,
            machines: Vec::new(),
        };
        machines.make_switch()?;
        let files = machines.make_configuration()?;
        for (number, name) in NODES.into_iter().enumerate() {
            let machine = Machine::prepare(&machines.dir.join(name), name, &image)?;
            machine.install(&files.join(name), configuration, units)?;
            machines.machines.push(machine);
            machines.machines[number].boot()?;
            machines.plug(number)?;
        }
        for machine in &machines.machines {
            wait_for(&format!("{} to boot", machine.name()), BOOT_LIMIT, || {
                // A question that comes too early may wait for its answer as long as the boot may take.
                let state = machine.try_run("timeout 5 systemctl is-system-running || true")?;
                anyhow::ensure!(matches!(state.as_str(), "running" | "degraded"), "it says {state:?}");
                Ok(Some(()))
            })?;
        }
        Ok(machines)
    }

    pub fn all(&self) -> &[Machine] {
        &self.machines
    }

    pub fn get(&self, name: &str) -> Result<&Machine> {
        let found = self.machines.iter().find(|machine| machine.name() == name);
        found.with_context(|| format!("there is no machine {name}"))
    }

    pub fn vip(&self) -> &'static str {
        VIP
    }

    /// As when its power is cut, as far as processes go.
    pub fn kill(&mut self, name: &str) {
        for machine in &mut self.machines {
            if machine.name() == name {
                machine.kill();
            }
        }
    }

    /// As a machine that runs sees it.
    pub fn status(&self) -> Result<Value> {
        let mut last = None;
        for machine in &self.machines {
            match machine.try_run("holdfast status --json") {
                Ok(said) => return Ok(serde_json::from_str(&said)?),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there are machines")?)
    }

    /// Waits until a node other than this one is active with a healthy PBX, and the two or three that run are well.
    pub fn wait_active_other_than(&self, former: &str) -> Result<&Machine> {
        wait_for("another active machine with a healthy PBX", BOOT_LIMIT, || {
            let status = self.status()?;
            let Some(name) = status["active"].as_str().filter(|name| *name != former) else {
                return Ok(None);
            };
            let nodes = status["nodes"].as_array().context("a status has nodes")?;
            let node = nodes
                .iter()
                .find(|node| node["name"] == name)
                .context("the active node is one")?;
            let well = node["vip"] == true && node["units"][0]["state"] == "healthy";
            Ok(well.then_some(self.get(name)?))
        })
    }

    fn make_switch(&self) -> Result<()> {
        ip(&["netns", "add", &self.switch])?;
        self.switch(&["link", "add", "br0", "type", "bridge"])?;
        self.switch(&["link", "set", "br0", "up"])
    }

    /// Gives the machine its network card.
    fn plug(&self, number: usize) -> Result<()> {
        let (machine, port) = (&self.machines[number], format!("port{number}"));
        let init = machine.init()?.to_string();
        self.switch(&[
            "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &init,
        ])?;
        self.switch(&["link", "set", &port, "master", "br0", "up"])?;
        machine.try_run_early(&["ip", "addr", "add", &format!("{}/24", address(number)), "dev", "eth0"])?;
        machine.try_run_early(&["ip", "link", "set", "eth0", "up"])
    }

    fn switch(&self, words: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.switch], words].concat())
    }

    fn make_configuration(&self) -> Result<PathBuf> {
        let out = self.dir.join("configuration");
        let mut command = Command::new(find_binaries(None)?.join("holdfast"));
        command
            .args(["init", "--cluster", "booted", "--vip", &format!("{VIP}/24"), "--out"])
            .arg(&out);
        for (number, name) in NODES.into_iter().enumerate() {
            command.args(["--node", &format!("{name}={}", address(number))]);
        }
        run_ok(&mut command, LIMIT)?;
        Ok(out)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for machine in &self.machines {
                let log = machine.try_run("journalctl --no-pager -n 40 -u holdfast -u vip-agent -u pbx");
                eprintln!(
                    "{}:\n{}",
                    machine.name(),
                    log.unwrap_or_else(|error| format!("{error:#}"))
                );
            }
        }
        for machine in &mut self.machines {
            machine.kill();
        }
        remove(&self.dir, &self.switch);
    }
}

fn ip(words: &[&str]) -> Result<()> {
    run_ok(Command::new("ip").args(words), LIMIT).map(drop)
}

fn remove(dir: &Path, switch: &str) {
    let removed = mounts::remove_below(dir, LIMIT).and_then(|()| Ok(fs::remove_dir_all(dir)?));
    let gone = ip(&["netns", "del", switch]);
    for error in [removed.err(), gone.err()].into_iter().flatten() {
        eprintln!("removing {}: {error:#}", dir.display());
    }
}

/// Removes the machines of tests that died.
fn sweep() {
    let Ok(entries) = fs::read_dir(FOLDERS) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix(PREFIX) else { continue };
        let owner = fs::read_to_string(entry.path().join("owner")).ok();
        let owner = owner.and_then(|text| serde_json::from_str::<ProcessId>(&text).ok());
        if owner.is_some_and(|owner| !owner.alive()) {
            NODES
                .iter()
                .for_each(|node| machine::kill_left_over(&entry.path().join(node)));
            remove(&entry.path(), &format!("hf-m-{id}"));
        }
    }
}
