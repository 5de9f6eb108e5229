//! How an operation can fail: by a failover, which leaves its outcome open, or by being wrong.

use rustix::io::Errno;

#[derive(Debug)]
pub(super) enum Fault {
    /// The role ended, or the deadline passed: `docs/semantics.md` says what each errno leaves open.
    Lost(Errno),
    /// Something that must never happen.
    Wrong(String),
}

const LOST: &[Errno] = &[
    Errno::IO,
    Errno::AGAIN,
    Errno::NOTCONN,
    Errno::CONNABORTED,
    // A page of a mapping that can't be read any more.
    Errno::FAULT,
];

/// What nobody expected of this call.
pub(super) fn fault(call: &str, errno: Errno) -> Fault {
    if LOST.contains(&errno) {
        Fault::Lost(errno)
    } else {
        Fault::Wrong(format!("{call} says {errno}"))
    }
}

macro_rules! wrong {
    ($($text:tt)*) => {
        return Err(crate::torture::fault::Fault::Wrong(format!($($text)*)))
    };
}
pub(super) use wrong;
