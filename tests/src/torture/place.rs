//! Where the file system is: of several mounts the one that works now.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::clock::wait_for;

/// A failover, and a fault of the next node right after it.
const BACK_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The mounts of a cluster's nodes, or one folder of a local file system.
    pub roots: Vec<PathBuf>,
    /// The worker's own folder below them.
    #[arg(long)]
    pub folder: String,
}

impl Place {
    /// On a local file system no error is excused.
    pub(super) fn fails_over(&self) -> bool {
        self.roots.len() > 1
    }

    /// The folder, where it can be opened. What is done relative to it ends with the mount's role, and never reaches
    /// another node's mount or the bare directory below it.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        wait_for("a mount that works", BACK_LIMIT, || {
            let mut why = anyhow!("there is no mount");
            for root in &self.roots {
                let path = root.join(&self.folder);
                match openat(CWD, &path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                    Ok(folder) => return Ok(Some(folder)),
                    Err(errno) => why = why.context(format!("{}: {errno}", path.display())),
                }
            }
            Err(why)
        })
    }
}
