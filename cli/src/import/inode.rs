//! Brings in one inode that isn't a directory: its bytes, target or device, then its attributes, its time last.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};

use super::attributes::{self, Attributes, errno, is_kept};
use super::file::{Copy, Failure, Outcome};
use super::pass::{Job, Pass, exists, remove, same_kind, wall_ms};
use super::report::add;

/// A file that was written so lately may be written again without its time showing it: clocks of files tick in
/// milliseconds or seconds, and what a mapping writes shows half a minute later. It is left to the next pass.
const RECENT_MS: i64 = 60_000;

impl Pass<'_> {
    /// What concerns this one file is told, and the pass goes on.
    pub(super) fn refused(&self, from: &Path, to: &Path, error: io::Error) {
        match error.raw_os_error() {
            Some(libc::EMLINK | libc::ENAMETOOLONG | libc::EFBIG | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP) => {
                self.report
                    .problem(from, &format!("the mount doesn't take it: {error}"));
            }
            _ => self.end(to, error),
        }
    }

    pub(super) fn link(&self, first: &Path, to: &Path) -> io::Result<()> {
        if let Some(meta) = exists(to)? {
            let Some(is) = exists(first)? else { return Ok(()) };
            if is.ino() == meta.ino() {
                add(&self.report.links, 1);
                return Ok(());
            }
            remove(to, &meta)?;
        }
        match fs::hard_link(first, to) {
            Ok(()) => add(&self.report.links, 1),
            // The first name couldn't be brought in, and that was said.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Anything but a directory.
    pub(super) fn file(&self, job: &Job) {
        let Job { from, to, meta } = job;
        self.progress.inode(from);
        let done = if meta.is_file() {
            self.regular(job)
        } else if meta.is_symlink() {
            symlink(from, to).map(|()| Some(meta.clone()))
        } else {
            special(to, meta).map(|()| Some(meta.clone()))
        };
        match done {
            Ok(Some(state)) => {
                add(
                    if meta.is_file() {
                        &self.report.files
                    } else {
                        &self.report.others
                    },
                    1,
                );
                self.attributes(from, to, &state);
            }
            Ok(None) => {}
            Err(Failure::Source(error)) if error.kind() == ErrorKind::NotFound => {
                // Removed since the directory was read; the next pass takes the copy away.
                self.report.changing(from);
            }
            Err(Failure::Source(error)) => self.report.problem(from, &format!("can't be read: {error}")),
            Err(Failure::Mount(error)) => self.refused(from, to, error),
            Err(Failure::Differs) => self.report.problem(
                to,
                "what was read back isn't what was written: `holdfast check` says more",
            ),
        }
    }

    /// The state of the source that the copy has now; none while the source is being written.
    fn regular(&self, job: &Job) -> Result<Option<Metadata>, Failure> {
        let Job { from, to, meta } = job;
        let copy = Copy {
            from,
            to,
            listed: meta,
            report: &self.report,
            progress: &self.progress,
        };
        let there = exists(to).map_err(Failure::Mount)?;
        let unchanged = there.is_some_and(|there| {
            there.len() == meta.len() && (there.mtime(), there.mtime_nsec()) == (meta.mtime(), meta.mtime_nsec())
        });
        if unchanged && (!self.plan.thorough || copy.compare()?) {
            if !self.plan.thorough {
                add(&self.report.unchanged, 1);
                self.progress.bytes(meta.len().min(meta.blocks() * 512), from);
            }
            return Ok(Some(meta.clone()));
        }
        let now_ms = wall_ms();
        match copy.run()? {
            Outcome::Copied(state) if self.plan.last || !is_recent(&state, now_ms) => Ok(Some(state)),
            Outcome::Copied(_) | Outcome::Changing => {
                add(&self.report.files, 1);
                self.report.changing(from);
                Ok(None)
            }
        }
    }

    pub(super) fn attributes(&self, from: &Path, to: &Path, state: &Metadata) {
        let Some(wanted) = self.wanted(from) else { return };
        let outcome = attributes::set(to, state, &wanted).and_then(|()| set_times(to, state));
        if let Err(error) = outcome {
            self.attributes_failed(to, error);
        }
    }

    fn attributes_failed(&self, to: &Path, error: rustix::io::Errno) {
        let error = io::Error::from(error);
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EOPNOTSUPP | libc::E2BIG | libc::EINVAL | libc::ENOENT) => {
                self.report.problem(
                    to,
                    &format!("its owner, mode, attributes or times can't be set: {error}"),
                );
            }
            _ => self.end(to, error),
        }
    }

    fn wanted(&self, from: &Path) -> Option<Attributes> {
        match attributes::all(from) {
            Ok(all) => {
                for name in all.keys().filter(|name| !is_kept(name)) {
                    // Labels are the machine's policy's, the marks an import's own.
                    if name != "security.selinux" && !name.as_encoded_bytes().starts_with(b"trusted.holdfast.") {
                        self.report
                            .note(from, &format!("its attribute {} isn't brought in", name.display()));
                    }
                }
                Some(all)
            }
            Err(rustix::io::Errno::NOENT) => {
                self.report.changing(from);
                None
            }
            Err(error) => {
                self.report
                    .problem(from, &format!("its extended attributes can't be read: {error}"));
                None
            }
        }
    }
}

fn set_times(to: &Path, state: &Metadata) -> rustix::io::Result<()> {
    let there = fs::symlink_metadata(to).map_err(|error| errno(&error))?;
    if (there.mtime(), there.mtime_nsec()) == (state.mtime(), state.mtime_nsec()) {
        return Ok(());
    }
    attributes::times(to, state)
}

fn is_recent(state: &Metadata, now_ms: i64) -> bool {
    let written_ms = state
        .mtime()
        .saturating_mul(1000)
        .saturating_add(state.mtime_nsec() / 1_000_000);
    now_ms.saturating_sub(written_ms) < RECENT_MS && written_ms.saturating_sub(now_ms) < RECENT_MS
}

fn symlink(from: &Path, to: &Path) -> Result<(), Failure> {
    let target = fs::read_link(from).map_err(Failure::Source)?;
    if fs::read_link(to).is_ok_and(|is| is == target) {
        return Ok(());
    }
    if let Some(meta) = exists(to).map_err(Failure::Mount)? {
        remove(to, &meta).map_err(Failure::Mount)?;
    }
    std::os::unix::fs::symlink(target, to).map_err(Failure::Mount)
}

fn special(to: &Path, meta: &Metadata) -> Result<(), Failure> {
    let device = meta.file_type().is_block_device() || meta.file_type().is_char_device();
    if let Some(there) = exists(to).map_err(Failure::Mount)? {
        if same_kind(&there, meta) && (!device || there.rdev() == meta.rdev()) {
            return Ok(());
        }
        remove(to, &there).map_err(Failure::Mount)?;
    }
    let kind = FileType::from_raw_mode(meta.mode());
    rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), meta.rdev())
        .map_err(|error| Failure::Mount(error.into()))
}
