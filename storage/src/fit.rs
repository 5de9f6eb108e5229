//! What the store's file system must be able to do, tried before anything is stored in it: found out later it would stop a node
//! in the midst of its work.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::StoreError;
use crate::types::{BLOCK, MAX_FILE};
use std::io;
use std::path::Path;

/// A name that an interrupted formatting may leave.
const PROBE: &str = "identity.new";
const ADVICE: &str =
    "a store takes a local file system such as XFS, or ext4 with blocks of 4 KiB (`mkfs.ext4 -b 4096`)";

/// What keeps files in memory, or on another machine's word.
const FOREIGN: [(i64, &str); 6] = [
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
];

/// Before a store is made in this folder, which the disk is.
pub fn refuse_unfit<D: Disk>(disk: &D, folder: &Path) -> Result<(), StoreError> {
    let kind = rustix::fs::statfs(folder).map_or(0, |stat| stat.f_type);
    if let Some((_, name)) = FOREIGN.iter().find(|(number, _)| *number == kind) {
        return Err(StoreError::Identity {
            path: folder.display().to_string(),
            why: format!(
                "it is on {name}, which can't promise that what was synced is on a disk of this machine: {ADVICE}"
            ),
        });
    }
    probe(disk, folder)?;
    disk.remove(PROBE).map_err(StoreError::disk("removing", PROBE))
}

fn probe<D: Disk>(disk: &D, folder: &Path) -> Result<(), StoreError> {
    let how = OpenHow {
        create: true,
        direct: false,
    };
    let file = disk.open(PROBE, how).map_err(StoreError::disk("making", PROBE))?;
    let unfit = |what: &str| {
        let why = format!("the file system under it can't {what}: {ADVICE}");
        move |source: io::Error| StoreError::Identity {
            path: folder.display().to_string(),
            why: format!("{why} ({source})"),
        }
    };
    // Every replica must be able to hold what one of them takes.
    file.set_len(MAX_FILE).map_err(unfit("hold files of 16 TiB"))?;
    file.punch(0, BLOCK)
        .map_err(unfit("give back a part of a file (punch holes)"))?;
    let direct = OpenHow {
        create: false,
        direct: true,
    };
    let around = disk.open(PROBE, direct).map(drop);
    around.map_err(unfit("write around the page cache (O_DIRECT)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::real::RealDisk;

    #[test]
    fn nothing_is_left_of_the_trial() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = RealDisk::open(folder.path()).expect("opens");
        refuse_unfit(&disk, folder.path()).expect("this machine's file system will do");
        assert_eq!(disk.list("").expect("lists"), [""; 0]);
    }
}
