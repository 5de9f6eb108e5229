//! One network namespace: entering it, and finding and signalling all that runs in it. It stands for one machine.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::clock::{Deadline, pause};
use crate::process::{ProcessInfo, collect, look_at_all};

#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
}

impl Netns {
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Tells it from a later one of this name; none if there is none now.
    pub fn inode(&self) -> Option<u64> {
        fs::metadata(self.path()).ok().map(|found| found.ino())
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("opening network namespace {}; is the lab up?", self.name))
    }

    /// Makes the command run in this network namespace and in the caller's mount namespace, where the mounts are
    /// (`ip netns exec` would make a mount namespace of its own, in which they stay pinned).
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let namespace = self.open()?;
        // SAFETY: between fork and exec only setns(2) is called; nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(())
            });
        }
        Ok(())
    }

    /// Moves the calling thread alone into this network namespace.
    pub fn enter_thread(&self) -> Result<()> {
        move_into_link_name_space(self.open()?.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering network namespace {}", self.name))
    }

    /// All living processes whose network this is, by inode: also what a dead parent left behind.
    pub fn processes(&self) -> Vec<ProcessInfo> {
        let Ok(own) = fs::metadata(self.path()) else {
            return Vec::new();
        };
        let (inode, device) = (own.ino(), own.dev());
        let here = move |pid: i32| {
            let theirs = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
            (theirs.ino() == inode && theirs.dev() == device)
                .then(|| ProcessInfo::read(pid))
                .flatten()
        };
        look_at_all(here).0
    }

    /// Sends a signal to all that runs here, again until nothing new turns up (a process may fork meanwhile).
    pub fn signal_all(&self, signal: Signal) -> Result<usize> {
        let mut done = Vec::new();
        for _round in 0..20 {
            let fresh: Vec<_> = self
                .processes()
                .into_iter()
                .filter(|info| !done.contains(&info.id))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for info in fresh {
                info.id.signal(signal)?;
                done.push(info.id);
            }
        }
        Ok(done.len())
    }

    /// SIGKILL to all that runs here, until nothing does. After half of `limit`, `unblock` is called to free
    /// processes that wait for a file system.
    pub fn kill_all(&self, limit: Duration, mut unblock: impl FnMut()) -> Result<()> {
        let (deadline, half) = (Deadline::after(limit), Deadline::after(limit / 2));
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            for info in &left {
                info.id.signal(Signal::KILL)?;
                collect(info.id.pid);
            }
            if half.passed() {
                unblock();
            }
            if deadline.passed() {
                let names: Vec<_> = left
                    .iter()
                    .map(|info| format!("{} {} ({})", info.id.pid, info.name, info.state))
                    .collect();
                bail!(
                    "processes in {} outlived SIGKILL by {limit:?}: {}",
                    self.name,
                    names.join(", ")
                );
            }
            pause(Duration::from_millis(5));
        }
    }
}
