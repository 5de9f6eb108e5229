//! The bytes of one file: copied where they differ, holes as holes, read back and compared by hash.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, seek};
use rustix::io::Errno;

use super::progress::Progress;
use super::report::{Report, add};

/// Read, compared and written in one go.
const PIECE: usize = 1 << 20;

/// A failure of the side that is written to ends the pass; one of the source concerns that file alone.
#[derive(Debug)]
pub(super) enum Failure {
    Source(io::Error),
    Mount(io::Error),
    /// The copy that was read back isn't what was written.
    Differs,
}

pub(super) enum Outcome {
    /// With the state of the source that was copied.
    Copied(Metadata),
    /// Somebody wrote to the source meanwhile: what was copied is neither the old file nor the new one.
    Changing,
}

fn source(error: impl Into<io::Error>) -> Failure {
    Failure::Source(error.into())
}

fn mount(error: impl Into<io::Error>) -> Failure {
    Failure::Mount(error.into())
}

/// Whether somebody has written to it in between.
pub(super) fn same_state(one: &Metadata, other: &Metadata) -> bool {
    let state = |meta: &Metadata| {
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        (meta.dev(), meta.ino(), meta.mode(), meta.len(), times)
    };
    state(one) == state(other)
}

/// Where a file has bytes; what lies between is holes.
fn segments(file: &File, len: u64) -> rustix::io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < len {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            // A file system that knows of no holes.
            Err(Errno::INVAL) => return Ok(vec![(0, len)]),
            Err(error) => return Err(error),
        };
        let hole = seek(file, SeekFrom::Hole(data))?.min(len);
        if data >= len || hole <= data {
            break;
        }
        found.push((data, hole));
        at = hole;
    }
    Ok(found)
}

/// The gaps between the segments, and behind the last one.
fn holes(segments: &[(u64, u64)], len: u64) -> Vec<(u64, u64)> {
    let starts = segments.iter().map(|(data, _)| *data).chain([len]);
    let ends = [0].into_iter().chain(segments.iter().map(|(_, hole)| *hole));
    ends.zip(starts).filter(|(from, to)| from < to).collect()
}

/// Where each piece of the segments begins, and how long it is.
fn pieces(segments: &[(u64, u64)]) -> impl Iterator<Item = (u64, usize)> {
    segments.iter().flat_map(|(start, end)| {
        (*start..*end)
            .step_by(PIECE)
            .map(move |at| (at, (end - at).min(PIECE as u64) as usize))
    })
}

pub(super) struct Copy<'a> {
    pub(super) from: &'a Path,
    pub(super) to: &'a Path,
    /// As it was when its directory was read.
    pub(super) listed: &'a Metadata,
    pub(super) report: &'a Report,
    pub(super) progress: &'a Progress,
}

