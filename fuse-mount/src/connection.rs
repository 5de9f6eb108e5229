//! The kernel's end of a FUSE mount: aborting it frees everyone who waits in it, at once; unmounting alone does not.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::io;
use std::path::Path;
use tracing::warn;

const CONTROL: &str = "/sys/fs/fuse/connections";

/// Makes sure that connections can be aborted by number. systemd mounts it; small systems and containers may not.
pub(crate) fn ensure_control(number: u32) {
    let ours = Path::new(CONTROL).join(number.to_string());
    if ours.exists() {
        return;
    }
    if let Err(error) = mount("fusectl", CONTROL, "fusectl", MountFlags::empty(), None) {
        warn!(%error, "mounting {CONTROL}: hanging clients can only be freed by unmounting by force");
    }
}

/// Everyone who waits in the connection gets an error now, and so does everyone who comes later.
pub(crate) fn abort(number: u32) -> io::Result<()> {
    fs::write(Path::new(CONTROL).join(number.to_string()).join("abort"), "1")
}

/// Takes the mount off its path. MNT_FORCE aborts the connection once more, for where there is no control file system.
pub(crate) fn detach(path: &Path) -> io::Result<()> {
    Ok(unmount(
        path,
        UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )?)
}
