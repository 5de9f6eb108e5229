//! Inodes as the kernel wants them, and the kernel's times as the planner wants them.

use fuser::{FileAttr, FileType, Generation, INodeNo, TimeOrNow};
use holdfast_replicator::api::Failure;
use holdfast_storage::op::{Refusal, SetTime};
use holdfast_storage::record::Inode;
use holdfast_storage::types::{BLOCK, Ino, Time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may keep names: all changes go through this one kernel, so for ever.
pub(crate) const TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long it may keep attributes that it asked for. It drops what a change makes stale, but an answer that was on its way
/// meanwhile may bring that back; for some changes (in a directory, of an ACL, through a mapping) it doesn't notice that.
pub(crate) fn asked_ttl(attr: &FileAttr) -> Duration {
    Duration::from_secs(if attr.kind == FileType::Directory { 5 } else { 60 })
}

/// Inode numbers are never reused.
pub(crate) const GENERATION: Generation = Generation(0);

pub(crate) fn kind(mode: u32) -> Result<FileType, Failure> {
    Ok(match mode & libc::S_IFMT {
        libc::S_IFREG => FileType::RegularFile,
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => return Err(Refusal::Damaged.into()),
    })
}

pub(crate) fn of(ino: Ino, inode: &Inode) -> Result<FileAttr, Failure> {
    Ok(FileAttr {
        ino: INodeNo(ino.0),
        size: inode.size,
        // As if nothing were sparse: what a file takes is known to its replicas' disks alone.
        blocks: inode.size.div_ceil(BLOCK) * (BLOCK / 512),
        atime: system_time(inode.atime),
        mtime: system_time(inode.mtime),
        ctime: system_time(inode.ctime),
        crtime: system_time(inode.btime),
        kind: kind(inode.mode)?,
        perm: (inode.mode & 0o7777) as u16,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        blksize: BLOCK as u32,
        flags: 0,
    })
}

/// Inode 0: "there is no such name", to be remembered like one that is there.
pub(crate) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let base = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(kernel_time(time)),
    }
}

/// What the kernel sent. Before 1970 fuser 0.18 *subtracts* the nanoseconds, which the kernel means to be added to the
/// negative seconds (fuser `system_time_from_time`): undone here.
fn kernel_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time {
            secs: since.as_secs() as i64,
            nanos: since.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Time {
                secs: (before.as_secs() as i64).wrapping_neg(),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_their_nanoseconds_upwards() {
        let time = system_time(Time {
            secs: -2,
            nanos: 800_000_000,
        });
        assert_eq!(time, UNIX_EPOCH - Duration::from_millis(1200));
    }

    #[test]
    fn a_time_before_1970_is_read_as_the_kernel_sent_it() {
        // What fuser makes of -2 s + 800,000,000 ns.
        let sent = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(
            kernel_time(sent),
            Time {
                secs: -2,
                nanos: 800_000_000
            }
        );
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        for secs in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
            system_time(Time {
                secs,
                nanos: 999_999_999,
            });
        }
    }
}
