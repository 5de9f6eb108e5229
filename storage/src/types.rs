//! Numbers that cross modules, each a type of its own.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Position of an entry in the replicated log; the first is 1, 0 is "before all".
    LogIndex
);
number!(
    /// A Raft term; 0 is "before all".
    Term
);
number!(
    /// Number of an inode; never reused. The root is 1, as FUSE wants it.
    Ino
);

impl LogIndex {
    pub const ZERO: Self = Self(0);
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Ino {
    pub const ROOT: Self = Self(1);
}

/// A point in time as files carry it: seconds and nanoseconds since 1970, UTC; seconds may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

impl Time {
    /// The next one that can be told from this one.
    #[must_use]
    pub fn next(self) -> Self {
        if self.nanos >= 999_999_999 {
            Self {
                secs: self.secs.saturating_add(1),
                nanos: 0,
            }
        } else {
            Self {
                nanos: self.nanos + 1,
                ..self
            }
        }
    }
}

/// No index, term or count that was ever given out comes near it. Bytes that say more are damaged; below it nothing overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Checksums and file offsets are kept in blocks of this size.
pub const BLOCK: u64 = 4096;

/// Largest file: what ext4 with blocks of 4 KiB takes, with room to spare. An entry that one node's disk can't carry out would stop
/// them all, at each start anew, so it must not get into the log.
pub const MAX_FILE: u64 = (1 << 44) - 2 * BLOCK;

/// Where the bytes of a file end at the latest in what others send and disks hold: releases before took in as much. What a signed
/// 64-bit offset can address, less one block so that no rounding overflows.
pub const MAX_OFFSET: u64 = i64::MAX as u64 - BLOCK;

/// Largest name of a directory entry, in bytes.
pub const MAX_NAME: usize = 255;

/// Most bytes of data that one write effect carries; larger writes are split by the caller.
pub const MAX_WRITE: usize = 1 << 20;
