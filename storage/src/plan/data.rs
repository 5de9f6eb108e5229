//! Bytes of files: write and fallocate. The inode's record is all that is read and put: writes must stay cheap.

use super::attr::drop_setid;
use super::scratch::{Scratch, Stop};
use crate::effects::Effect;
use crate::op::{Fallocate, Refusal, Reply};
use crate::record::Inode;
use crate::types::{Ino, MAX_FILE, MAX_WRITE};
use bytes::Bytes;

pub(super) fn write(
    scratch: &mut Scratch<'_>,
    ino: Ino,
    offset: u64,
    data: &Bytes,
    clear_setid: bool,
) -> Result<Reply, Stop> {
    let mut inode = scratch.inode(ino)?;
    if !inode.is_file() || data.len() > MAX_WRITE {
        return Err(Refusal::Invalid.into());
    }
    if data.is_empty() {
        return Ok(Reply::Written(0));
    }
    inode.size = inode.size.max(end_of(offset, data.len() as u64)?);
    if clear_setid {
        drop_setid(&mut inode);
    }
    put_modified(scratch, ino, inode);
    scratch.data(Effect::Write {
        ino,
        offset,
        data: data.clone(),
    });
    Ok(Reply::Written(u32::try_from(data.len()).expect("at most MAX_WRITE")))
}

/// Reserving reserves nothing yet: an inode's size is all that changes. That the space is there is checked when the
/// operation is admitted, for this one as for every write.
pub(super) fn fallocate(
    scratch: &mut Scratch<'_>,
    ino: Ino,
    offset: u64,
    len: u64,
    how: Fallocate,
) -> Result<Reply, Stop> {
    let mut inode = scratch.inode(ino)?;
    if inode.is_dir() {
        return Err(Refusal::IsDirectory.into());
    }
    if !inode.is_file() || len == 0 {
        return Err(Refusal::Invalid.into());
    }
    let end = end_of(offset, len)?;
    let old_size = inode.size;
    match how {
        Fallocate::Allocate | Fallocate::Zero { keep_size: false } => inode.size = inode.size.max(end),
        Fallocate::KeepSize | Fallocate::Punch | Fallocate::Zero { keep_size: true } => {}
    }
    // The request doesn't say whether the caller may keep set-id bits, and the kernel leaves them to us.
    drop_setid(&mut inode);
    put_modified(scratch, ino, inode);
    // Beyond the old end all reads as zeros already.
    let zeroes = matches!(how, Fallocate::Punch | Fallocate::Zero { .. });
    if zeroes && offset < old_size {
        scratch.data(Effect::Zero {
            ino,
            offset,
            len: end.min(old_size) - offset,
        });
    }
    Ok(Reply::Done { orphaned: None })
}

fn end_of(offset: u64, len: u64) -> Result<u64, Refusal> {
    offset
        .checked_add(len)
        .filter(|end| *end <= MAX_FILE)
        .ok_or(Refusal::TooLarge)
}

fn put_modified(scratch: &mut Scratch<'_>, ino: Ino, mut inode: Inode) {
    inode.mtime = scratch.now();
    inode.ctime = scratch.now();
    inode.seal = None;
    scratch.put_inode(ino, &inode);
}
