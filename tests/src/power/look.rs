//! What the load's files on a mount are now. It runs as a process of its own, which can be given up if the mount hangs,
//! and which leaves no open file behind in the program that takes power away.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::load::{RECORDINGS, RECORDS, SETTING, setting_in};
use crate::demo::pattern::Pattern;

/// As they were found, by their names relative to the mount.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    pub files: BTreeMap<String, Found>,
    /// None: there is no whole one.
    pub setting: Option<u64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Found {
    pub length: u64,
    /// The first byte that isn't what belongs there.
    pub wrong: Option<u64>,
}

/// Reads all of them, and says what it found in one line of JSON.
pub fn look(root: &Path) -> Result<()> {
    let mut seen = Seen::default();
    for folder in [RECORDINGS, RECORDS] {
        let path = root.join(folder);
        for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
            let name = entry
                .with_context(|| format!("reading {}", path.display()))?
                .file_name();
            let name = name.to_string_lossy();
            if !name.starts_with(SETTING) {
                let found = found(&path.join(&*name), &name)?;
                seen.files.insert(format!("{folder}/{name}"), found);
            }
        }
    }
    seen.setting = match fs::read(root.join(RECORDS).join(SETTING)) {
        Ok(bytes) => setting_in(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).context("reading the setting"),
    };
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

fn found(path: &Path, name: &str) -> Result<Found> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (pattern, mut buffer, mut at) = (Pattern::of(name), vec![0; 256 << 10], 0);
    let mut wrong = None;
    loop {
        let length = file
            .read_at(&mut buffer, at)
            .with_context(|| format!("reading {} at {at}", path.display()))?;
        if length == 0 {
            return Ok(Found { length: at, wrong });
        }
        wrong = wrong.or_else(|| pattern.first_difference(at, &buffer[..length]));
        at += length as u64;
    }
}

/// Removes the files whose names are on the standard input, a line each, and syncs the folders.
pub fn remove(root: &Path) -> Result<()> {
    for name in io::stdin().lines() {
        let path = root.join(name.context("reading names")?);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    for folder in [RECORDINGS, RECORDS] {
        let path = root.join(folder);
        File::open(&path)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("syncing {}", path.display()))?;
    }
    Ok(())
}
