//! Threads that serve one mount until it ends.

use fuser::{Config, Filesystem, Notifier, Session, SessionACL};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use tracing::error;

/// Set when the last thread of a session has gone.
#[derive(Default)]
pub(crate) struct Ended {
    flag: Mutex<bool>,
    told: Condvar,
}

impl Ended {
    fn set(&self) {
        *self.flag.lock().expect("no panic under the lock") = true;
        self.told.notify_all();
    }

    pub(crate) fn get(&self) -> bool {
        *self.flag.lock().expect("no panic under the lock")
    }

    /// Whether it was set within `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let flag = self.flag.lock().expect("no panic under the lock");
        *self
            .told
            .wait_timeout_while(flag, limit, |ended| !*ended)
            .expect("no panic under the lock")
            .0
    }
}

/// Says so however the thread ends.
struct SetOnDrop(Arc<Ended>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Greets the kernel on a device that is mounted already, and serves until the connection ends.
pub(crate) fn serve(files: impl Filesystem, device: OwnedFd, threads: usize) -> io::Result<(Arc<Ended>, Notifier)> {
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    // A queue of replies for each thread.
    config.clone_fd = true;
    let session = Session::from_fd(files, device, SessionACL::All, config)?;
    let notifier = session.notifier();
    let ended = Arc::new(Ended::default());
    let at_end = SetOnDrop(Arc::clone(&ended));
    thread::Builder::new().name("fuse-session".into()).spawn(move || {
        let _at_end = at_end;
        if let Err(error) = session.run() {
            error!(%error, "the FUSE session has failed");
        }
    })?;
    Ok((ended, notifier))
}
