//! How the reads and writes of an open file meet the kernel's page cache.
//!
//! Through it, a write that begins or ends within a page leaves a page of which the kernel knows a part, and each such
//! page is a request of its own, one after the other: most writes of a recorder are two. Around it they are one.

use fuser::{FileHandle, FopenFlags, Version};
use holdfast_storage::class::Class;

/// Linux 6.14. Since 6.13 a write around the cache takes away what was read into it meanwhile, too: without, a mapping
/// of a file that grows could keep a page that ends in zeros.
const COHERENT: Version = Version(7, 42);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Cached,
    /// For small writes in order. All who have the file open go around the cache, or none: a reader in it could see
    /// the end of a write that is under way as zeros.
    Around,
    /// As the program itself wants it.
    Direct,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    is_coherent: bool,
}

impl Opening {
    pub(crate) fn on(kernel: Version) -> Self {
        Self {
            is_coherent: kernel >= COHERENT,
        }
    }

    /// What is best for this file; `class` is asked for only if it matters.
    pub(crate) fn way(self, flags: i32, class: impl FnOnce() -> Option<Class>) -> Way {
        let only_written = flags & libc::O_ACCMODE == libc::O_WRONLY;
        if flags & libc::O_DIRECT != 0 {
            Way::Direct
        } else if self.is_coherent && only_written && (flags & libc::O_APPEND != 0 || class().is_some_and(is_streamed))
        {
            Way::Around
        } else {
            Way::Cached
        }
    }
}

/// Written in order, in small pieces, and seldom read soon.
fn is_streamed(class: Class) -> bool {
    matches!(class, Class::Recordings | Class::Logs)
}

/// All that is kept per open file: the kernel brings it back when it closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) is_writer: bool,
    pub(crate) way: Way,
}

impl Handle {
    pub(crate) fn number(self) -> FileHandle {
        FileHandle(u64::from(self.is_writer) | (self.way as u64) << 1)
    }

    pub(crate) fn of(number: FileHandle) -> Self {
        Self {
            is_writer: number.0 & 1 == 1,
            way: match number.0 >> 1 {
                0 => Way::Cached,
                1 => Way::Around,
                _ => Way::Direct,
            },
        }
    }

    /// What was cached stays right whoever opens the file: nobody changes it but through this mount.
    pub(crate) fn flags(self) -> FopenFlags {
        match self.way {
            Way::Cached => FopenFlags::FOPEN_KEEP_CACHE,
            Way::Around => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_KEEP_CACHE,
            Way::Direct => FopenFlags::FOPEN_DIRECT_IO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{O_APPEND, O_CREAT, O_DIRECT, O_RDONLY, O_RDWR, O_WRONLY};

    #[test]
    fn what_is_written_in_small_pieces_alone_goes_around_the_cache() {
        let way = |minor, flags, class| Opening::on(Version(7, minor)).way(flags, || Some(class));
        assert_eq!(way(42, O_WRONLY | O_APPEND, Class::Default), Way::Around);
        assert_eq!(way(45, O_WRONLY | O_CREAT, Class::Recordings), Way::Around);
        assert_eq!(way(45, O_WRONLY, Class::Logs), Way::Around);
        for class in [Class::Default, Class::Database, Class::Prompts, Class::Durable] {
            assert_eq!(way(45, O_WRONLY, class), Way::Cached, "{class:?}");
        }
        assert_eq!(way(45, O_RDWR | O_APPEND, Class::Recordings), Way::Cached);
        assert_eq!(way(45, O_RDONLY, Class::Recordings), Way::Cached);
        assert_eq!(way(41, O_WRONLY | O_APPEND, Class::Recordings), Way::Cached);
        assert_eq!(way(31, O_RDWR | O_DIRECT, Class::Default), Way::Direct);
    }

    #[test]
    fn a_handle_comes_back_as_it_was() {
        for way in [Way::Cached, Way::Around, Way::Direct] {
            for is_writer in [false, true] {
                let handle = Handle { is_writer, way };
                assert_eq!(Handle::of(handle.number()), handle);
            }
        }
    }
}