impl Copy<'_> {
    /// None: it is another one by now. Some directory above it may have become a link to elsewhere.
    fn open_source(&self) -> Result<Option<(File, Metadata)>, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NOATIME | libc::O_NONBLOCK)
            .open(self.from)
            .map_err(source)?;
        let meta = file.metadata().map_err(source)?;
        let is_same = meta.is_file() && (meta.dev(), meta.ino()) == (self.listed.dev(), self.listed.ino());
        Ok(is_same.then_some((file, meta)))
    }

    /// False: the file was cut shorter meanwhile.
    fn read(&self, from: &File, piece: &mut [u8], at: u64) -> Result<bool, Failure> {
        match from.read_exact_at(piece, at) {
            Ok(()) => {
                self.progress.bytes(piece.len() as u64, self.from);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(source(error)),
        }
    }

    /// Brings what is at `to`, a file or nothing, to what is at `from`.
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let Some((from, before)) = self.open_source()? else {
            return Ok(Outcome::Changing);
        };
        let segments = segments(&from, before.len()).map_err(source)?;
        let to = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.to)
            .map_err(mount)?;
        let old = to.metadata().map_err(mount)?.len();
        if old != before.len() {
            to.set_len(before.len()).map_err(mount)?;
        }
        let present = old.min(before.len());
        for (start, end) in holes(&segments, present) {
            rustix::fs::fallocate(
                &to,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                start,
                end - start,
            )
            .map_err(mount)?;
        }
        let mut hasher = blake3::Hasher::new();
        let (mut buffer, mut other) = (vec![0; PIECE], Vec::new());
        for (at, len) in pieces(&segments) {
            let piece = &mut buffer[..len];
            if !self.read(&from, piece, at)? {
                return Ok(Outcome::Changing);
            }
            hasher.update(piece);
            if at >= present || !holds(&to, piece, at, &mut other)? {
                to.write_all_at(piece, at).map_err(mount)?;
                add(&self.report.written, len as u64);
            }
        }
        drop(to);
        self.verify(&segments, before.len(), &hasher.finalize())?;
        let after = from.metadata().map_err(source)?;
        Ok(if same_state(&before, &after) {
            Outcome::Copied(before)
        } else {
            Outcome::Changing
        })
    }

    /// Both are read, and nothing is written: whether they are the same.
    pub(super) fn compare(&self) -> Result<bool, Failure> {
        let Some((from, meta)) = self.open_source()? else {
            return Ok(false);
        };
        let segments = segments(&from, meta.len()).map_err(source)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE];
        for (at, len) in pieces(&segments) {
            if !self.read(&from, &mut buffer[..len], at)? {
                return Ok(false);
            }
            hasher.update(&buffer[..len]);
        }
        match self.verify(&segments, meta.len(), &hasher.finalize()) {
            Ok(()) => Ok(true),
            Err(Failure::Differs) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// What the file system holds, past the kernel's cache: the same bytes in the segments, zeros between them.
    fn verify(&self, segments: &[(u64, u64)], len: u64, expected: &blake3::Hash) -> Result<(), Failure> {
        let to = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECT)
            .open(self.to)
            .map_err(mount)?;
        if to.metadata().map_err(mount)?.len() != len {
            return Err(Failure::Differs);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE];
        for (at, len) in pieces(segments) {
            to.read_exact_at(&mut buffer[..len], at).map_err(mount)?;
            hasher.update(&buffer[..len]);
        }
        if hasher.finalize() != *expected {
            return Err(Failure::Differs);
        }
        for (start, end) in holes(segments, len) {
            self.verify_hole(&to, start, end, &mut buffer)?;
        }
        add(&self.report.verified, 1);
        Ok(())
    }

    fn verify_hole(&self, to: &File, mut at: u64, end: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        while at < end {
            at = match seek(to, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => return Ok(()),
                Err(error) => return Err(mount(error)),
            };
            if at >= end {
                return Ok(());
            }
            let wanted = buffer.len().min((end - at) as usize);
            to.read_exact_at(&mut buffer[..wanted], at).map_err(mount)?;
            if buffer[..wanted].iter().any(|byte| *byte != 0) {
                return Err(Failure::Differs);
            }
            at += wanted as u64;
        }
        Ok(())
    }
}

/// Whether the copy has these bytes there already.
fn holds(to: &File, piece: &[u8], at: u64, buffer: &mut Vec<u8>) -> Result<bool, Failure> {
    buffer.resize(PIECE, 0);
    let have = &mut buffer[..piece.len()];
    match to.read_exact_at(have, at) {
        Ok(()) => Ok(have == piece),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(mount(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_what_the_segments_leave() {
        assert_eq!(holes(&[], 10), [(0, 10)]);
        assert_eq!(holes(&[(0, 10)], 10), []);
        assert_eq!(holes(&[(2, 4), (6, 8)], 10), [(0, 2), (4, 6), (8, 10)]);
        assert_eq!(holes(&[], 0), []);
    }

    #[test]
    fn pieces_cover_the_segments_and_nothing_else() {
        let (one, part) = (PIECE as u64, 7);
        let found: Vec<_> = pieces(&[(5, 5 + 2 * one + part), (4 * one, 5 * one)]).collect();
        let expected = [
            (5, PIECE),
            (5 + one, PIECE),
            (5 + 2 * one, part as usize),
            (4 * one, PIECE),
        ];
        assert_eq!(found, expected);
        assert_eq!(pieces(&[]).count(), 0);
    }
}
