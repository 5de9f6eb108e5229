//! The seam through which all I/O of log and data files goes: the machine's disk (`real`), or one that
//! tears, loses and rots (`sim`). Paths are relative to the store's folder, with `/` between parts; the empty path is
//! the folder itself.

use std::io;

pub mod aligned;
pub mod real;
pub mod sim;

/// How a file is opened. Nothing is ever truncated by opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenHow {
    /// Make it if it isn't there.
    pub create: bool,
    /// Around the page cache: offsets, lengths and memory are aligned to `types::BLOCK`.
    pub direct: bool,
}

/// Of the file system that holds the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub free: u64,
    pub total: u64,
    /// Files that can still be made, and in all; u64::MAX where there is no such limit.
    pub free_files: u64,
    pub files: u64,
}

/// Whoever keeps so many bytes free keeps a file free, too; but no more than a share of all, for volumes are made with
/// few inodes as well as with many; and no fewer than are made before anybody looks again.
const BYTES_A_FILE: u64 = 4096;
const SHARE_OF_FILES: u64 = 16;
const LEAST_FILES: u64 = 2048;
/// Below that applying waits: the metadata store makes files, too.
const LAST_FILES: u64 = 16;

impl Space {
    /// Bytes above what is to be kept free.
    pub fn above(&self, kept: u64) -> u64 {
        let files = (kept / BYTES_A_FILE).min((self.files / SHARE_OF_FILES).max(LEAST_FILES));
        if self.free_files <= files {
            return 0;
        }
        self.free.saturating_sub(kept)
    }

    /// Whether what is committed can be carried out while so many bytes are kept free.
    pub fn can_apply(&self, kept: u64) -> bool {
        self.entries_to_apply(kept) > 0
    }

    /// As many entries as surely can be: each may make one file.
    pub fn entries_to_apply(&self, kept: u64) -> u64 {
        if self.free < kept {
            return 0;
        }
        self.free_files.saturating_sub(LAST_FILES)
    }
}

pub trait Disk: Clone + Send + Sync + 'static {
    type File: DiskFile;
    /// Whether threads may read at the same time; not where each call has its turn.
    const MANY_AT_ONCE: bool;

    fn open(&self, path: &str, how: OpenHow) -> io::Result<Self::File>;
    /// A missing file is an error (`NotFound`).
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Replaces `to` atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the folder if it isn't there, not its parents.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Names in a folder, in no order.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Names made, removed and renamed in this folder are stable when it returns.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Everything written to the store's file system so far, names included, is stable when it returns.
    fn sync_all(&self) -> io::Result<()>;
    fn space(&self) -> io::Result<Space>;
}

#[expect(clippy::len_without_is_empty, reason = "a file's length, not a collection's")]
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to the end of the file; returns how many bytes there were.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it; extends the file where needed.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all of it and returns when it is stable, in one submission where the machine can do that.
    /// `data` is aligned as `OpenHow::direct` asks when the file was opened so.
    fn write_synced(&self, data: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Space is given back and the range reads as zeros; the length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Reserves space without changing what is read or the length.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Where data begins again, from `offset` on; none if only a hole or the end follows.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
    /// Data and the length needed to read it are stable when it returns.
    fn sync_data(&self) -> io::Result<()>;
}
