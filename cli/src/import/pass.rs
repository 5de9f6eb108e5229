//! One pass over the source: directories in order by one thread, files by several, and at the end what only the end can
//! set: the directories' own attributes, which each new name in them changes.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::attributes::{self, Attributes, errno, is_kept};
use super::file::{Copy, Failure, Outcome};
use super::progress::Progress;
use super::report::{Report, add};
use super::{VOLUME, amount};
use crate::clock::Clock;
use crate::output;

/// Each waits for the network most of the time.
const WORKERS: usize = 8;

/// A file that was written so lately may be written again without its time showing it: clocks of files tick in
/// milliseconds or seconds, and what a mapping writes shows half a minute later. It is left to the next pass.
const RECENT_MS: i64 = 60_000;

/// How much older than its moment the time of a change may be.
const TICK_MS: i64 = 10;

/// What `mkfs.ext4` makes, and nobody's data.
pub(super) const LOST_FOUND: &str = "lost+found";

pub(super) struct Plan<'a> {
    pub(super) source: &'a Path,
    pub(super) into: &'a Path,
    pub(super) last: bool,
    pub(super) thorough: bool,
}

struct Job {
    from: PathBuf,
    to: PathBuf,
    meta: Metadata,
}

struct Pass<'a> {
    plan: &'a Plan<'a>,
    report: Report,
    progress: Progress,
    /// Why nothing more can be brought in.
    ended: OnceLock<(PathBuf, io::Error)>,
}

/// What was found, and whether the pass came to its end.
pub(super) fn run(plan: &Plan<'_>) -> anyhow::Result<(Report, anyhow::Result<()>)> {
    let began_ms = wall_ms();
    let (bytes, inodes) = measure(plan.source)?;
    check_room(plan, bytes)?;
    let pass = Pass {
        plan,
        report: Report::default(),
        progress: Progress::new(bytes, inodes),
        ended: OnceLock::new(),
    };
    let (jobs, taken) = bounded(4 * WORKERS);
    let directories = thread::scope(|threads| {
        for _ in 0..WORKERS {
            let taken = taken.clone();
            let pass = &pass;
            threads.spawn(move || pass.work(&taken));
        }
        drop(taken);
        let walked = pass.walk(&jobs);
        drop(jobs);
        walked
    });
    let outcome = directories.and_then(|directories| {
        for (from, to) in directories.iter().rev() {
            pass.directory_attributes(from, to);
        }
        if plan.last && !pass.has_ended() {
            // Times of files tick: one may be a little older than the change.
            pass.sweep(began_ms.saturating_sub(TICK_MS))?;
        }
        Ok(())
    });
    output::progress("");
    let outcome = match pass.ended.into_inner() {
        None => outcome,
        Some((path, error)) => {
            let advice = advice(&error);
            Err(anyhow::Error::new(error).context(format!("{}: {advice}", path.display())))
        }
    };
    Ok((pass.report, outcome))
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => {
            "the store is full; make room (`holdfast status` shows each node's) and call this once more: it goes on where \
             it stopped"
        }
        Some(libc::EAGAIN | libc::EIO | libc::ENOTCONN | libc::ECONNABORTED | libc::EROFS) => {
            "the active role has moved, or was lost for a moment; call this once more on the node that `holdfast status` \
             names: it goes on where it stopped"
        }
        _ => "call this once more when it is mended: it goes on where it stopped",
    }
}

/// Bytes on the source's disk and inodes, for the progress.
fn measure(source: &Path) -> anyhow::Result<(u64, u64)> {
    let (mut bytes, mut inodes) = (0, 0);
    let mut linked = HashSet::new();
    let mut directories = vec![source.to_owned()];
    while let Some(directory) = directories.pop() {
        // What can't be read is told by the pass itself.
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            inodes += 1;
            if meta.is_dir() {
                directories.push(entry.path());
            } else if meta.is_file() && (meta.nlink() == 1 || linked.insert((meta.dev(), meta.ino()))) {
                bytes += meta.len().min(meta.blocks() * 512);
            }
            if inodes % 4096 == 0 {
                output::progress(&format!("looking: {inodes} inodes, {}", amount(bytes)));
            }
        }
    }
    Ok((bytes, inodes))
}

/// Only for a first pass: later ones replace what is there.
fn check_room(plan: &Plan<'_>, bytes: u64) -> anyhow::Result<()> {
    let empty = fs::read_dir(plan.into)
        .with_context(|| format!("reading {}", plan.into.display()))?
        .next()
        .is_none();
    let space =
        rustix::fs::statvfs(plan.into).with_context(|| format!("asking for the space of {}", plan.into.display()))?;
    let free = space.f_bavail * space.f_frsize;
    if empty && free < bytes {
        bail!(
            "{} holds {}, and there is room for {} in {}: nothing was done",
            plan.source.display(),
            amount(bytes),
            amount(free),
            plan.into.display()
        );
    }
    Ok(())
}

