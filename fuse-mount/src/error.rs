//! What keeps a mount from beginning.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{attempt} the mount point {}", path.display())]
    Point {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("the mount point {} is not a directory: name another one, or move it away", path.display())]
    NotDirectory { path: PathBuf },

    #[error(
        "the mount point {} is not empty (it holds {entry:?}): what lies in it would be hidden by the mount; move it away",
        path.display()
    )]
    NotEmpty { path: PathBuf, entry: String },

    #[error("{} is in use: {by}; unmount it, or name another mount point", path.display())]
    InUse { path: PathBuf, by: String },

    #[error("removing a dead mount from {}: try `umount -l {}`", path.display(), path.display())]
    Dead {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("reading /proc/self/mountinfo")]
    Table {
        #[source]
        source: io::Error,
    },

    #[error("opening /dev/fuse: load the kernel module (`modprobe fuse`), and run as root")]
    Device {
        #[source]
        source: io::Error,
    },

    #[error("mounting {}: this needs root (CAP_SYS_ADMIN)", path.display())]
    Mount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{} was mounted, but is not in /proc/self/mountinfo: was it unmounted at once by another program?", path.display())]
    Vanished { path: PathBuf },

    #[error("beginning to serve {}", path.display())]
    Session {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}
