//! A log made longer: segments of the same size are added to those that it has.

use super::create::{describe, zero_segment, zeros};
use super::error::LogError;
use super::format::{Geometry, Hash};
use super::segments::{DESCRIPTION, FOLDER, free_path};
use crate::disk::Disk;

/// Behind the name that a new segment will have, until the description counts it.
const NEW: &str = ".new";
const NEW_FREE: &str = ".free.new";
/// Each is an open file.
const SEGMENTS_MAX: u64 = 1024;

/// Added at once. What a start that is broken off has added stays, so that the next one comes further.
const AT_ONCE: u32 = 4;

/// What a log of these segments comes to next, on its way to so many bytes; none: it is there.
pub(super) fn next_step(geometry: Geometry, total_bytes: u64) -> Option<Geometry> {
    let wanted = (total_bytes / geometry.segment_bytes).min(SEGMENTS_MAX);
    let wanted = u32::try_from(wanted).expect("no more than the most");
    let segments = wanted.min(geometry.segments.saturating_add(AT_ONCE));
    (segments > geometry.segments).then_some(Geometry { segments, ..geometry })
}

/// Crash before the description: a shorter log, and files that `finish` removes. After it: `finish` gives them their names.
pub(super) fn grow<D: Disk>(disk: &D, log_id: Hash, from: Geometry, to: Geometry) -> Result<Vec<String>, LogError> {
    let made = make(disk, from, to).inspect_err(|_| {
        // No room, mostly: it is given back, here or at the next start.
        let _ = remove_new(disk);
    })?;
    describe(disk, to, log_id).map_err(LogError::io("writing", DESCRIPTION))?;
    name(disk, made)
}

/// New segments, zeroed and stable, under names that nothing looks at.
fn make<D: Disk>(disk: &D, from: Geometry, to: Geometry) -> Result<Vec<String>, LogError> {
    let names = list(disk)?;
    let zeros = zeros(to);
    let places = (0..).map(free_path).filter(|path| !names.contains(path));
    let mut made = Vec::new();
    for path in places.take((to.segments - from.segments) as usize) {
        let path = format!("{path}{NEW}");
        zero_segment(disk, &path, to.segment_bytes, &zeros).map_err(LogError::io("zeroing", path.as_str()))?;
        made.push(path);
    }
    tracing::info!(segments = to.segments, "making the log longer: new segments zeroed");
    sync(disk)?;
    Ok(made)
}

/// What an interrupted growth has left: it is brought to its end if the description counts the new segments, else taken back.
pub(super) fn finish<D: Disk>(disk: &D, geometry: Geometry) -> Result<(), LogError> {
    let (new, others): (Vec<String>, Vec<String>) = list(disk)?.into_iter().partition(|path| path.ends_with(NEW_FREE));
    if new.is_empty() {
        return Ok(());
    }
    let is_segment = |path: &&String| path.ends_with(".seg") || path.ends_with(".free");
    let missing = (geometry.segments as usize).saturating_sub(others.iter().filter(is_segment).count());
    if new.len() == missing {
        name(disk, new).map(drop)
    } else {
        remove_new(disk)
    }
}

fn name<D: Disk>(disk: &D, new: Vec<String>) -> Result<Vec<String>, LogError> {
    let mut named = Vec::new();
    for path in new {
        let free = path.strip_suffix(NEW).expect("that is how they are called").to_owned();
        disk.rename(&path, &free).map_err(LogError::io("renaming", path))?;
        named.push(free);
    }
    sync(disk)?;
    Ok(named)
}

fn remove_new<D: Disk>(disk: &D) -> Result<(), LogError> {
    for path in list(disk)?.into_iter().filter(|path| path.ends_with(NEW_FREE)) {
        disk.remove(&path).map_err(LogError::io("removing", path.as_str()))?;
    }
    sync(disk)
}

fn list<D: Disk>(disk: &D) -> Result<Vec<String>, LogError> {
    let mut names = disk.list(FOLDER).map_err(LogError::io("listing the folder", FOLDER))?;
    names.sort();
    Ok(names.into_iter().map(|name| format!("{FOLDER}/{name}")).collect())
}

fn sync<D: Disk>(disk: &D) -> Result<(), LogError> {
    disk.sync_dir(FOLDER)
        .map_err(LogError::io("syncing the folder", FOLDER))
}
