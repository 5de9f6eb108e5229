//! Mounts under a lab's folder: finding them, and removing them even when their daemon hangs or is dead.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::mount::{UnmountFlags, unmount};

use crate::clock::{Deadline, pause};

/// Every mount point at or below `dir`, deepest last, one entry a mount (they may be stacked).
pub fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)));
    Ok(points.filter(|point| point.starts_with(dir)).collect())
}

/// mountinfo writes blanks and such as three octal digits after a backslash.
fn unescape(field: &str) -> String {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = (byte == b'\\').then(|| field.get(at + 1..at + 4)).flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                out.push(value);
                at += 4;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Removes every mount below `dir`. MNT_FORCE aborts a FUSE connection, which frees clients in an uninterruptible
/// wait at once; MNT_DETACH alone would leave them there.
pub fn remove_below(dir: &Path, limit: Duration) -> Result<()> {
    let deadline = Deadline::after(limit);
    loop {
        let points = below(dir)?;
        if points.is_empty() {
            return Ok(());
        }
        for point in points.iter().rev() {
            match unmount(
                point,
                UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
            ) {
                // EINVAL: it went by itself meanwhile.
                Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("unmounting {}", point.display())),
            }
        }
        if deadline.passed() {
            bail!("{} is still mounted after {limit:?}", points[0].display());
        }
        pause(Duration::from_millis(5));
    }
}

/// Aborts the connections of the FUSE mounts below `dir` and detaches them; errors are left to a later `remove_below`.
pub fn abort_below(dir: &Path) {
    drop(remove_below(dir, Duration::ZERO));
}

/// The daemon makes the empty directory under its mount immutable and closed, so that nothing can write there while
/// nothing is mounted. Undoes that, for the directory is to be removed.
pub fn open_mount_point(point: &Path) -> Result<()> {
    let directory = match File::open(point) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("opening {}", point.display())),
    };
    // A file system without such flags can't have an immutable directory either.
    if let Ok(flags) = ioctl_getflags(directory.as_fd())
        && flags.contains(IFlags::IMMUTABLE)
    {
        ioctl_setflags(directory.as_fd(), flags - IFlags::IMMUTABLE)
            .with_context(|| format!("making {} changeable again", point.display()))?;
    }
    fs::set_permissions(point, Permissions::from_mode(0o755))
        .with_context(|| format!("opening the mode of {}", point.display()))
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn octal_escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(unescape("/plain\\x"), "/plain\\x");
    }
}
