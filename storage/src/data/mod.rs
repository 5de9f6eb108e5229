//! Contents of files: one plain sparse file an inode, at the same offsets, so that an operator can always
//! get the data out with nothing but `cp`. An empty inode has none.
//!
//! Nothing here is synced until a checkpoint asks for it; redo from the log mends what a crash tore.

pub mod sums;

use crate::disk::aligned::AlignedBuf;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::StoreError;
use crate::types::{BLOCK, Ino};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Files lie in this many folders, by the low bits of the inode's number.
const FOLDERS: u64 = 256;
const OPEN_SHARDS: u64 = 16;
/// Open files kept in each shard.
const OPEN_EACH: usize = 64;
/// From this length on a write goes around the page cache.
const LARGE: usize = 256 << 10;
/// With more dirty files than this a checkpoint syncs the whole file system at once.
const SYNC_ONE_BY_ONE: usize = 64;

pub struct DataFiles<D: Disk> {
    disk: D,
    open: Vec<Mutex<HashMap<Ino, Arc<D::File>>>>,
    dirty: Mutex<Dirty<D>>,
    /// A sync has failed: the kernel may have dropped what it couldn't write, and wouldn't say so again.
    failed: AtomicBool,
}

struct Dirty<D: Disk> {
    /// With the handles that the changes were made by, unless they are so many that the whole file system is synced at once: the kernel
    /// tells a handle that is opened later nothing of what it couldn't write before.
    files: BTreeMap<Ino, Option<Arc<D::File>>>,
    folders: BTreeSet<u64>,
}

impl<D: Disk> Default for Dirty<D> {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            folders: BTreeSet::new(),
        }
    }
}

fn folder(ino: Ino) -> u64 {
    ino.0 % FOLDERS
}

/// Where an inode's bytes are, relative to the store.
pub fn path(ino: Ino) -> String {
    format!("data/{:02x}/{:016x}", folder(ino), ino.0)
}

impl<D: Disk> DataFiles<D> {
    pub fn format(disk: &D) -> Result<(), StoreError> {
        let make = |path: &str| disk.create_dir(path).map_err(StoreError::disk("making", path));
        make("data")?;
        for folder in 0..FOLDERS {
            make(&format!("data/{folder:02x}"))?;
        }
        disk.sync_dir("data").map_err(StoreError::disk("syncing", "data"))
    }

    pub fn new(disk: D) -> Self {
        let open = (0..OPEN_SHARDS).map(|_| Mutex::default()).collect();
        Self {
            disk,
            open,
            dirty: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    fn shard(&self, ino: Ino) -> std::sync::MutexGuard<'_, HashMap<Ino, Arc<D::File>>> {
        self.open[(ino.0 % OPEN_SHARDS) as usize]
            .lock()
            .expect("no panic under the lock")
    }

    fn dirty(&self) -> std::sync::MutexGuard<'_, Dirty<D>> {
        self.dirty.lock().expect("no panic under the lock")
    }

