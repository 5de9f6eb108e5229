//! A disk of a node's own, whose power can be cut: with all that its kernel had not yet written, and with what the
//! disk itself had accepted but not been told to flush.
//!
//! The node's store lies on a file system on a loop device over an image file, and that image on another file system.
//! The lower one plays the disk: what the upper one writes to its device is in the cache of the lower one, and stable
//! there when the device has been flushed. A cut shuts the lower file system down at once. Then neither layer can write
//! anything more; both are unmounted and mounted again, and their journals replayed, before the node may start.
//!
//! All of it lies in the node's folder, so that taking the lab down removes it.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::configure::NodeFiles;
use super::mounts;
use crate::clock::wait_for;
use crate::process::run_ok;

const LIMIT: Duration = Duration::from_secs(60);
/// The image has a little less: the lower file system needs room for itself. Both are sparse.
const GROUND_MIB: u64 = 1280;
const IMAGE_MIB: u64 = 1100;

/// Of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    fn mkfs(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"],
            Self::Xfs => &["mkfs.xfs", "-q"],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "XFS",
        }
    }
}

/// What becomes at a power cut of what the disk had accepted and not been told to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cache {
    /// As on a disk with a capacitor.
    Kept,
    Lost,
    /// Some of it was written already, in no order.
    Torn,
}

impl Cache {
    pub const ALL: [Self; 3] = [Self::Kept, Self::Lost, Self::Torn];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Lost => "lost",
            Self::Torn => "torn",
        }
    }
}

/// A handle; what it names may not exist.
#[derive(Debug, Clone)]
pub struct Disk {
    dir: PathBuf,
}

impl Disk {
    pub fn of(files: &NodeFiles) -> Self {
        Self { dir: files.dir.clone() }
    }

    fn point(&self) -> PathBuf {
        self.dir.join("disk")
    }
    fn ground(&self) -> PathBuf {
        self.dir.join("ground")
    }
    fn ground_image(&self) -> PathBuf {
        self.dir.join("ground.img")
    }
    fn image(&self) -> PathBuf {
        self.ground().join("disk.img")
    }

    /// Makes both file systems, unless they were kept from before, and mounts them.
    pub fn make(&self, kind: FileSystem) -> Result<()> {
        for point in [self.point(), self.ground()] {
            fs::create_dir_all(&point).with_context(|| format!("making {}", point.display()))?;
        }
        let fresh = !self.ground_image().exists();
        if fresh {
            make_image(&self.ground_image(), GROUND_MIB, FileSystem::Xfs)?;
        }
        mount(&self.ground_image(), &self.ground())?;
        if fresh {
            make_image(&self.image(), IMAGE_MIB, kind)?;
        }
        mount(&self.image(), &self.point())
    }

    /// From this moment nothing more reaches the disk, and what was only in caches never will. Whoever uses it gets
    /// errors: its processes are to be killed, and `restore` brings back what is stable.
    pub fn cut(&self, cache: Cache, random: &mut StdRng) -> Result<()> {
        if cache == Cache::Torn {
            self.write_back_some(random)?;
        }
        shut_down(&self.ground(), cache)
    }

    /// Starts writing parts of what isn't flushed, chosen at random, and waits for them.
    fn write_back_some(&self, random: &mut StdRng) -> Result<()> {
        let piece: i64 = [16 << 10, 128 << 10, 1 << 20][random.random_range(0..3)];
        let image = File::open(self.image()).with_context(|| format!("opening {}", self.image().display()))?;
        let length = i64::try_from(image.metadata().context("asking for the image's size")?.len())?;
        let range = |offset: i64, length: i64, flags| {
            // SAFETY: the descriptor is open for as long as `image`; the call touches no memory of this process.
            let done = unsafe { libc::sync_file_range(image.as_raw_fd(), offset, length, flags) };
            ensure!(done == 0, "writing back: {}", std::io::Error::last_os_error());
            Ok(())
        };
        let mut at = 0;
        while at < length {
            if random.random_bool(0.5) {
                range(at, piece, libc::SYNC_FILE_RANGE_WRITE)?;
            }
            at += piece;
        }
        range(0, 0, libc::SYNC_FILE_RANGE_WAIT_BEFORE)
    }

    /// Power is back: only what was stable is there. The node's processes must be gone. That both layers could be unmounted
    /// proves that nothing of them is left in memory.
    pub fn restore(&self) -> Result<()> {
        unmount(&self.point())?;
        unmount(&self.ground())?;
        mount(&self.ground_image(), &self.ground())?;
        mount(&self.image(), &self.point())
    }
}

fn make_image(image: &Path, mib: u64, kind: FileSystem) -> Result<()> {
    File::create(image)
        .and_then(|file| file.set_len(mib << 20))
        .with_context(|| format!("making {}", image.display()))?;
    let [program, options @ ..] = kind.mkfs() else {
        unreachable!("each begins with a program")
    };
    run_ok(Command::new(program).args(options).arg(image), LIMIT).map(drop)
}

/// The loop device goes with the mount.
fn mount(image: &Path, point: &Path) -> Result<()> {
    run_ok(Command::new("mount").args(["-o", "loop"]).arg(image).arg(point), LIMIT)?;
    fs::set_permissions(point, Permissions::from_mode(0o755))
        .with_context(|| format!("opening the mode of {}", point.display()))
}

/// Processes that were killed, and the loop device of a layer above, may hold it for a moment longer.
fn unmount(point: &Path) -> Result<()> {
    wait_for(&format!("{} to be let go", point.display()), LIMIT, || {
        // Whatever is mounted below it is mounted on another file system.
        if mounts::below(point)?.iter().any(|below| below == point) {
            run_ok(Command::new("umount").arg(point), LIMIT)?;
        }
        Ok(Some(()))
    })
}

/// XFS_IOC_GOINGDOWN: at once, with the file system's cache written before, or dropped.
fn shut_down(point: &Path, cache: Cache) -> Result<()> {
    const GOING_DOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
    const AFTER_A_SYNC: u32 = 0;
    const WITHOUT_ITS_LOG: u32 = 2;
    let how = match cache {
        Cache::Kept => AFTER_A_SYNC,
        Cache::Lost | Cache::Torn => WITHOUT_ITS_LOG,
    };
    let root = File::open(point).with_context(|| format!("opening {}", point.display()))?;
    // SAFETY: the request reads one u32 behind the pointer, which lives as long as the call.
    let done = unsafe { libc::ioctl(root.as_raw_fd(), GOING_DOWN, &raw const how) };
    ensure!(
        done == 0,
        "cutting {}: {}",
        point.display(),
        std::io::Error::last_os_error()
    );
    Ok(())
}
