//! The files of the log: their names, and which of them are in use.

use super::error::LogError;
use super::format::{Geometry, Hash};
use super::index::Index;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::types::NUMBER_MAX;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(super) const FOLDER: &str = "log";
pub(crate) const DESCRIPTION: &str = "log/format";
pub(super) const NEW_DESCRIPTION: &str = "log/format.new";
pub(super) const DIRECT: OpenHow = OpenHow {
    create: false,
    direct: true,
};

pub(super) fn segment_path(number: u64) -> String {
    format!("{FOLDER}/{number:016x}.seg")
}

pub(super) fn free_path(place: u32) -> String {
    format!("{FOLDER}/{place:04}.free")
}

/// A segment in use.
pub(super) struct Segment<F> {
    pub(super) number: u64,
    pub(super) file: Arc<F>,
}

impl<F> Segment<F> {
    /// Nothing in it is needed. `damaged`: or in one that was given up with it.
    pub(super) fn given_up(self, damaged: bool) -> Free<F> {
        Free {
            path: segment_path(self.number),
            file: self.file,
            damaged,
        }
    }
}

/// A segment that can be used: it never was, or nothing in it is needed.
pub(super) struct Free<F> {
    pub(super) path: String,
    pub(super) file: Arc<F>,
    /// It is written over with zeros first: what can't be read in it would be met again at the next start, as the log's end.
    pub(super) damaged: bool,
}

impl<F: DiskFile> Free<F> {
    pub(super) fn open<D: Disk<File = F>>(disk: &D, path: String, geometry: Geometry) -> Result<Self, LogError> {
        Ok(Self {
            file: open_segment(disk, &path, geometry)?,
            path,
            damaged: false,
        })
    }
}

/// What is held and in which files; the writer changes it, readers look things up.
pub(super) struct Held<F> {
    pub(super) index: Index,
    /// Ascending, without gaps; the last one is being written.
    pub(super) segments: VecDeque<Segment<F>>,
}

impl<F> Held<F> {
    pub(super) fn file(&self, number: u64) -> Option<Arc<F>> {
        let oldest = self.segments.front()?.number;
        let place = usize::try_from(number.checked_sub(oldest)?).ok()?;
        self.segments.get(place).map(|segment| segment.file.clone())
    }
}

pub(super) struct Shared<F> {
    pub(super) log_id: Hash,
    held: RwLock<Held<F>>,
}

impl<F> Shared<F> {
    pub(super) fn new(log_id: Hash, held: Held<F>) -> Self {
        Self {
            log_id,
            held: RwLock::new(held),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Held<F>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Held<F>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All segments of a log, opened.
pub(super) struct Files<F> {
    pub(super) used: VecDeque<Segment<F>>,
    /// The next one to use comes last.
    pub(super) free: Vec<Free<F>>,
}

impl<F: DiskFile> Files<F> {
    pub(super) fn open<D: Disk<File = F>>(disk: &D, geometry: Geometry) -> Result<Self, LogError> {
        let mut names = disk.list(FOLDER).map_err(LogError::io("listing the folder", FOLDER))?;
        names.sort();
        let (mut used, mut free) = (VecDeque::new(), Vec::new());
        for name in names {
            let path = format!("{FOLDER}/{name}");
            let number = name
                .strip_suffix(".seg")
                .and_then(|hex| u64::from_str_radix(hex, 16).ok());
            if let Some(number) = number.filter(|number| *number < NUMBER_MAX && segment_path(*number) == path) {
                used.push_back(Segment {
                    number,
                    file: open_segment(disk, &path, geometry)?,
                });
            } else if name.ends_with(".free") {
                free.push(Free::open(disk, path, geometry)?);
            }
        }
        free.reverse();
        let files = Self { used, free };
        files.check(geometry)?;
        Ok(files)
    }

    fn check(&self, geometry: Geometry) -> Result<(), LogError> {
        let damaged = |what| {
            Err(LogError::Damaged {
                path: FOLDER.to_owned(),
                offset: 0,
                what,
            })
        };
        let found = self.used.len() + self.free.len();
        if found != geometry.segments as usize {
            return damaged(format!("it has {found} segments, not {}", geometry.segments));
        }
        for (before, after) in self.used.iter().zip(self.used.iter().skip(1)) {
            if before.number + 1 != after.number {
                return damaged(format!(
                    "between segments {:x} and {:x} there is none",
                    before.number, after.number
                ));
            }
        }
        Ok(())
    }
}

fn open_segment<D: Disk>(disk: &D, path: &str, geometry: Geometry) -> Result<Arc<D::File>, LogError> {
    let file = disk.open(path, DIRECT).map_err(LogError::io("opening", path))?;
    let len = file.len().map_err(LogError::io("reading the length of", path))?;
    if len != geometry.segment_bytes {
        let what = format!("the file has {len} bytes, a segment {}", geometry.segment_bytes);
        return Err(LogError::Damaged {
            path: path.to_owned(),
            offset: len,
            what,
        });
    }
    Ok(Arc::new(file))
}
