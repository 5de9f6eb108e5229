//! The mount point: the directory underneath is empty, closed and unchangeable, so that nothing can write there while
//! nothing is mounted.

use crate::connection;
use crate::error::MountError;
use crate::mount::KIND;
use crate::table;
use rustix::fs::{IFlags, Mode, OFlags, fchmod, fstat, ioctl_getflags, ioctl_setflags, open, statfs};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tracing::{info, warn};

/// How long a mount that is there already may take to show that it lives.
const PROBE: Duration = Duration::from_secs(2);

/// Makes the directory ready to be mounted on; returns its path without symbolic links, as the kernel's table has it.
pub(crate) fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let path = resolve(path)?;
    remove_dead(&path)?;
    refuse_full(&path)?;
    seal(&path)?;
    Ok(path)
}

/// Opens a directory that a mount had sealed, so that it can be used or removed. Nothing may be mounted on it.
pub fn unseal(path: &Path) -> io::Result<()> {
    let dir = open_dir(path)?;
    if let Ok(flags) = ioctl_getflags(&dir)
        && flags.contains(IFlags::IMMUTABLE)
    {
        ioctl_setflags(&dir, flags - IFlags::IMMUTABLE)?;
    }
    Ok(fchmod(&dir, Mode::from_raw_mode(0o755))?)
}

/// The directory itself isn't touched: a dead mount on it would fail every attempt.
fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let failed = |attempt| {
        move |source| MountError::Point {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    let path = std::path::absolute(path).map_err(failed("finding"))?;
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return Err(MountError::NotDirectory { path });
    };
    fs::create_dir_all(parent).map_err(failed("creating the folder of"))?;
    let parent = fs::canonicalize(parent).map_err(failed("finding the folder of"))?;
    Ok(parent.join(name))
}

/// A crash leaves its mount behind, which answers everything with an error.
fn remove_dead(path: &Path) -> Result<(), MountError> {
    while let Some(entry) = table::on(path)? {
        let used = |by: String| MountError::InUse {
            path: path.to_owned(),
            by,
        };
        if entry.kind != KIND {
            return Err(used(format!("{} ({}) is mounted there", entry.source, entry.kind)));
        }
        match probe(path) {
            Some(Err(Errno::NOTCONN | Errno::CONNABORTED)) => {}
            Some(_) => return Err(used("another Holdfast daemon serves a mount there".into())),
            None => {
                let text =
                    format!("a Holdfast mount is there that has not answered for {PROBE:?} (is its daemon stopped?)");
                return Err(used(text));
            }
        }
        info!(path = %path.display(), "removing the mount that a dead daemon left behind");
        // Best effort: it may be aborted already, and detaching is what counts.
        let _ = connection::abort(entry.minor);
        connection::detach(path).map_err(|source| MountError::Dead {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// On a thread of its own, for a mount whose daemon hangs lets it wait for ever.
fn probe(path: &Path) -> Option<Result<(), Errno>> {
    let (answer, answered) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || answer.send(statfs(&path).map(drop)));
    answered.recv_timeout(PROBE).ok()
}

fn refuse_full(path: &Path) -> Result<(), MountError> {
    let failed = |attempt| {
        move |source| MountError::Point {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => return Err(MountError::NotDirectory { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(path).map_err(failed("creating"))?,
        Err(error) => return Err(failed("finding")(error)),
    }
    match fs::read_dir(path).map_err(failed("reading"))?.next() {
        None => Ok(()),
        Some(Ok(entry)) => Err(MountError::NotEmpty {
            path: path.to_owned(),
            entry: entry.file_name().to_string_lossy().into_owned(),
        }),
        Some(Err(error)) => Err(failed("reading")(error)),
    }
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Mode 0 keeps users out, the immutable flag root as well.
fn seal(path: &Path) -> Result<(), MountError> {
    let failed = |source: Errno| MountError::Point {
        attempt: "closing",
        path: path.to_owned(),
        source: source.into(),
    };
    let dir = open_dir(path).map_err(failed)?;
    let flags = ioctl_getflags(&dir);
    let open = fstat(&dir).map_err(failed)?.st_mode & 0o7777 != 0;
    if open {
        // Made immutable by hand, perhaps: the mode can't be changed before that is taken away.
        if let Ok(flags) = flags
            && flags.contains(IFlags::IMMUTABLE)
        {
            ioctl_setflags(&dir, flags - IFlags::IMMUTABLE).map_err(failed)?;
        }
        fchmod(&dir, Mode::empty()).map_err(failed)?;
    }
    if let Err(error) = flags.and_then(|flags| ioctl_setflags(&dir, flags | IFlags::IMMUTABLE)) {
        warn!(
            path = %path.display(), %error,
            "the directory under the mount can't be made immutable on this file system: \
             root could write into it while nothing is mounted"
        );
    }
    Ok(())
}
