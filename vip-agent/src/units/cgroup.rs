//! What a unit has started, so that all of it can be killed at once, also by an agent that was restarted since.
//!
//! Every start command is put into a cgroup (v2) of its unit, below the cgroup that this agent runs in; what it starts stays
//! in there, whatever sessions it makes. Where no cgroup v2 can be written, processes are found by a mark in the environment
//! that they inherit, and by the sessions of those that carry it. That finds less: a process which has cleared its environment
//! *and* made a session of its own escapes; the unit's `kill` command is then the only way.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tracing::warn;

use crate::error::{Error, Result};

const MARK: &str = "VIP_AGENT_UNIT";

pub(super) struct Cgroup {
    /// Absent: no cgroup v2 can be written here.
    folder: Option<PathBuf>,
    mark: String,
}

impl Cgroup {
    pub(super) fn of_unit(agent: &str, unit: &str) -> Self {
        let mark = format!("{agent}/{unit}");
        let folder = own_cgroup().map(|own| own.join(agent).join(unit));
        let made = folder.filter(|folder| match fs::create_dir_all(folder) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, folder = %folder.display(), "no cgroup for the unit: its processes are tracked by session");
                false
            }
        });
        Self { folder: made, mark }
    }

    /// The command will run inside, from its first instruction on.
    pub(super) fn attach(&self, command: &mut Command) -> Result<()> {
        command.env(MARK, &self.mark);
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
            None => marked(&self.mark),
        }
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

/// Processes that carry the mark, and those in their sessions.
fn marked(mark: &str) -> Vec<Pid> {
    let needle = format!("{MARK}={mark}");
    let processes: Vec<(Pid, i32, bool)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| process(&entry.path(), &needle))
        .collect();
    let sessions: Vec<i32> = processes
        .iter()
        .filter(|(_, _, carries)| *carries)
        .map(|(_, session, _)| *session)
        .collect();
    processes
        .into_iter()
        .filter(|(_, session, carries)| *carries || sessions.contains(session))
        .map(|(pid, _, _)| pid)
        .collect()
}

/// (pid, session, carries the mark) of a folder of /proc. Zombies don't count: they run no more.
fn process(folder: &Path, needle: &str) -> Option<(Pid, i32, bool)> {
    let pid = Pid::from_raw(folder.file_name()?.to_str()?.parse().ok()?)?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let session: i32 = fields.nth(2)?.parse().ok()?;
    let environment = fs::read(folder.join("environ")).unwrap_or_default();
    let carries = environment
        .split(|byte| *byte == 0)
        .any(|variable| OsString::from_vec(variable.to_vec()) == needle);
    (state != "Z").then_some((pid, session, carries))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A shell that leaves a child in a session of its own behind, and ends.
    async fn leave_child(cgroup: &Cgroup) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "setsid sleep 1000 & sleep 0.1"]);
        cgroup.attach(&mut command).unwrap();
        assert!(command.status().await.unwrap().success());
    }

    async fn is_killed_at_once(cgroup: &Cgroup) {
        assert!(!cgroup.populated());
        leave_child(cgroup).await;
        assert!(cgroup.populated());
        cgroup.kill().unwrap();
        for _ in 0..100 {
            if !cgroup.populated() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still there a second after it was killed");
    }

    #[tokio::test]
    async fn what_a_start_command_left_behind_is_found_by_its_cgroup() {
        let cgroup = Cgroup::of_unit(&format!("vip-agent-test-{}", std::process::id()), "unit");
        assert!(
            cgroup.folder.is_some(),
            "this test needs root and a cgroup v2 hierarchy"
        );
        is_killed_at_once(&cgroup).await;
        let folder = cgroup.folder.clone().unwrap();
        drop(cgroup);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn without_a_cgroup_it_is_found_by_its_mark() {
        let mark = format!("vip-agent-test-{}/marked", std::process::id());
        is_killed_at_once(&Cgroup { folder: None, mark }).await;
    }
}