fn exists(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn same_kind(one: &Metadata, other: &Metadata) -> bool {
    one.mode() & libc::S_IFMT == other.mode() & libc::S_IFMT
}

/// Never what is mounted in it: that isn't the copy's.
fn remove(path: &Path, there: &Metadata) -> io::Result<()> {
    if !there.is_dir() {
        return fs::remove_file(path);
    }
    for entry in fs::read_dir(path)? {
        let inside = entry?.path();
        if let Some(meta) = exists(&inside)? {
            if meta.dev() != there.dev() {
                return Err(mounted(&inside));
            }
            remove(&inside, &meta)?;
        }
    }
    fs::remove_dir(path)
}

fn mounted(path: &Path) -> io::Error {
    io::Error::other(format!("something else is mounted on {}: unmount it", path.display()))
}

impl Pass<'_> {
    /// The mount refuses: nothing else would succeed either.
    fn end(&self, path: &Path, error: impl Into<io::Error>) {
        // The first one counts.
        let _ = self.ended.set((path.to_owned(), error.into()));
    }

    fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    fn work(&self, jobs: &Receiver<Job>) {
        // To the end of the queue also after a failure: the walker waits for room in it.
        for job in jobs {
            if !self.has_ended() {
                self.file(&job);
            }
        }
    }

    /// All directories, each after the one that it is in.
    fn walk(&self, jobs: &Sender<Job>) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
        let mut directories = Vec::new();
        let look = |path: &Path| fs::metadata(path).with_context(|| format!("looking at {}", path.display()));
        let top = look(self.plan.source)?;
        let own_device = look(self.plan.into)?.dev();
        let mut ahead = vec![(self.plan.source.to_owned(), self.plan.into.to_owned(), top)];
        let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
        // Inodes of the copy with several names, and whose they are.
        let mut claims = HashMap::new();
        while let Some((from, to, listed)) = ahead.pop() {
            if self.has_ended() {
                break;
            }
            if listed.dev() == own_device {
                bail!(
                    "{} is the mount itself, by another name: it can't be a part of the source",
                    from.display()
                );
            }
            let entries = match self.entries(&from, &listed) {
                Ok(Some(entries)) => entries,
                Ok(None) => {
                    self.report.changing(&from);
                    continue;
                }
                Err(error) => {
                    self.report.problem(&from, &format!("can't be read: {error}"));
                    continue;
                }
            };
            if let Err(error) = self.prune(&to, &entries, own_device, &mut claims) {
                self.end(&to, error);
                break;
            }
            for (name, meta) in entries {
                let Some(meta) = meta else { continue };
                let (from, to) = (from.join(&name), to.join(&name));
                if meta.is_dir() {
                    if let Err(error) = make_directory(&to) {
                        self.end(&to, error);
                        break;
                    }
                    self.volume(&from, &to, meta.dev() != listed.dev())?;
                    ahead.push((from, to, meta));
                    continue;
                }
                let linked = (meta.nlink() > 1).then(|| (meta.dev(), meta.ino()));
                if let Some(first) = linked.and_then(|inode| first_names.get(&inode)) {
                    if let Err(error) = self.link(first, &to) {
                        self.refused(&from, &to, error);
                    }
                    self.progress.inode(&from);
                    continue;
                }
                let job = Job { from, to, meta };
                if let Some(inode) = linked {
                    // At once: its further names lead to it.
                    self.file(&job);
                    first_names.insert(inode, job.to);
                } else if jobs.send(job).is_err() {
                    break;
                }
            }
            directories.push((from, to));
        }
        Ok(directories)
    }

    /// A volume that was mounted here in an earlier pass and isn't now would look as if everything in it had gone.
    fn volume(&self, from: &Path, to: &Path, is_mounted: bool) -> anyhow::Result<()> {
        let context = || format!("marking {}", to.display());
        if is_mounted {
            self.report.note(
                from,
                "another file system is mounted here; what is in it is brought in as well",
            );
            self.report.volume(to);
            return rustix::fs::lsetxattr(to, VOLUME, b"", XattrFlags::empty()).with_context(context);
        }
        match rustix::fs::lgetxattr(to, VOLUME, &mut [0; 8][..]) {
            Err(rustix::io::Errno::NODATA) => Ok(()),
            Ok(_) => bail!(
                "on {} another file system was mounted in an earlier pass, and none is now: mount it and call this once more. \
                 (If it is to be empty now: `setfattr -x {VOLUME} {}`)",
                from.display(),
                to.display()
            ),
            Err(error) => Err(error).with_context(context),
        }
    }

    /// What is in a directory; without what is known of it where it can't be looked at. None: it is another one by now.
    fn entries(&self, directory: &Path, listed: &Metadata) -> io::Result<Option<HashMap<OsString, Option<Metadata>>>> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NOATIME)
            .open(directory)?;
        let is = opened.metadata()?;
        if (is.dev(), is.ino()) != (listed.dev(), listed.ino()) {
            return Ok(None);
        }
        // By its descriptor: the path may lead elsewhere at any moment.
        let inside = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let mut found = HashMap::new();
        for entry in fs::read_dir(&inside)? {
            let name = entry?.file_name();
            if directory == self.plan.source && name == LOST_FOUND {
                self.report
                    .note(&directory.join(name), "left out: it is the old file system's own");
                continue;
            }
            match fs::symlink_metadata(inside.join(&name)) {
                Ok(meta) => drop(found.insert(name, Some(meta))),
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    self.report
                        .problem(&directory.join(&name), &format!("can't be looked at: {error}"));
                    found.insert(name, None);
                }
            }
        }
        Ok(Some(found))
    }

    /// Whoever changed anything in the source since the pass began did it beside us: it isn't as it was when it was copied,
    /// or needn't be.
    fn sweep(&self, began_ms: i64) -> anyhow::Result<()> {
        let mut directories = vec![self.plan.source.to_owned()];
        let look = |path: &Path| {
            if let Ok(meta) = fs::symlink_metadata(path)
                && meta
                    .ctime()
                    .saturating_mul(1000)
                    .saturating_add(meta.ctime_nsec() / 1_000_000)
                    >= began_ms
            {
                self.report.changing(path);
            }
        };
        look(self.plan.source);
        while let Some(directory) = directories.pop() {
            // What can't be read was told before.
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries {
                let entry = entry.with_context(|| format!("reading {}", directory.display()))?;
                look(&entry.path());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    directories.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// Takes away what the source has no longer, or has as something else; also a name that leads to an inode which the
    /// source has under other names alone: writing to it would change those.
    fn prune(
        &self,
        to: &Path,
        wanted: &HashMap<OsString, Option<Metadata>>,
        own_device: u64,
        claims: &mut HashMap<u64, (u64, u64)>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            let path = entry.path();
            let Some(there) = exists(&path)? else { continue };
            if there.dev() != own_device {
                return Err(mounted(&path));
            }
            let same = match wanted.get(&entry.file_name()) {
                // It is there, and can't be looked at: the copy may be the last one.
                Some(None) => continue,
                Some(Some(meta)) => Some(meta).filter(|meta| same_kind(meta, &there)),
                None => None,
            };
            let shared = same.is_some_and(|meta| {
                let inode = (meta.dev(), meta.ino());
                !there.is_dir() && there.nlink() > 1 && *claims.entry(there.ino()).or_insert(inode) != inode
            });
            if same.is_none() || shared {
                remove(&path, &there)?;
                add(&self.report.removed, 1);
            }
        }
        Ok(())
    }

    /// What concerns this one file is told, and the pass goes on.
    fn refused(&self, from: &Path, to: &Path, error: io::Error) {
        match error.raw_os_error() {
            Some(libc::EMLINK | libc::ENAMETOOLONG | libc::EFBIG | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP) => {
                self.report
                    .problem(from, &format!("the mount doesn't take it: {error}"));
            }
            _ => self.end(to, error),
        }
    }

    fn link(&self, first: &Path, to: &Path) -> io::Result<()> {
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
    fn file(&self, job: &Job) {
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

    fn attributes(&self, from: &Path, to: &Path, state: &Metadata) {
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

    fn directory_attributes(&self, from: &Path, to: &Path) {
        if self.has_ended() {
            return;
        }
        match fs::symlink_metadata(from) {
            Ok(state) if !state.is_dir() => self.report.changing(from),
            Ok(state) => {
                add(&self.report.directories, 1);
                self.attributes(from, to, &state);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => self.report.changing(from),
            Err(error) => self.report.problem(from, &format!("can't be looked at: {error}")),
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

fn wall_ms() -> i64 {
    i64::try_from(Clock::read().now_unix_ms).unwrap_or(i64::MAX)
}

fn is_recent(state: &Metadata, now_ms: i64) -> bool {
    let written_ms = state
        .mtime()
        .saturating_mul(1000)
        .saturating_add(state.mtime_nsec() / 1_000_000);
    now_ms.saturating_sub(written_ms) < RECENT_MS && written_ms.saturating_sub(now_ms) < RECENT_MS
}

/// Closed to everybody else until its attributes are set.
fn make_directory(to: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
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
