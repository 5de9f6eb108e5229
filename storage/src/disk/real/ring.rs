//! A write and its sync as one submission to the kernel, through a ring of the thread's own.

use io_uring::{IoUring, opcode, squeue, types};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Once;

const WRITE: u64 = 1;
const SYNC: u64 = 2;
/// More than one write can carry is written in parts of this size.
const PART: usize = 1 << 30;

enum Ring {
    Untried,
    Ready(Box<IoUring>),
    Absent,
}

thread_local! {
    static RING: RefCell<Ring> = const { RefCell::new(Ring::Untried) };
}

/// What became of a write and the sync linked to it.
struct Completed {
    write: io::Result<usize>,
    /// `ECANCELED` if the write was short or failed: then nothing was synced.
    sync: io::Result<()>,
}

/// Writes all of `data` and syncs it. `None` where the kernel doesn't offer or permit io_uring.
pub(super) fn write_synced(file: &File, data: &[u8], offset: u64) -> Option<io::Result<()>> {
    RING.with_borrow_mut(|ring| {
        if let Ring::Untried = ring {
            *ring = make();
        }
        match ring {
            Ring::Ready(ring) => Some(write_all_synced(ring, file, data, offset)),
            Ring::Untried | Ring::Absent => None,
        }
    })
}

fn make() -> Ring {
    static SAID: Once = Once::new();
    match IoUring::new(4) {
        Ok(ring) => Ring::Ready(Box::new(ring)),
        Err(error) => {
            SAID.call_once(|| {
                tracing::warn!(%error, "io_uring can't be used here (kernel.io_uring_disabled, a seccomp filter or a \
                    low RLIMIT_MEMLOCK); log writes take two system calls instead of one");
            });
            Ring::Absent
        }
    }
}

fn write_all_synced(ring: &mut IoUring, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    loop {
        let rest = &data[done..];
        let part = &rest[..rest.len().min(PART)];
        let completed = write_then_sync(ring, file, part, offset + done as u64);
        match completed.write {
            Ok(0) if !part.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) if count == rest.len() => return completed.sync,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // A full part that isn't the last was synced too; an error of that sync must not be lost.
        match completed.sync {
            Err(error) if error.raw_os_error() != Some(libc::ECANCELED) => return Err(error),
            _ => {}
        }
    }
}

fn write_then_sync(ring: &mut IoUring, file: &File, data: &[u8], offset: u64) -> Completed {
    let fd = types::Fd(file.as_raw_fd());
    let len = u32::try_from(data.len()).expect("parts are at most 1 GiB");
    let write = opcode::Write::new(fd, data.as_ptr(), len).offset(offset).build();
    let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
    let linked = [
        write.user_data(WRITE).flags(squeue::Flags::IO_LINK),
        sync.user_data(SYNC),
    ];
    // SAFETY: `data` and `file` are borrowed until both completions have been seen: `wait` returns only then, or
    // ends the process.
    unsafe { ring.submission().push_multiple(&linked) }.expect("the ring is empty between calls");
    wait(ring)
}

fn wait(ring: &mut IoUring) -> Completed {
    let (mut write, mut sync) = (None, None);
    while write.is_none() || sync.is_none() {
        let missing = usize::from(write.is_none()) + usize::from(sync.is_none());
        if let Err(error) = ring.submit_and_wait(missing) {
            let again = [libc::EINTR, libc::EAGAIN, libc::EBUSY]
                .map(Some)
                .contains(&error.raw_os_error());
            if !again {
                // The kernel may still be reading the caller's memory: there is no way back from here.
                tracing::error!(%error, "io_uring lost a log write; stopping, for nobody can say whether it is stable");
                std::process::abort();
            }
        }
        for completion in ring.completion() {
            let result = completion.result();
            let outcome = if result < 0 {
                Err(io::Error::from_raw_os_error(-result))
            } else {
                Ok(result as usize)
            };
            match completion.user_data() {
                WRITE => write = Some(outcome),
                _ => sync = Some(outcome.map(drop)),
            }
        }
    }
    Completed {
        write: write.expect("seen"),
        sync: sync.expect("seen"),
    }
}
