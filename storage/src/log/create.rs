//! Making a log: segments written full of zeros, so that no later write has to change the file system's own records.

use super::error::LogError;
use super::format::{self, Geometry, Hash};
use super::grow;
use super::segments::{DESCRIPTION, FOLDER, NEW_DESCRIPTION, free_path};
use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, DiskFile, OpenHow};
use std::io;

/// Zeros are written in pieces of this size.
const PIECE: u64 = 1 << 20;

pub(super) fn create<D: Disk>(disk: &D, geometry: Geometry, log_id: Hash) -> Result<(), LogError> {
    if !geometry.is_valid() {
        let Geometry {
            segment_bytes,
            segments,
        } = geometry;
        return Err(LogError::BadGeometry {
            segment_bytes,
            segments,
        });
    }
    disk.create_dir(FOLDER)
        .map_err(LogError::io("making the folder", FOLDER))?;
    disk.sync_dir("")
        .map_err(LogError::io("syncing the folder above", FOLDER))?;
    let names = disk.list(FOLDER).map_err(LogError::io("listing the folder", FOLDER))?;
    if names.iter().any(|name| format!("{FOLDER}/{name}") == DESCRIPTION) {
        return Err(LogError::AlreadyFormatted);
    }
    let zeros = zeros(geometry);
    for place in 0..geometry.segments {
        let path = free_path(place);
        zero_segment(disk, &path, geometry.segment_bytes, &zeros).map_err(LogError::io("zeroing", path))?;
        tracing::info!(
            segment = place + 1,
            of = geometry.segments,
            "preparing the log: segment zeroed"
        );
    }
    remove_others(disk, &names, geometry)?;
    disk.sync_dir(FOLDER)
        .map_err(LogError::io("syncing the folder", FOLDER))?;
    describe(disk, geometry, log_id).map_err(LogError::io("writing", DESCRIPTION))
}

pub(super) fn zeros(geometry: Geometry) -> AlignedBuf {
    AlignedBuf::zeroed(PIECE.min(geometry.segment_bytes) as usize)
}

pub(super) fn zero_segment<D: Disk>(disk: &D, path: &str, len: u64, zeros: &[u8]) -> io::Result<()> {
    let file = disk.open(
        path,
        OpenHow {
            create: true,
            direct: true,
        },
    )?;
    file.set_len(len)?;
    // In one piece on disk where possible.
    file.reserve(0, len)?;
    fill(&file, len, zeros)
}

/// So that nothing of what was there is left, sectors that can't be read among it.
pub(super) fn clear<F: DiskFile>(file: &F, len: u64) -> io::Result<()> {
    fill(file, len, &AlignedBuf::zeroed(PIECE.min(len) as usize))
}

fn fill<F: DiskFile>(file: &F, len: u64, zeros: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let piece = (zeros.len() as u64).min(len - at);
        file.write_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    file.sync_data()
}

/// Gives up all that the segments hold: the log is empty, of another id, and its files are as large as they were. They
/// aren't zeroed anew, for a batch with another log's id is none.
pub(super) fn give_up<D: Disk>(disk: &D, new_id: Hash) -> Result<(), LogError> {
    let (_, geometry) = read_description(disk)?;
    // So that each name that is free is free.
    grow::finish(disk, geometry)?;
    let names = disk.list(FOLDER).map_err(LogError::io("listing the folder", FOLDER))?;
    let mut places = (0..)
        .map(free_path)
        .filter(|path| !names.iter().any(|name| format!("{FOLDER}/{name}") == *path));
    for name in names.iter().filter(|name| name.ends_with(".seg")) {
        let path = format!("{FOLDER}/{name}");
        let place = places.next().expect("numbers don't end");
        disk.rename(&path, &place).map_err(LogError::io("renaming", path))?;
    }
    disk.sync_dir(FOLDER)
        .map_err(LogError::io("syncing the folder", FOLDER))?;
    // Crash before: an empty log of the old id, or some segments without the ones before them; it is given up once more.
    describe(disk, geometry, new_id).map_err(LogError::io("writing", DESCRIPTION))
}

/// An interrupted earlier attempt may have made more segments.
fn remove_others<D: Disk>(disk: &D, names: &[String], geometry: Geometry) -> Result<(), LogError> {
    let ours: Vec<String> = (0..geometry.segments).map(free_path).collect();
    for path in names
        .iter()
        .map(|name| format!("{FOLDER}/{name}"))
        .filter(|path| !ours.contains(path))
    {
        disk.remove(&path).map_err(LogError::io("removing", path))?;
    }
    Ok(())
}

/// Crash before the rename is stable: no log yet, it is made again; or the description that there was.
pub(super) fn describe<D: Disk>(disk: &D, geometry: Geometry, log_id: Hash) -> io::Result<()> {
    let file = disk.open(
        NEW_DESCRIPTION,
        OpenHow {
            create: true,
            direct: false,
        },
    )?;
    file.write_synced(&format::encode_description(log_id, geometry), 0)?;
    disk.rename(NEW_DESCRIPTION, DESCRIPTION)?;
    disk.sync_dir(FOLDER)
}

/// The description of the log that is there.
pub(super) fn read_description<D: Disk>(disk: &D) -> Result<(Hash, Geometry), LogError> {
    let file = match disk.open(DESCRIPTION, OpenHow::default()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LogError::NotFormatted),
        opened => opened.map_err(LogError::io("opening", DESCRIPTION))?,
    };
    let mut bytes = [0; format::DESCRIPTION];
    file.read_at(&mut bytes, 0)
        .map_err(LogError::io("reading", DESCRIPTION))?;
    format::decode_description(&bytes).ok_or(LogError::BadFormat)
}
