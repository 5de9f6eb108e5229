//! Taking a lab down: all that it made, nothing else, however it ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::cgroups::Cgroups;
use super::configure::NodeFiles;
use super::names::{LabId, NODES};
use super::netns::Netns;
use super::state::{FILE, LOCK, Phase, State};
use super::{mounts, net};
use crate::process::collect;

/// What a lab makes in its folder.
pub const OWN_FOLDERS: [&str; 4] = ["n1", "n2", "n3", "conf"];
const LIMIT: Duration = Duration::from_secs(10);

/// Removes processes, mounts, namespaces and files, in that order: each holds the next. With `keep` the files stay.
/// Works from the folder's path alone if the lab's notes are gone. Files are removed only where notes, or the network
/// of that name, show that a lab made them.
pub fn take_down(dir: &Path, keep: bool) -> Result<()> {
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        // The folder was removed by hand; what the lab made elsewhere may still be there.
        Err(_) => std::path::absolute(dir).context("resolving the lab's folder")?,
    };
    let (id, state) = (LabId::of(&dir), State::load(&dir));
    let nothing_noted = state.as_ref().is_ok_and(Option::is_none);
    let namespaces: Vec<Netns> = id
        .namespaces()
        .into_iter()
        .map(Netns::named)
        .filter(Netns::exists)
        .collect();
    if nothing_noted && namespaces.is_empty() {
        bail!("there is no lab at {}", dir.display());
    }
    let cgroups = Cgroups::of(&dir);
    // The daemons first, all at once: nobody takes over from a node that is being taken down, and no process waits for
    // a mount any more.
    for daemon in state.iter().flatten().flat_map(|state| &state.daemons) {
        daemon.id.signal(Signal::KILL)?;
        collect(daemon.id.pid);
    }
    mounts::remove_below(&dir, LIMIT)?;
    for namespace in &namespaces {
        namespace.kill_all(LIMIT, || mounts::abort_below(&dir))?;
    }
    // A daemon that was without notes may have mounted meanwhile.
    mounts::remove_below(&dir, LIMIT)?;
    net::remove(&id).context("removing the lab's network")?;
    cgroups.remove();
    // Without notes there is nothing that says that DIR itself is the lab's: it stays.
    let state = state?.unwrap_or_else(|| State::new(&dir, PathBuf::new()));
    remove_files(&dir, state, keep)
}

fn remove_files(dir: &Path, mut state: State, keep: bool) -> Result<()> {
    // Of a node whose place another has taken.
    let replaced = NODES.map(|node| format!("{node}.old"));
    for node in NODES.into_iter().chain(replaced.iter().map(String::as_str)) {
        mounts::open_mount_point(&NodeFiles::of(dir, node).mount())?;
    }
    if keep {
        state.phase = Phase::Kept;
        state.daemons.clear();
        state.cuts.clear();
        return state.save();
    }
    // `holdfast init` makes its folder under another name first, and may have been killed meanwhile.
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    let half_made = entries
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("conf.new-"));
    for folder in OWN_FOLDERS
        .map(str::to_owned)
        .into_iter()
        .chain(replaced)
        .chain(half_made)
    {
        let folder = folder.as_str();
        ignore_missing(fs::remove_dir_all(dir.join(folder)))
            .with_context(|| format!("removing {}", dir.join(folder).display()))?;
    }
    // The notes go last: until then `down` can be repeated.
    for file in [LOCK, "lab.json.new", FILE] {
        ignore_missing(fs::remove_file(dir.join(file)))
            .with_context(|| format!("removing {}", dir.join(file).display()))?;
    }
    if state.made_dir {
        // Someone may have put files of their own there; then the folder stays with them.
        drop(fs::remove_dir(dir));
    }
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
