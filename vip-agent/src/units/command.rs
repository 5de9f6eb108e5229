//! A unit that is a set of commands: start, stop, status and kill, each a program with its arguments.
//!
//! * `start`: exit code 0 has started it; one that stays in the foreground has started it as soon as it is healthy. It runs in
//!   a session of its own and in a cgroup of its own (`cgroup`), and outlives this agent.
//! * `stop`: exit code 0 means that it was asked; whether it has stopped is read from `status` and the cgroup.
//! * `status`: exit code 0 while it runs. Without one the cgroup alone tells.
//! * `kill`: for what isn't in the cgroup, such as containers; run beside the SIGKILL of the cgroup.
//!
//! All run in `/` with nothing to read, and hold nothing open on the mount.

use std::process::Stdio;
use std::time::Duration;

use tokio::process;

use super::Places;
use super::cgroup::Cgroup;
use super::output::Output;
use crate::error::{Error, Result};
use crate::probes::run;

const KILL_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct Command {
    start: Vec<String>,
    stop: Vec<String>,
    status: Vec<String>,
    kill: Vec<String>,
    cgroup: Cgroup,
    output: Output,
}

impl Command {
    pub(crate) fn new(
        name: &str,
        start: &[String],
        stop: &[String],
        status: &[String],
        kill: &[String],
        places: &Places,
    ) -> Self {
        Self {
            start: start.to_vec(),
            stop: stop.to_vec(),
            status: status.to_vec(),
            kill: kill.to_vec(),
            cgroup: Cgroup::of_unit(&places.cgroup, name),
            output: Output::of_unit(&places.run, name),
        }
    }

    /// Returns when the command has ended, which may be never.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut command = prepare(&self.start)?;
        self.output.attach(&mut command)?;
        self.cgroup.attach(&mut command)?;
        let spawned = command.spawn();
        let mut child = spawned.map_err(|source| Error::Spawn {
            command: self.start.join(" "),
            source,
        })?;
        self.cgroup.begun(child.id());
        let ended = child.wait().await;
        let status = ended.map_err(|source| Error::Io {
            doing: format!("waiting for `{}`", self.start.join(" ")),
            source,
        })?;
        if status.success() {
            Ok(())
        } else {
            Err(self.failed(&self.start, status))
        }
    }

    pub(crate) async fn stop(&self, within: Duration) -> Result<()> {
        if self.stop.is_empty() {
            return self.cgroup.terminate();
        }
        let mut command = prepare(&self.stop)?;
        command.kill_on_drop(true);
        self.output.attach(&mut command)?;
        let spawned = command.spawn();
        let mut child = spawned.map_err(|source| Error::Spawn {
            command: self.stop.join(" "),
            source,
        })?;
        match tokio::time::timeout(within, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failed(&self.stop, status)),
            Ok(Err(source)) => Err(Error::Io {
                doing: format!("waiting for `{}`", self.stop.join(" ")),
                source,
            }),
            Err(_) => Err(Error::CommandSlow {
                command: self.stop.join(" "),
                after: within,
            }),
        }
    }

    /// The cgroup first: it takes no process to do.
    pub(crate) async fn kill(&self) -> Result<()> {
        let killed = self.cgroup.kill();
        if !self.kill.is_empty() {
            run(&self.kill, KILL_WITHIN).await?;
        }
        killed
    }

    /// Whether anything of it is still there.
    pub(crate) async fn runs(&self, within: Duration) -> Result<bool> {
        Ok(self.cgroup.populated() || (!self.status.is_empty() && self.says_up(within).await?))
    }

    /// Whether it can say that it is up although nothing of it is in the cgroup.
    pub(crate) fn has_status(&self) -> bool {
        !self.status.is_empty()
    }

    /// Whether it says that it is up.
    pub(crate) async fn up(&self, within: Duration) -> Result<()> {
        let up = if self.status.is_empty() {
            self.cgroup.populated()
        } else {
            self.says_up(within).await?
        };
        if up {
            Ok(())
        } else {
            Err(Error::Unhealthy {
                what: "its status says that it isn't running".to_owned(),
            })
        }
    }

    async fn says_up(&self, within: Duration) -> Result<bool> {
        match run(&self.status, within).await {
            Ok(()) => Ok(true),
            Err(Error::CommandFailed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn failed(&self, command: &[String], status: std::process::ExitStatus) -> Error {
        let said = self
            .output
            .last_line()
            .map(|line| format!("; it said: {line}"))
            .unwrap_or_default();
        Error::CommandFailed {
            command: command.join(" "),
            status: status.to_string(),
            said,
        }
    }
}

/// In `/`, with nothing to read, and in a session of its own: no terminal, and no signal meant for this agent.
fn prepare(words: &[String]) -> Result<process::Command> {
    let (program, arguments) = words.split_first().ok_or(Error::EmptyCommand)?;
    let mut command = process::Command::new(program);
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    // These are for this agent, not for what it starts.
    command
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID");
    // SAFETY: setsid is async-signal-safe and touches no memory; it can't fail in a child that was just forked.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    Ok(command)
}
