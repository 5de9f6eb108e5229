//! What a lab writes down about itself, in `DIR/lab.json`: before it makes anything, so that a lab that died halfway
//! can still be taken down.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::names::LabId;
use crate::process::ProcessId;

const VERSION: u32 = 1;
pub const FILE: &str = "lab.json";
pub const LOCK: &str = "lab.lock";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    pub id: LabId,
    pub dir: PathBuf,
    pub phase: Phase,
    /// The lab made DIR itself, and removes it.
    pub made_dir: bool,
    /// Folder of `holdfast` and `vip-agent`.
    pub binaries: PathBuf,
    pub agent: bool,
    /// Given to the daemons.
    pub environment: Vec<(String, String)>,
    /// A process in whose lifetime this lab lies (a test); None: it stays until `down`.
    pub owner: Option<ProcessId>,
    /// As given to `cut`, in order.
    pub cuts: Vec<String>,
    pub daemons: Vec<Daemon>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Being made, or died while it was.
    Making,
    Up,
    /// Taken down with its files kept.
    Kept,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Daemon {
    pub node: String,
    pub name: String,
    pub id: ProcessId,
}

impl State {
    pub fn new(dir: &Path, binaries: PathBuf) -> Self {
        Self {
            version: VERSION,
            id: LabId::of(dir),
            dir: dir.to_owned(),
            phase: Phase::Making,
            made_dir: false,
            binaries,
            agent: true,
            environment: Vec::new(),
            owner: None,
            cuts: Vec::new(),
            daemons: Vec::new(),
        }
    }

    /// None if there is no lab at `dir`.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        let state: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not a lab's notes", file.display()))?;
        ensure!(
            state.version == VERSION,
            "{} is of version {}, not {VERSION}",
            file.display(),
            state.version
        );
        ensure!(
            state.dir == dir,
            "{} belongs to the lab at {}; a lab's folder can't be moved or copied",
            file.display(),
            state.dir.display()
        );
        Ok(Some(state))
    }

    /// Replaces the file in one step: a crash leaves the old or the new notes.
    pub fn save(&self) -> Result<()> {
        let write = || -> io::Result<()> {
            let (file, fresh) = (self.dir.join(FILE), self.dir.join("lab.json.new"));
            let mut out = File::create(&fresh)?;
            out.write_all(&serde_json::to_vec_pretty(self)?)?;
            out.sync_all()?;
            fs::rename(fresh, file)
        };
        write().with_context(|| format!("writing the lab's notes in {}", self.dir.display()))
    }

    /// Changes the notes while nobody else does.
    pub fn update(dir: &Path, change: impl FnOnce(&mut Self)) -> Result<Self> {
        let _lock = lock(dir)?;
        let mut state = Self::load(dir)?.with_context(|| no_lab(dir))?;
        change(&mut state);
        state.save()?;
        Ok(state)
    }
}

/// Held while the notes are changed, for an instant only.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

pub fn no_lab(dir: &Path) -> String {
    format!(
        "there is no lab at {0}; make one with `holdfast-lab up --dir {0}`",
        dir.display()
    )
}
