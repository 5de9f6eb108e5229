//! GlusterFS beside Holdfast: a volume of three replicas on the lab's three hosts, mounted on the first of them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clock::wait_for;
use crate::lab::{Lab, Node, mounts};
use crate::process::run_ok;

const LIMIT: Duration = Duration::from_secs(60);
const VOLUME: &str = "bench";

/// Ends with the value; the lab's end ends what is left of it.
pub struct Gluster {
    mnt: PathBuf,
    daemons: Vec<Child>,
}

/// Whether the programs are on this machine.
pub fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["glusterd", "glusterfs", "gluster"]
        .iter()
        .all(|name| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

impl Gluster {
    /// Bricks, state and the mount lie below `dir`.
    pub fn up(lab: &Lab, dir: &Path) -> Result<Self> {
        let mnt = dir.join("mnt");
        fs::create_dir_all(&mnt)?;
        let mut gluster = Self {
            mnt,
            daemons: Vec::new(),
        };
        for node in lab.nodes() {
            gluster.daemons.push(start(node, dir)?);
        }
        let [first, others @ ..] = lab.nodes() else {
            anyhow::bail!("a lab has nodes")
        };
        let said = |words: &[&str]| gluster.command(first, words);
        wait_for("GlusterFS's daemon", LIMIT, || said(&["peer", "status"]).map(Some))?;
        let address = |node: &Node| lab.id().address(node.name()).to_string();
        for node in others {
            said(&["peer", "probe", &address(node)])?;
        }
        wait_for("GlusterFS's peers", LIMIT, || {
            let connected = said(&["peer", "status"])?.matches("(Connected)").count();
            Ok((connected == others.len()).then_some(()))
        })?;
        let brick = |node: &Node| format!("{}:{}/{}/brick", address(node), dir.display(), node.name());
        let bricks: Vec<String> = lab.nodes().iter().map(brick).collect();
        let mut make = vec!["volume", "create", VOLUME, "replica", "3"];
        make.extend(bricks.iter().map(String::as_str));
        make.push("force");
        wait_for("GlusterFS's volume", LIMIT, || said(&make).map(Some))?;
        said(&["volume", "set", VOLUME, "cluster.quorum-type", "auto"])?;
        said(&["volume", "start", VOLUME])?;
        let mut mount = first.command("glusterfs")?;
        mount.args([
            format!("--volfile-server={}", address(first)),
            format!("--volfile-id={VOLUME}"),
        ]);
        mount
            .arg(format!("--log-file={}", dir.join("mount.log").display()))
            .arg(&gluster.mnt);
        run_ok(&mut mount, LIMIT)?;
        let probe = gluster.mnt.join("probe");
        wait_for("GlusterFS's mount", LIMIT, || Ok(Some(fs::write(&probe, "here")?)))?;
        ensure!(mounts::below(dir)?.contains(&gluster.mnt), "GlusterFS isn't mounted");
        fs::remove_file(probe)?;
        Ok(gluster)
    }

    pub fn mnt(&self) -> &Path {
        &self.mnt
    }

    /// A `gluster` command, where the first node's daemon has its socket.
    fn command(&self, node: &Node, words: &[&str]) -> Result<String> {
        let daemon = self.daemons.first().context("there is a daemon")?.id().to_string();
        let mut command = node.command("nsenter")?;
        command
            .args(["--target", &daemon, "--mount", "--", "gluster", "--mode=script"])
            .args(words);
        run_ok(&mut command, LIMIT)
    }
}

/// A daemon that sees folders of its own where GlusterFS keeps its state.
fn start(node: &Node, dir: &Path) -> Result<Child> {
    let own = dir.join(node.name());
    for folder in ["brick", "lib", "log"] {
        fs::create_dir_all(own.join(folder))?;
    }
    for folder in ["/var/lib/glusterd", "/var/log/glusterfs"] {
        fs::create_dir_all(folder)?;
    }
    const SCRIPT: &str = "mount --bind \"$0/lib\" /var/lib/glusterd && mount --bind \"$0/log\" /var/log/glusterfs \
        && mount -t tmpfs tmpfs /run && mkdir -p /run/gluster /run/lock && exec glusterd --no-daemon";
    let mut command: Command = node.command("unshare")?;
    command
        .args(["--mount", "--propagation", "private", "--", "sh", "-c", SCRIPT].map(OsStr::new))
        .arg(&own);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
        .spawn()
        .with_context(|| format!("starting glusterd on {}", node.name()))
}

impl Drop for Gluster {
    fn drop(&mut self) {
        let _ = mounts::remove_below(&self.mnt, Duration::from_secs(5));
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
