//! The machine's own disk: one folder, its files as the kernel offers them.
//!
//! Errors are returned as they are, those of a sync too: after one, what the page cache says is no longer known
//! to be on disk, and the caller ends the process.

use super::{Disk, DiskFile, OpenHow, Space};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of the machine; clones share it.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    folder: File,
}

#[derive(Debug)]
pub struct RealFile {
    file: File,
}

impl RealDisk {
    /// The folder must be there.
    pub fn open(root: &Path) -> io::Result<Self> {
        let folder = File::open(root)?;
        if !folder.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self {
            root: Arc::new(Root {
                path: root.to_owned(),
                folder,
            }),
        })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path.join(path)
    }
}

impl Disk for RealDisk {
    type File = RealFile;
    const MANY_AT_ONCE: bool = true;

    fn open(&self, path: &str, how: OpenHow) -> io::Result<RealFile> {
        let flags = if how.direct { libc::O_DIRECT } else { 0 };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(how.create)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags);
        Ok(RealFile {
            file: options.open(self.at(path))?,
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.at(from), self.at(to))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let path = self.at(path);
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<std::fs::DirEntry>| {
            let name = entry?.file_name().into_string();
            name.map_err(|name| io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is no name of ours")))
        };
        std::fs::read_dir(self.at(path))?.map(name).collect()
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root.folder)?)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.root.folder)?;
        // Some file systems make inodes as they are needed.
        let no_limit = stat.f_files == 0;
        Ok(Space {
            free: stat.f_bavail * stat.f_frsize,
            total: stat.f_blocks * stat.f_frsize,
            free_files: if no_limit { u64::MAX } else { stat.f_favail },
            files: if no_limit { u64::MAX } else { stat.f_files },
        })
    }
}

impl RealFile {
    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        // The kernel refuses an empty range; here it means that nothing is to be done.
        if len == 0 {
            return Ok(());
        }
        Ok(retry_on_intr(|| rustix::fs::fallocate(&self.file, mode, offset, len))?)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                // After the last, incomplete block of a file a direct read can't go on: that was its end.
                Err(error) if done % 512 != 0 && error.raw_os_error() == Some(libc::EINVAL) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn write_synced(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            match rustix::io::pwritev2(&self.file, &rest, offset + done as u64, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // A file system that can't write and sync in one call.
                Err(Errno::OPNOTSUPP) => {
                    self.write_at(&data[done..], offset + done as u64)?;
                    return self.sync_data();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
