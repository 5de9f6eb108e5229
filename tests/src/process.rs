//! Processes, named so that a recycled process id never hits the wrong one, and commands that always end.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process id together with the moment of its start: the pair is never used twice while a machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks after the machine's boot, as in `/proc/PID/stat`.
    pub started: u64,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessInfo {
    #[serde(flatten)]
    pub id: ProcessId,
    pub parent: i32,
    pub name: String,
    /// The kernel's letter: R and S run, D waits uninterruptibly, T is stopped, Z is dead and not yet collected.
    pub state: char,
}

impl ProcessInfo {
    /// None if there is no such process, or only its remains.
    pub fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may itself contain parentheses and blanks.
        let (before, after) = (stat.split_once('(')?.1, stat.rfind(')')?);
        let name = before.get(..before.rfind(')')?)?.to_owned();
        let fields: Vec<&str> = stat.get(after + 1..)?.split_whitespace().collect();
        let state = fields.first()?.chars().next()?;
        let parent = fields.get(1)?.parse().ok()?;
        let started = fields.get(19)?.parse().ok()?;
        (!matches!(state, 'Z' | 'X')).then_some(Self {
            id: ProcessId { pid, started },
            parent,
            name,
            state,
        })
    }
}

/// How long looking at one process may take.
const LOOK_LIMIT: Duration = Duration::from_millis(500);

/// Looks at every process of the machine; returns what was found and the ids of those that can't be looked at.
///
/// A process in `execve` that waits there for a hanging file system blocks whoever reads its `/proc` entries, whatever
/// file system it is: that must not hang a lab which has nothing to do with it.
pub fn look_at_all<T: Send + 'static>(look: impl Fn(i32) -> Option<T> + Clone + Send + 'static) -> (Vec<T>, Vec<i32>) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return (Vec::new(), Vec::new());
    };
    let pids: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let (mut found, mut stuck, mut next) = (Vec::new(), Vec::new(), 0);
    while next < pids.len() {
        let (rest, look) = (pids[next..].to_vec(), look.clone());
        let (sender, results) = std::sync::mpsc::channel();
        // Abandoned where it hangs; it ends when it can.
        thread::spawn(move || rest.into_iter().try_for_each(|pid| sender.send(look(pid))));
        while next < pids.len() {
            match results.recv_timeout(LOOK_LIMIT) {
                Ok(one) => found.extend(one),
                Err(_blocked) => {
                    stuck.push(pids[next]);
                    next += 1;
                    break;
                }
            }
            next += 1;
        }
    }
    (found, stuck)
}

impl ProcessId {
    pub fn of(pid: i32) -> Option<Self> {
        ProcessInfo::read(pid).map(|info| info.id)
    }

    pub fn own() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends the signal to exactly this process; false if it had ended.
    pub fn signal(self, signal: Signal) -> Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(false);
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(false);
        };
        // The handle pins the process; only now is it certain that the id wasn't given to another one.
        if !self.alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("sending {signal:?} to process {}", self.pid)),
        }
    }
}

/// Collects a child of ours that has ended; does nothing about processes that are someone else's.
pub fn collect(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _not_our_child = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    }
}

/// Waits until the child ends, at most `limit`; false if it still runs.
pub fn wait_child(child: &mut Child, limit: Duration) -> Result<bool> {
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty()).context("opening a handle on a started process")?;
    let timeout = Timespec {
        tv_sec: i64::try_from(limit.as_secs())?,
        tv_nsec: limit.subsec_nanos().into(),
    };
    let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    Ok(poll(&mut fds, Some(&timeout)).context("waiting for a started process")? > 0)
}

/// Runs a command to its end with nothing on its input; a command that isn't done at the limit is killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    run_with_input(command, b"", limit)
}

/// As `run`, with these bytes on its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    let mut stdin = child.stdin.take().context("the child has no input")?;
    let input = input.to_owned();
    // A child that doesn't read its input is no fault.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = drain(child.stdout.take().context("the child has no output")?);
    let stderr = drain(child.stderr.take().context("the child has no error output")?);
    if !wait_child(&mut child, limit)? {
        child.kill().with_context(|| format!("killing {shown}"))?;
        // A process in an uninterruptible wait dies later; it must not hold up its caller.
        if wait_child(&mut child, Duration::from_secs(1))? {
            child.wait()?;
        }
        bail!("{shown} was not done after {limit:?} and has been killed");
    }
    let status = child.wait()?;
    drop(writer);
    // A grandchild may hold the pipes open for longer than the command lives.
    let patience = Duration::from_secs(1);
    let stdout = stdout.recv_timeout(patience).unwrap_or_default();
    let stderr = stderr.recv_timeout(patience).unwrap_or_default();
    Ok(Output { status, stdout, stderr })
}

/// As `run`, but a non-zero exit code is an error with what the command said. Returns its output as text.
pub fn run_ok(command: &mut Command, limit: Duration) -> Result<String> {
    let shown = show(command);
    let output = run(command, limit)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut all = Vec::new();
        // What came before an error is still worth having.
        drop(pipe.read_to_end(&mut all));
        drop(sender.send(all));
    });
    receiver
}

/// The command as a person would type it.
pub fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    format!("`{}`", words.join(" "))
}
