//! How the reads and writes of an open file meet the kernel's page cache.
//!
//! Through it, a write that begins or ends within a page leaves a page of which the kernel knows a part, and each such
//! page is a request of its own, one after the other: most writes of a recorder are two. Around it they are one.

use fuser::{FileHandle, FopenFlags};
use holdfast_storage::class::Class;

/// Of Linux. Since then a write around the cache takes away what was read into it meanwhile, too: without, the cache could
/// keep a last page that ends in zeros where the file goes on. Nothing in FUSE's protocol tells.
const COHERENT: [u32; 3] = [6, 18, 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Cached,
    /// For small writes in order. All who have the file open go around the cache, or none: a reader in it could see
    /// the end of a write that is under way as zeros.
    Around,
    /// As the program itself wants it.
    Direct,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    is_coherent: bool,
}

impl Opening {
    /// On this machine's kernel.
    pub(crate) fn here() -> Self {
        let name = rustix::system::uname();
        Self::on(&name.release().to_string_lossy())
    }

    fn on(release: &str) -> Self {
        let mut numbers = release
            .split(|at: char| !at.is_ascii_digit())
            .map(|number| number.parse().unwrap_or(0));
        let version = [(); 3].map(|()| numbers.next().unwrap_or(0));
        Self {
            is_coherent: version >= COHERENT,
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
        let way = |release, flags, class| Opening::on(release).way(flags, || Some(class));
        let new = "6.18.44-cloud-amd64";
        assert_eq!(way("6.18.3", O_WRONLY | O_APPEND, Class::Default), Way::Around);
        assert_eq!(way("7.0-rc1", O_WRONLY | O_CREAT, Class::Recordings), Way::Around);
        assert_eq!(way(new, O_WRONLY, Class::Logs), Way::Around);
        for class in [Class::Default, Class::Database, Class::Prompts, Class::Durable] {
            assert_eq!(way(new, O_WRONLY, class), Way::Cached, "{class:?}");
        }
        assert_eq!(way(new, O_RDWR | O_APPEND, Class::Recordings), Way::Cached);
        assert_eq!(way(new, O_RDONLY, Class::Recordings), Way::Cached);
        for old in ["6.18.2", "6.17.12-generic", "6.8.0-51-generic", "6.1.0-9-amd64", "odd"] {
            assert_eq!(way(old, O_WRONLY | O_APPEND, Class::Recordings), Way::Cached, "{old}");
        }
        assert_eq!(way("6.1", O_RDWR | O_DIRECT, Class::Default), Way::Direct);
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
