//! Disks of the nodes' own: loop devices over image files, which can be frozen, copied at any moment, or full.

use std::fs::{self, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_tests::clock::{Deadline, pause};
use holdfast_tests::lab::LabOptions;
use holdfast_tests::lab::names::NODES;
use holdfast_tests::process::run_ok;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// A command that must succeed.
pub(crate) fn command(words: &[&str]) -> String {
    run_ok(Command::new(words[0]).args(&words[1..]), LIMIT).unwrap_or_else(|error| panic!("{error:#}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that a test has chosen")
}

/// A file system in a sparse file, mounted; unmounted at its end. Declare it before the lab: it must outlive it.
pub(crate) struct Disk {
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    pub(crate) fn make(image: PathBuf, point: PathBuf, mib: u64, mkfs: &[&str]) -> Self {
        fs::File::create(&image)
            .and_then(|file| file.set_len(mib << 20))
            .unwrap();
        fs::create_dir_all(&point).unwrap();
        command(&[mkfs, &[text(&image)]].concat());
        let disk = Self { image, point };
        disk.mount();
        disk
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    pub(crate) fn mount(&self) {
        command(&["mount", "-o", "loop", text(&self.image), text(&self.point)]);
    }

    /// Daemons that were killed may hold it for a moment longer.
    pub(crate) fn unmount(&self) -> bool {
        let deadline = Deadline::after(Duration::from_secs(10));
        loop {
            if run_ok(Command::new("umount").arg(&self.point), LIMIT).is_ok() {
                return true;
            }
            if deadline.passed() {
                return false;
            }
            pause(Duration::from_millis(100));
        }
    }

    /// Puts another image in this one's place.
    pub(crate) fn swap(&mut self, image: PathBuf) {
        assert!(self.unmount(), "{} is still in use", self.point.display());
        self.image = image;
        self.mount();
    }

    /// Holds all writing to this disk, syncs included, until the guard ends.
    pub(crate) fn freeze(&self) -> Frozen {
        self.freezer().freeze()
    }

    pub(crate) fn freezer(&self) -> Freezer {
        Freezer(self.point.clone())
    }

    /// From now on every access to this disk is an I/O error, until it is mounted again.
    pub(crate) fn fail(&self) {
        /// EXT4_IOC_SHUTDOWN: at once, without writing anything more.
        const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
        let no_flush: u32 = 2;
        let root = fs::File::open(&self.point).unwrap();
        // SAFETY: the request reads one u32 behind the pointer, which lives as long as the call.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const no_flush) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Can freeze a disk from another thread.
pub(crate) struct Freezer(PathBuf);

impl Freezer {
    pub(crate) fn freeze(&self) -> Frozen {
        command(&["fsfreeze", "--freeze", text(&self.0)]);
        Frozen(self.0.clone())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.unmount() {
            eprintln!("{} is still in use; detaching it", self.point.display());
            drop(Command::new("umount").arg("-l").arg(&self.point).status());
        }
    }
}

/// Declare it after the lab: a daemon that waits for a frozen disk can't be killed.
pub(crate) struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status());
    }
}

/// A disk for each node's store.
pub(crate) struct Disks {
    // In this order: what is mounted goes before the folder in which it lies.
    pub(crate) of_nodes: Vec<Disk>,
    folder: TempDir,
}

impl Disks {
    /// Of these sizes in MiB, for n1, n2 and n3.
    pub(crate) fn ext4(mib: [u64; 3]) -> Self {
        let folder = folder();
        let of_nodes = in_folder(folder.path(), folder.path(), mib);
        Self { of_nodes, folder }
    }

    /// All with room for so many files.
    pub(crate) fn of_few_inodes(mib: u64, inodes: u64) -> Self {
        let folder = folder();
        let mkfs = [
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-b",
            "4096",
            "-N",
            &inodes.to_string(),
        ];
        let make = |node: &str| {
            Disk::make(
                folder.path().join(format!("{node}.img")),
                folder.path().join(node),
                mib,
                &mkfs,
            )
        };
        let of_nodes = NODES.into_iter().map(make).collect();
        Self { of_nodes, folder }
    }

    pub(crate) fn of(&self, node: &str) -> &Disk {
        let at = NODES.iter().position(|name| *name == node).expect("a node of the lab");
        &self.of_nodes[at]
    }

    /// Mounts a node's disk again, as after a loose cable.
    pub(crate) fn again(&mut self, node: &str) {
        let at = NODES.iter().position(|name| *name == node).expect("a node of the lab");
        let image = self.of_nodes[at].image().to_owned();
        self.of_nodes[at].swap(image);
    }

    /// Options of a lab whose stores lie on these disks.
    pub(crate) fn options(&self) -> LabOptions {
        let store = self.folder.path().join("{node}/store");
        LabOptions::default().set("store.path", text(&store))
    }
}

pub(crate) fn folder() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("holdfast-disks-")
        .tempdir_in("/var/tmp")
        .unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Disks mounted at FOLDER/NODE over images in another folder.
pub(crate) fn in_folder(folder: &Path, images: &Path, mib: [u64; 3]) -> Vec<Disk> {
    let make = |(node, mib): (&str, u64)| {
        let image = images.join(format!("{node}.img"));
        Disk::make(
            image,
            folder.join(node),
            mib,
            &["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"],
        )
    };
    NODES.into_iter().zip(mib).map(make).collect()
}
