//! One booted machine.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::clock::wait_for;
use crate::lab::options::find_binaries;
use crate::process::{ProcessId, collect, run_ok};

const LIMIT: Duration = Duration::from_secs(30);
/// Longer than an orderly stop of a daemon may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(160);
/// The shipped units, and where systemd finds them.
const UNITS: [(&str, &str); 2] = [
    (
        "holdfast.service",
        include_str!("../../../deploy/systemd/holdfast.service"),
    ),
    (
        "vip-agent.service",
        include_str!("../../../deploy/systemd/vip-agent.service"),
    ),
];
const SYSTEMD: &str = "etc/systemd/system";

pub struct Machine {
    name: String,
    dir: PathBuf,
    container: Option<Child>,
}

impl Machine {
    /// A root of its own over the image, and a folder for the store outside it.
    pub(super) fn prepare(dir: &Path, name: &str, image: &Path) -> Result<Self> {
        for folder in ["upper", "work", "root", "store"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        let [upper, work, root] = ["upper", "work", "root"].map(|folder| dir.join(folder));
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.display(),
            upper.display(),
            work.display()
        );
        run_ok(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o", &layers])
                .arg(root),
            LIMIT,
        )?;
        Ok(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            container: None,
        })
    }

    /// As an operator would: programs, units, configuration; both services are enabled.
    pub(super) fn install(&self, files: &Path, configuration: &str, units: &[(&str, &str)]) -> Result<()> {
        let (root, binaries) = (self.dir.join("root"), find_binaries(None)?);
        for program in ["holdfast", "vip-agent"] {
            fs::copy(binaries.join(program), root.join("usr/bin").join(program))?;
        }
        for folder in ["etc/holdfast", "var/lib/holdfast", "var/lib/portsip"] {
            fs::create_dir_all(root.join(folder))?;
        }
        for file in fs::read_dir(files)? {
            let file = file?;
            fs::copy(file.path(), root.join("etc/holdfast").join(file.file_name()))?;
        }
        let path = root.join("etc/holdfast/holdfast.toml");
        let text = fs::read_to_string(&path)?.replace("log_mib = 1024", "log_mib = 64");
        fs::write(&path, format!("{text}\n{configuration}"))?;
        for (name, text) in UNITS.iter().chain(units) {
            fs::write(root.join(SYSTEMD).join(name), text)?;
        }
        let wants = root.join(SYSTEMD).join("multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        for (name, _) in UNITS {
            std::os::unix::fs::symlink(format!("../{name}"), wants.join(name))?;
        }
        fs::write(root.join("etc/hostname"), &self.name)?;
        Ok(fs::write(root.join("etc/machine-id"), "")?)
    }

    pub(super) fn boot(&mut self) -> Result<()> {
        let console = fs::File::create(self.dir.join("console"))?;
        let id = self
            .dir
            .parent()
            .and_then(Path::file_name)
            .context("the folder has a name")?;
        let mut command = Command::new("systemd-nspawn");
        command.arg("--directory").arg(self.dir.join("root"));
        command
            .arg("--machine")
            .arg(format!("{}-{}", id.to_string_lossy(), self.name));
        command.arg(format!("--bind={}:/var/lib/holdfast", self.dir.join("store").display()));
        command.args(["--boot", "--private-network", "--bind=/dev/fuse", "--capability=all"]);
        command.args(["--register=no", "--keep-unit", "--console=pipe"]);
        command
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        // In a session of its own: what a terminal sends to the test isn't meant for it.
        command.process_group(0);
        let child = command
            .spawn()
            .context("is the package systemd-container installed (`make setup`)?")?;
        let container = ProcessId::of(child.id().cast_signed()).context("the container has just ended")?;
        self.container = Some(child);
        let init = wait_for("the container's init", LIMIT, || Ok(child_of(container.pid)))?;
        let both = [
            container,
            ProcessId::of(init).context("the container's init has just ended")?,
        ];
        Ok(fs::write(self.dir.join("processes"), serde_json::to_string(&both)?)?)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of its process 1, seen from here.
    pub(super) fn init(&self) -> Result<i32> {
        let [_, init] = processes(&self.dir).with_context(|| format!("{} isn't running", self.name))?;
        Ok(init.pid)
    }

    /// A shell command on it; its output without the last line's end.
    pub fn try_run(&self, script: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init()?.to_string()]);
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--", "sh", "-c", script]);
        Ok(run_ok(&mut command, COMMAND_LIMIT)?.trim_end().to_owned())
    }

    /// A command of this machine's own, in the network of a machine that may not have booted yet.
    pub(super) fn try_run_early(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init()?.to_string(), "--net", "--"])
            .args(words);
        run_ok(&mut command, LIMIT).map(drop)
    }

    pub fn main_process(&self, unit: &str) -> Result<u32> {
        Ok(self
            .try_run(&format!("systemctl show --property MainPID --value {unit}"))?
            .parse()?)
    }

    /// What systemd says of a unit: `active`, `inactive`, `failed` and the like.
    pub fn unit_state(&self, unit: &str) -> Result<String> {
        self.try_run(&format!("systemctl is-active {unit} || true"))
    }

    pub(super) fn kill(&mut self) {
        kill_left_over(&self.dir);
        if let Some(mut container) = self.container.take() {
            let _ = container.wait();
        }
    }
}

fn child_of(pid: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    // Helpers come and go before it: only the container's own process 1 is 1 in a process namespace of its own.
    children.into_iter().find(|child| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        let ids = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        ids.len() > 1 && ids.last() == Some(&"1")
    })
}

fn processes(dir: &Path) -> Option<[ProcessId; 2]> {
    serde_json::from_str(&fs::read_to_string(dir.join("processes")).ok()?).ok()
}

pub(super) fn kill_left_over(dir: &Path) {
    // Its process 1 last seen: all others go with it.
    for process in processes(dir).into_iter().flatten().rev() {
        let _ = process.signal(Signal::KILL);
        collect(process.pid);
    }
}
