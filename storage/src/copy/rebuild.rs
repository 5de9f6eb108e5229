//! Checksums made anew from what the files hold, for a store whose files and checksums may not fit each other.

use crate::data::sums::{self, GROUP, Group};
use crate::data::{self, DataFiles};
use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::StoreError;
use crate::meta::{Change, Meta};
use crate::types::{BLOCK, Ino};
use bytes::Bytes;

const GROUP_BYTES: u64 = GROUP * BLOCK;

pub(super) fn checksums<D: Disk, M: Meta>(disk: &D, files: &DataFiles<D>, meta: &M) -> Result<(), StoreError> {
    tracing::info!("the store may have been left in the middle of a change: reading all its files for their checksums");
    meta.write(vec![Change::DeleteRange(
        Bytes::from_static(b"b"),
        Bytes::from_static(b"c"),
    )])?;
    for ino in files.list()? {
        let path = data::path(ino);
        let file = disk
            .open(&path, OpenHow::default())
            .map_err(StoreError::disk("opening", &path))?;
        of_file(&file, ino, meta).map_err(|error| match error {
            Failed::Reading(source) => StoreError::disk("reading", &path)(source),
            Failed::Writing(error) => error,
        })?;
    }
    Ok(())
}

enum Failed {
    Reading(std::io::Error),
    Writing(StoreError),
}

fn of_file(file: &impl DiskFile, ino: Ino, meta: &impl Meta) -> Result<(), Failed> {
    let mut buffer = AlignedBuf::zeroed(GROUP_BYTES as usize);
    let mut at = 0;
    // Over holes in one step: a sparse file may be far larger than any disk.
    while let Some(data) = file.next_data(at).map_err(Failed::Reading)? {
        let group = data / GROUP_BYTES;
        let sums = of_group(file, group * GROUP_BYTES, &mut buffer);
        meta.write(vec![sums.change(ino, group)]).map_err(Failed::Writing)?;
        at = (group + 1) * GROUP_BYTES;
    }
    Ok(())
}

/// A block that can't be read differs from whatever the source has.
fn of_group(file: &impl DiskFile, offset: u64, buffer: &mut [u8]) -> Group {
    let whole = file.read_at(buffer, offset).map(|got| buffer[got..].fill(0)).is_ok();
    let mut sums = Group::empty();
    for ((sum, block), at) in sums.0.iter_mut().zip(buffer.chunks_exact_mut(BLOCK as usize)).zip(0..) {
        if !whole {
            match file.read_at(block, offset + at * BLOCK) {
                Ok(got) => block[got..].fill(0),
                Err(_) => {
                    *sum = sums::DAMAGED;
                    continue;
                }
            }
        }
        if block.iter().any(|byte| *byte != 0) {
            *sum = sums::of(block);
        }
    }
    sums
}
