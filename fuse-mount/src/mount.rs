//! A mount from its beginning to its end. mount(2) is called here and not by fuser, whose 0.18.0 can unmount a newer
//! mount of the same path when an old daemon dies late.

use crate::backend::Backend;
use crate::class::ClassRule;
use crate::connection;
use crate::doubt;
use crate::error::MountError;
use crate::kernel::Kernel;
use crate::listings::Listings;
use crate::opens::Opens;
use crate::orphans;
use crate::point;
use crate::request::Desk;
use crate::seal::Seals;
use crate::serve::Active;
use crate::session::{self, Ended};
use crate::standby::Standby;
use crate::table;
use fuser::Filesystem;
use holdfast_storage::types::MAX_WRITE;
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tracing::{info, warn};

/// Type of our mounts, as the kernel's table shows it.
pub(crate) const KIND: &str = "fuse.holdfast";
const SOURCE: &str = "holdfast";

/// How long threads may take to go once the connection is aborted; one may be reading from a slow disk.
const LEAVE: Duration = Duration::from_secs(5);

/// A standby's mount says one sentence.
const STANDBY_THREADS: usize = 1;

#[derive(Clone, Debug)]
pub struct Options {
    /// After this long every request has an answer.
    pub deadline: Duration,
    /// Directories that get a class when they are made.
    pub classes: Arc<[ClassRule]>,
    /// Reads that have to touch the disk hold one each.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            classes: Arc::default(),
            threads: 8,
        }
    }
}

/// Dropping it aborts and detaches the mount; `end` waits for its threads, too.
pub struct Mounted {
    path: PathBuf,
    connection: u32,
    ended: Arc<Ended>,
    stopped: bool,
}

impl Mounted {
    /// The active node's mount.
    pub fn active<B: Backend>(path: &Path, backend: Arc<B>, options: Options) -> Result<Self, MountError> {
        let left_over = backend.orphans();
        let (doubts, doubted) = mpsc::channel();
        let (forgetting, forgotten) = mpsc::channel();
        let session_failed = |source| MountError::Session {
            path: path.to_owned(),
            source,
        };
        let threads = options.threads;
        // The last of several looks sees what came of a request that was in doubt before the first.
        let look_every = options.deadline;
        let opens = Arc::new(Opens::default());
        let seals = Seals::begin(Arc::clone(&backend), Arc::clone(&opens), options.deadline).map_err(session_failed)?;
        let desk = Arc::new(Desk {
            backend,
            listings: Listings::default(),
            opens,
            orphans: Arc::default(),
            options,
            doubts,
            forgotten: forgetting,
            seals,
        });
        // The data are a PBX's: no program here needs set-id bits to take effect, no device node to be opened.
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let (mounted, kernel) = begin(path, Active::new(Arc::clone(&desk)), flags, threads)?;
        let kernel = Arc::new(kernel);
        let (also, weak) = (Arc::clone(&kernel), Arc::downgrade(&desk));
        thread::Builder::new()
            .name("fuse-doubt".into())
            .spawn(move || doubt::settle(&doubted, &kernel))
            .map_err(session_failed)?;
        thread::Builder::new()
            .name("fuse-orphans".into())
            .spawn(move || orphans::serve(&forgotten, &also, &weak, look_every))
            .map_err(session_failed)?;
        match left_over {
            // No new mount knows of them.
            Ok(orphans) => orphans.into_iter().for_each(|ino| desk.reap(ino)),
            Err(error) => warn!(%error, "inodes without names can't be listed; they stay until the next mount"),
        }
        Ok(mounted)
    }

    /// The mount of a node that isn't active: read-only, with one file that holds what `notice` says.
    pub fn standby(path: &Path, notice: Arc<dyn Fn() -> String + Send + Sync>) -> Result<Self, MountError> {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Ok(begin(path, Standby::new(notice), flags, STANDBY_THREADS)?.0)
    }

    /// Frees everyone who waits in it, takes it off its path, and waits some seconds for its threads.
    pub fn end(mut self) {
        self.stop();
        if !self.ended.wait(LEAVE) {
            warn!(path = %self.path.display(), "a thread of the mount is still busy {LEAVE:?} after its end");
        }
    }

    /// Number under /sys/fs/fuse/connections.
    pub fn connection(&self) -> u32 {
        self.connection
    }

    /// False once the mount was unmounted or aborted by whomever.
    pub fn is_alive(&self) -> bool {
        !self.ended.get()
    }

    /// The connection first: clients in an uninterruptible wait are free at once, which detaching doesn't do.
    /// Once only, and only while the session lives: afterwards the number may be another mount's.
    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        if self.is_alive()
            && let Err(error) = connection::abort(self.connection)
        {
            warn!(connection = self.connection, %error, "aborting by force instead");
        }
        // Another mount may have come to lie on the path since: that one stays.
        match table::on(&self.path) {
            Ok(Some(entry)) if entry.minor == self.connection => {
                if let Err(error) = connection::detach(&self.path) {
                    warn!(path = %self.path.display(), %error, "detaching the mount");
                }
            }
            Ok(_) => {}
            Err(error) => warn!(path = %self.path.display(), %error, "the mount may stay behind, aborted"),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.stop();
    }
}

fn begin(
    path: &Path,
    files: impl Filesystem,
    flags: MountFlags,
    threads: usize,
) -> Result<(Mounted, Kernel), MountError> {
    let path = point::prepare(path)?;
    let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| MountError::Device { source: source.into() })?;
    mount_device(&device, &path, flags)?;
    let connection = match table::on(&path)? {
        Some(entry) if entry.kind == KIND => entry.minor,
        _ => return Err(MountError::Vanished { path }),
    };
    connection::ensure_control(connection);
    let begun = device
        .try_clone()
        .and_then(|own| Ok((own, session::serve(files, device, threads)?)));
    match begun {
        Ok((own, (ended, notifier))) => {
            info!(path = %path.display(), connection, "mounted");
            Ok((
                Mounted {
                    path,
                    connection,
                    ended,
                    stopped: false,
                },
                Kernel::new(notifier, own),
            ))
        }
        Err(source) => {
            // Nobody serves it: it must not stay.
            let _ = connection::detach(&path);
            Err(MountError::Session { path, source })
        }
    }
}

fn mount_device(device: &OwnedFd, path: &Path, flags: MountFlags) -> Result<(), MountError> {
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read={MAX_WRITE}",
        device.as_raw_fd()
    );
    let data = CString::new(data).expect("no NUL in numbers and words");
    mount(SOURCE, path, KIND, flags, data.as_c_str()).map_err(|source| MountError::Mount {
        path: path.to_owned(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_storage::types::Ino;

    /// On that rests when the data of a removed file may go.
    #[test]
    fn the_kernel_says_which_inodes_it_holds() {
        let path = std::env::temp_dir().join(format!("holdfast-holds-{}", std::process::id()));
        let standby = Standby::new(Arc::new(|| String::from("not active here\n")));
        let (mounted, kernel) = begin(&path, standby, MountFlags::RDONLY, STANDBY_THREADS).unwrap();
        assert!(kernel.holds(Ino(1)).unwrap(), "the root of the mount");
        assert!(!kernel.holds(Ino(4711)).unwrap(), "what it was never told of");
        mounted.end();
        point::unseal(&path).unwrap();
        std::fs::remove_dir(&path).unwrap();
    }
}
