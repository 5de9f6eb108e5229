//! Mappings of files, reached through system calls alone: a page that can't be had is an error then, not a signal.

use std::ptr::NonNull;

use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

const PAGE: u64 = 4096;

pub(super) struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Of the pages around a range, and where in it the range begins.
    pub(super) fn around(file: impl AsFd, at: u64, len: usize, how: ProtFlags) -> Result<(Self, usize), Errno> {
        let first = at / PAGE * PAGE;
        let from = usize::try_from(at - first).expect("less than a page");
        let length = from + len;
        // SAFETY: a new mapping at an address of the kernel's choice; it is only ever handed to system calls.
        let mapped = unsafe { mmap(std::ptr::null_mut(), length, how, MapFlags::SHARED, file, first) };
        let address = NonNull::new(mapped?.cast()).expect("never at 0");
        Ok((Self { address, length }, from))
    }

    /// Out of the mapping into a file.
    pub(super) fn save(&self, from: usize, len: usize, to: BorrowedFd<'_>) -> Result<usize, Errno> {
        assert!(from + len <= self.length);
        // SAFETY: within the mapping; a page that can't be had makes the call fail.
        moved(unsafe { libc::pwrite(to.as_raw_fd(), self.address.as_ptr().add(from).cast(), len, 0) })
    }

    /// Out of a file into the mapping.
    pub(super) fn load(&self, into: usize, len: usize, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        assert!(into + len <= self.length);
        // SAFETY: as above.
        moved(unsafe { libc::pread(from.as_raw_fd(), self.address.as_ptr().add(into).cast(), len, 0) })
    }

    pub(super) fn sync(&self) -> Result<(), Errno> {
        // SAFETY: the mapping's own range.
        unsafe { msync(self.address.as_ptr().cast(), self.length, MsyncFlags::SYNC) }
    }
}

fn moved(count: isize) -> Result<usize, Errno> {
    usize::try_from(count).map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped once, ended once; nothing else holds the address.
        let _only_fails_on_a_bad_range = unsafe { munmap(self.address.as_ptr().cast(), self.length) };
    }
}
