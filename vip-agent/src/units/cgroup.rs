//! What a unit has started, so that all of it can be killed at once, also by an agent that was restarted since.
//!
//! Every start command is put into a cgroup (v2) of its unit, below the cgroup that this agent runs in; what it starts stays
//! in there, whatever sessions it makes. Where no cgroup v2 can be written, the sessions of the start commands are
//! remembered instead. That finds less: a process that made a session of its own escapes, and so does all that an
//! earlier agent has started; the unit's `status`, `stop` and `kill` commands are then the only way.
//!
//! Nothing is read from the /proc folders of processes: the kernel lets that wait, without end, for a process that is stuck
//! on a mount that doesn't answer, which is when this module is needed most.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tracing::warn;

use crate::error::{Error, Result};

pub(super) struct Cgroup {
    /// Absent: no cgroup v2 can be written here.
    folder: Option<PathBuf>,
    /// Sessions of start commands, as far as anything runs in them.
    sessions: Mutex<Vec<Pid>>,
}

impl Cgroup {
    pub(super) fn of_unit(agent: &str, unit: &str) -> Self {
        let folder = own_cgroup().map(|own| own.join(agent).join(unit));
        let made = folder.filter(|folder| fs::create_dir_all(folder).is_ok());
        if made.is_none() {
            warn!(
                unit,
                "no cgroup v2 can be written here: the unit's processes are tracked by their sessions"
            );
        }
        Self {
            folder: made,
            sessions: Mutex::default(),
        }
    }

    /// The command will run inside, from its first instruction on.
    pub(super) fn attach(&self, command: &mut Command) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let members = folder.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&members);
        let file = file.map_err(|source| Error::Io {
            doing: format!("opening {}", members.display()),
            source,
        })?;
        // SAFETY: write is async-signal-safe, and the file stays open in the closure until the child has used it.
        unsafe {
            command.pre_exec(move || enter(&file));
        }
        Ok(())
    }

    /// The start command has begun, in a session of its own: its process id is the session's.
    pub(super) fn begun(&self, process: Option<u32>) {
        let session = process.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(session);
    }

    pub(super) fn populated(&self) -> bool {
        !self.members().is_empty()
    }

    pub(super) fn kill(&self) -> Result<()> {
        if let Some(folder) = &self.folder {
            // Kernels before 5.14 have no such file; those are killed one by one below.
            let _ = fs::write(folder.join("cgroup.kill"), "1");
        }
        self.signal(Signal::KILL)
    }

    pub(super) fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for pid in self.members() {
            match kill_process(pid, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => {
                    let doing = format!("sending {signal:?} to process {pid}");
                    return Err(Error::Io {
                        doing,
                        source: error.into(),
                    });
                }
            }
        }
        Ok(())
    }

    fn members(&self) -> Vec<Pid> {
        match &self.folder {
            Some(folder) => members_below(folder),
            None => self.members_by_session(),
        }
    }

    /// Forgets the sessions that have ended, for their numbers will be used again.
    fn members_by_session(&self) -> Vec<Pid> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut members: Vec<(Pid, Pid)> = processes.filter_map(|entry| with_session(&entry.file_name())).collect();
        members.retain(|(_, session)| sessions.contains(session));
        sessions.retain(|session| members.iter().any(|(_, of)| of == session));
        members.into_iter().map(|(process, _)| process).collect()
    }
}

/// An agent that ends leaves no empty cgroups behind; one with processes in it stays, for the next agent to find.
impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
            let _ = folder.parent().map(fs::remove_dir);
        }
    }
}

/// Called between fork and exec: "0" is whoever writes it.
fn enter(members: &File) -> io::Result<()> {
    // SAFETY: the buffer is a constant of the length given.
    let written = unsafe { libc::write(members.as_raw_fd(), c"0".as_ptr().cast(), 1) };
    if written == 1 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Units may make cgroups of their own below ours.
fn members_below(folder: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut members: Vec<Pid> = listed
        .lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .collect();
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        members.extend(members_below(&entry.path()));
    }
    members
}

/// Folder of this process's own cgroup v2.
pub(super) fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(own))
}

/// The process of that number, if it is one and still there, and its session.
fn with_session(number: &OsStr) -> Option<(Pid, Pid)> {
    let process = Pid::from_raw(number.to_str()?.parse().ok()?)?;
    // SAFETY: getsid touches no memory. (rustix's would make a Pid of 0, the session of the kernel's threads.)
    let session = unsafe { libc::getsid(process.as_raw_nonzero().get()) };
    Some((process, Pid::from_raw(session.max(0))?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A shell in a session of its own that leaves this behind, and ends.
    async fn leave(cgroup: &Cgroup, behind: &str) {
        let mut command = Command::new("/usr/bin/setsid");
        command.args(["/bin/sh", "-c", &format!("{behind} & sleep 0.1")]);
        cgroup.attach(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        cgroup.begun(child.id());
        assert!(child.wait().await.unwrap().success());
    }

    async fn is_killed_at_once(cgroup: &Cgroup, behind: &str) {
        assert!(!cgroup.populated());
        leave(cgroup, behind).await;
        assert!(cgroup.populated());
        cgroup.kill().unwrap();
        // Dead processes count until process 1 has reaped them, which takes its time in some containers.
        for _ in 0..1000 {
            if !cgroup.populated() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still there ten seconds after it was killed");
    }

    #[tokio::test]
    async fn what_a_start_command_left_behind_is_found_by_its_cgroup() {
        let cgroup = Cgroup::of_unit(&format!("vip-agent-test-{}", std::process::id()), "unit");
        assert!(
            cgroup.folder.is_some(),
            "this test needs root and a cgroup v2 hierarchy"
        );
        is_killed_at_once(&cgroup, "setsid sleep 1000").await;
        let folder = cgroup.folder.clone().unwrap();
        drop(cgroup);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn without_a_cgroup_it_is_found_by_its_session() {
        let cgroup = Cgroup {
            folder: None,
            sessions: Mutex::default(),
        };
        is_killed_at_once(&cgroup, "sleep 1000").await;
        assert!(
            cgroup.sessions.lock().unwrap().is_empty(),
            "ended sessions are forgotten"
        );
    }
}
