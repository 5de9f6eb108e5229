//! One node of a lab: its files, its daemons, and the ways to mistreat it.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::configure::NodeFiles;
use super::mounts;
use super::names::NODES;
use super::netns::Netns;
use super::state::{Daemon, State, no_lab};
use crate::process::{ProcessId, ProcessInfo, run};

/// How long processes may take to die of SIGKILL.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

/// A handle; it borrows nothing, so that threads can have their own.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    lab: PathBuf,
    binaries: PathBuf,
    files: NodeFiles,
    netns: Netns,
}

impl Node {
    pub fn new(state: &State, name: &str) -> Result<Self> {
        if !NODES.contains(&name) {
            bail!("there is no node `{name}`; the nodes are {}", NODES.join(", "));
        }
        Ok(Self {
            name: name.to_owned(),
            lab: state.dir.clone(),
            binaries: state.binaries.clone(),
            files: NodeFiles::of(&state.dir, name),
            netns: Netns::named(state.id.namespace(name)),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn dir(&self) -> PathBuf {
        self.files.dir.clone()
    }
    /// The mount point.
    pub fn mnt(&self) -> PathBuf {
        self.files.mount()
    }
    pub fn files(&self) -> &NodeFiles {
        &self.files
    }
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A command that will run in this node's network, with `holdfast` on its PATH and knowing where to ask.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        command
            .env("HOLDFAST_SOCKET", self.files.socket())
            .env("PATH", path_with(&self.binaries));
        self.netns.enter(&mut command)?;
        Ok(command)
    }

    /// Runs a command in this node's network; after `limit` it is killed, which is an error.
    pub fn exec_within(&self, words: &[impl AsRef<OsStr>], limit: Duration) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no command given")?;
        run(self.command(program)?.args(arguments), limit)
    }

    /// SIGKILL to all that runs on the node, as at a crash of everything but the kernel.
    pub fn kill(&self) -> Result<()> {
        // Stopped first: nobody acts on a neighbour's death, as at a machine's crash.
        self.netns.signal_all(Signal::STOP)?;
        self.netns
            .kill_all(DEATH_LIMIT, || mounts::abort_below(&self.files.dir))
    }

    pub fn pause(&self) -> Result<()> {
        self.netns.signal_all(Signal::STOP).map(drop)
    }

    pub fn resume(&self) -> Result<()> {
        self.netns.signal_all(Signal::CONT).map(drop)
    }

    /// Starts those of the node's daemons that don't run. Returns their names.
    pub fn start(&self) -> Result<Vec<&'static str>> {
        let state = State::load(&self.lab)?.with_context(|| no_lab(&self.lab))?;
        let mut started = Vec::new();
        if self.daemon("holdfast").is_none() {
            self.spawn(&state, "holdfast", "holdfast", &["serve", "--config"])?;
            started.push("holdfast");
        }
        if state.agent && self.daemon("vip-agent").is_none() {
            self.spawn(&state, "vip-agent", "vip-agent", &["--config"])?;
            started.push("vip-agent");
        }
        Ok(started)
    }

    /// Starts the daemon as one of another release, which speaks this version of the replication stream.
    pub fn start_release(&self, protocol: u32) -> Result<()> {
        let state = State::load(&self.lab)?.with_context(|| no_lab(&self.lab))?;
        let words = ["--protocol", &protocol.to_string(), "--config"];
        self.spawn(&state, "holdfast", "holdfast-release", &words)
    }

    /// The running daemon of that name, stopped or not.
    pub fn daemon(&self, name: &str) -> Option<ProcessInfo> {
        let noted = self.noted_daemons().ok()?;
        let mut alive = noted.iter().filter(|daemon| daemon.name == name && daemon.id.alive());
        alive.next_back().and_then(|daemon| ProcessInfo::read(daemon.id.pid))
    }

    fn noted_daemons(&self) -> Result<Vec<Daemon>> {
        let state = State::load(&self.lab)?.with_context(|| no_lab(&self.lab))?;
        Ok(state
            .daemons
            .into_iter()
            .filter(|daemon| daemon.node == self.name)
            .collect())
    }

    /// SIGKILL to one daemon alone, as when it crashes.
    pub fn kill_daemon(&self, name: &str) -> Result<()> {
        self.signal_daemon(name, Signal::KILL)
    }

    /// Sends a signal to one daemon alone.
    pub fn signal_daemon(&self, name: &str, signal: Signal) -> Result<()> {
        let daemon = self
            .daemon(name)
            .with_context(|| format!("no {name} runs on {}", self.name))?;
        daemon.id.signal(signal).map(drop)
    }

    /// The daemon `name`, which may be another program than the one of that name.
    fn spawn(&self, state: &State, name: &str, program: &str, words: &[&str]) -> Result<()> {
        let log = self.files.log(name);
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut command = self.command(self.binaries.join(program))?;
        command
            .args(words)
            .arg(self.files.config())
            .current_dir("/")
            .env_remove("NOTIFY_SOCKET");
        let value = |value: &String| value.replace("{node}", &self.name);
        command.envs(state.environment.iter().map(|(name, text)| (name, value(text))));
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(begin_daemon);
        }
        let child = command
            .spawn()
            .with_context(|| format!("starting {name} on {}", self.name))?;
        let pid = i32::try_from(child.id())?;
        let id = ProcessId::of(pid).with_context(|| format!("{name} on {} ended at once", self.name))?;
        let daemon = Daemon {
            node: self.name.clone(),
            name: name.to_owned(),
            id,
        };
        State::update(&self.lab, |state| {
            state.daemons.retain(|known| known.id.alive());
            state.daemons.push(daemon);
        })
        .map(drop)
    }

    /// The end of each daemon's log, for an error message.
    pub fn log_tails(&self, lines: usize) -> String {
        let tail = |name: &str| {
            let text = fs::read(self.files.log(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let all: Vec<&str> = text.lines().collect();
            let from = all.len().saturating_sub(lines);
            let last = all.get(from..).unwrap_or_default().join("\n  ");
            format!("{} of {}:\n  {last}\n", name, self.name)
        };
        ["holdfast", "vip-agent"].into_iter().map(tail).collect()
    }
}

/// What an init system would see to: a session of its own, since Ctrl-C in the lab's terminal is not meant for the
/// daemons, and no signal blocked or ignored, as a caller may have them (a shell's background jobs ignore SIGINT).
fn begin_daemon() -> std::io::Result<()> {
    rustix::process::setsid()?;
    // SAFETY: sigemptyset fills in the set before it is read; the signals are valid; all are async-signal-safe.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    Ok(())
}

/// The caller's PATH with the lab's binaries first.
pub fn path_with(binaries: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut path = binaries.as_os_str().to_owned();
    path.push(":");
    path.push(rest);
    path
}