    /// `None`: there is no file, so all reads as zeros.
    fn file(&self, ino: Ino, create: bool) -> Result<Option<Arc<D::File>>, StoreError> {
        if let Some(file) = self.shard(ino).get(&ino) {
            return Ok(Some(file.clone()));
        }
        let path = path(ino);
        let file = match self.disk.open(
            &path,
            OpenHow {
                create: false,
                direct: false,
            },
        ) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && !create => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = self
                    .disk
                    .open(
                        &path,
                        OpenHow {
                            create: true,
                            direct: false,
                        },
                    )
                    .map_err(StoreError::disk("making", &path))?;
                self.dirty().folders.insert(folder(ino));
                file
            }
            Err(error) => return Err(StoreError::disk("opening", &path)(error)),
        };
        let file = Arc::new(file);
        let mut shard = self.shard(ino);
        if shard.len() >= OPEN_EACH {
            let any = shard.keys().next().copied();
            any.map(|ino| shard.remove(&ino));
        }
        Ok(Some(shard.entry(ino).or_insert(file).clone()))
    }

    /// Fills the buffer; what lies beyond the file's end or in a hole reads as zeros.
    pub fn read(&self, ino: Ino, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let got = match self.file(ino, false)? {
            Some(file) => file
                .read_at(buffer, offset)
                .map_err(|error| StoreError::disk("reading", &path(ino))(error))?,
            None => 0,
        };
        buffer[got..].fill(0);
        Ok(())
    }

    /// As `read`, from the disk itself and not from the page cache. Offset and length are whole blocks.
    pub fn read_from_disk(&self, ino: Ino, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let path = path(ino);
        let got = match self.disk.open(
            &path,
            OpenHow {
                create: false,
                direct: true,
            },
        ) {
            Ok(file) => file
                .read_at(buffer, offset)
                .map_err(StoreError::disk("reading", &path))?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(StoreError::disk("opening", &path)(error)),
        };
        buffer[got..].fill(0);
        Ok(())
    }

    /// `scratch` is memory for large writes, kept by the caller for the next one.
    pub fn write(&self, ino: Ino, data: &[u8], offset: u64, scratch: &mut AlignedBuf) -> Result<(), StoreError> {
        let file = self.file(ino, true)?.expect("made if it wasn't there");
        let (head, large, tail) = split(data, offset);
        let (large_at, tail_at) = (offset + head.len() as u64, offset + (head.len() + large.len()) as u64);
        let written = file
            .write_at(head, offset)
            .and_then(|()| self.write_around_cache(ino, large, large_at, scratch))
            .and_then(|()| file.write_at(tail, tail_at));
        written.map_err(|error| StoreError::disk("writing", &path(ino))(error))?;
        self.changed(ino, file);
        Ok(())
    }

    /// Nobody reads a large write again soon from here: on the active node it is in the mount's cache, and a standby
    /// serves nobody. Filling pages of the page cache with it costs more than hashing it does.
    fn write_around_cache(&self, ino: Ino, data: &[u8], offset: u64, scratch: &mut AlignedBuf) -> std::io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        scratch.grow(data.len());
        scratch[..data.len()].copy_from_slice(data);
        let how = OpenHow {
            create: false,
            direct: true,
        };
        self.disk
            .open(&path(ino), how)?
            .write_at(&scratch[..data.len()], offset)
    }

    /// Cuts the file at `len`; one that is shorter stays as it is, since what lies beyond its end reads as zeros.
    pub fn truncate(&self, ino: Ino, len: u64) -> Result<(), StoreError> {
        let Some(file) = self.file(ino, false)? else {
            return Ok(());
        };
        let path = path(ino);
        if file.len().map_err(StoreError::disk("reading the length of", &path))? > len {
            file.set_len(len).map_err(StoreError::disk("truncating", &path))?;
            self.changed(ino, file);
        }
        Ok(())
    }

    pub fn punch(&self, ino: Ino, offset: u64, len: u64) -> Result<(), StoreError> {
        let Some(file) = self.file(ino, false)? else {
            return Ok(());
        };
        let path = path(ino);
        let end = file.len().map_err(StoreError::disk("reading the length of", &path))?;
        let len = offset.saturating_add(len).min(end).saturating_sub(offset);
        if len > 0 {
            file.punch(offset, len)
                .map_err(StoreError::disk("punching a hole in", &path))?;
            self.changed(ino, file);
        }
        Ok(())
    }

    pub fn remove(&self, ino: Ino) -> Result<(), StoreError> {
        self.shard(ino).remove(&ino);
        let path = path(ino);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::disk("removing", &path)(error));
            }
            _ => {}
        }
        let mut dirty = self.dirty();
        dirty.files.remove(&ino);
        dirty.folders.insert(folder(ino));
        Ok(())
    }

    /// To be called after the change and never before it: a checkpoint beside the apply thread that came between
    /// would sync too early, and the next one would know of nothing to sync.
    fn changed(&self, ino: Ino, file: Arc<D::File>) {
        let mut dirty = self.dirty();
        let few = dirty.files.len() <= SYNC_ONE_BY_ONE;
        dirty.files.entry(ino).or_insert_with(|| few.then_some(file));
    }

    /// All inodes that have a file, in no order.
    pub(crate) fn list(&self) -> Result<Vec<Ino>, StoreError> {
        let mut found = Vec::new();
        for folder in 0..FOLDERS {
            let path = format!("data/{folder:02x}");
            let names = self.disk.list(&path).map_err(StoreError::disk("listing", &path))?;
            let number = |name: &String| u64::from_str_radix(name, 16).ok().map(Ino);
            found.extend(names.iter().filter_map(number));
        }
        Ok(found)
    }

    /// How many files a checkpoint would have to sync.
    pub fn dirty_files(&self) -> usize {
        self.dirty().files.len()
    }

    /// All that was written before the call is stable when it returns.
    ///
    /// If it fails the caller must stop the process: what was dirty has been forgotten here, and the page
    /// cache can't be trusted after a failed sync. From then on it fails always.
    pub fn sync(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            let before = std::io::Error::other("a sync failed before, so what was written then may be gone");
            return Err(StoreError::disk("syncing", "data")(before));
        }
        let synced = self.sync_dirty();
        if synced.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        synced
    }

    fn sync_dirty(&self) -> Result<(), StoreError> {
        let dirty = std::mem::take(&mut *self.dirty());
        // Some without a handle may be left of more that were there for a while.
        if dirty.files.len() > SYNC_ONE_BY_ONE || dirty.files.values().any(Option::is_none) {
            return self
                .disk
                .sync_all()
                .map_err(StoreError::disk("syncing", "the store's file system"));
        }
        for (ino, file) in dirty.files {
            if let Some(file) = file {
                file.sync_data().map_err(StoreError::disk("syncing", &path(ino)))?;
            }
        }
        for folder in dirty.folders {
            let path = format!("data/{folder:02x}");
            self.disk.sync_dir(&path).map_err(StoreError::disk("syncing", &path))?;
        }
        Ok(())
    }

    /// Around the page cache, with a file handle of its own: what fails here is said here, and no later sync of what was
    /// written before is told less for it. Stable after `sync_through`.
    pub(crate) fn write_through(&self, ino: Ino, block: &AlignedBuf, offset: u64) -> Result<(), StoreError> {
        let (path, is_new) = (path(ino), self.file(ino, false)?.is_none());
        let how = OpenHow {
            create: true,
            direct: true,
        };
        let written = self.disk.open(&path, how).and_then(|file| file.write_at(block, offset));
        if is_new {
            self.dirty().folders.insert(folder(ino));
        }
        written.map_err(StoreError::disk("writing", &path))
    }

    pub(crate) fn sync_through(&self, ino: Ino) -> Result<(), StoreError> {
        let path = path(ino);
        let how = OpenHow {
            create: false,
            direct: true,
        };
        match self.disk.open(&path, how) {
            Ok(file) => file.sync_data().map_err(StoreError::disk("syncing", &path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::disk("opening", &path)(error)),
        }
    }

    pub fn disk(&self) -> &D {
        &self.disk
    }
}

/// What lies before the whole blocks of a write, those if they are many, and what lies behind them.
fn split(data: &[u8], offset: u64) -> (&[u8], &[u8], &[u8]) {
    let head = (offset.next_multiple_of(BLOCK) - offset).min(data.len() as u64) as usize;
    let (head, rest) = data.split_at(head);
    let (whole, tail) = rest.split_at(rest.len() - rest.len() % BLOCK as usize);
    if whole.len() < LARGE {
        return (data, &[], &[]);
    }
    (head, whole, tail)
}

/// The whole blocks that a byte range touches: first block and one past the last.
pub fn blocks(offset: u64, len: u64) -> std::ops::Range<u64> {
    if len == 0 {
        return 0..0;
    }
    offset / BLOCK..(offset + len).div_ceil(BLOCK)
}
