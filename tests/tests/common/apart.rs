//! Threads whose open files no child process inherits.
//!
//! A child has a copy of every file that its parent has open, and closes the copies when it starts its program. On a
//! mount whose daemon is stopped that closing waits, and so does whoever started the child.

use std::sync::mpsc::channel;
use std::thread;

use super::Pending;

/// As `start`, for work that opens its files by itself: none that was open before is usable in it.
pub(crate) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
    let (done, pending) = channel();
    thread::spawn(move || {
        own_files();
        // Nobody listens any more after the limit.
        drop(done.send(work()));
    });
    Pending(pending)
}

/// Gives the calling thread a table of open files of its own, with nothing but the standard streams in it.
fn own_files() {
    const AFTER_STANDARD_STREAMS: libc::c_uint = 3;
    // SAFETY: the table is this thread's alone from here on; the work that follows brings no descriptor along.
    let done = unsafe {
        libc::close_range(
            AFTER_STANDARD_STREAMS,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE.cast_signed(),
        )
    };
    assert_eq!(done, 0, "close_range: {}", std::io::Error::last_os_error());
}
