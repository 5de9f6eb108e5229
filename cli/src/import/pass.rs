//! One pass over the source: directories in order by one thread, files by several, and at the end what only the end can
//! set: the directories' own attributes, which each new name in them changes.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, Sender, after, bounded};
use rustix::fs::XattrFlags;

use super::progress::Progress;
use super::report::{Report, add};
use super::{VOLUME, amount};
use crate::clock::Clock;
use crate::output;

/// Each waits for the network most of the time.
const WORKERS: usize = 8;

/// Longer than the time of a change may be older than its moment: times of files tick.
const TICK: Duration = Duration::from_millis(20);

/// What `mkfs.ext4` makes, and nobody's data.
pub(super) const LOST_FOUND: &str = "lost+found";

pub(super) struct Plan<'a> {
    pub(super) source: &'a Path,
    pub(super) into: &'a Path,
    pub(super) last: bool,
    pub(super) thorough: bool,
}

/// An inode that isn't a directory, as it was when its directory was read.
pub(super) struct Job {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) meta: Metadata,
}

pub(super) struct Pass<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) report: Report,
    pub(super) progress: Progress,
    /// Why nothing more can be brought in.
    ended: OnceLock<(PathBuf, io::Error)>,
}

/// A moment no earlier than the times of all changes before the call, and earlier than those of all behind it; where the
/// source's file system counts in seconds, those of the same second are taken for earlier ones.
fn begin() -> i64 {
    let now_ms = wall_ms();
    after(TICK).recv().ok();
    now_ms
}

/// What was found, and whether the pass came to its end.
pub(super) fn run(plan: &Plan<'_>) -> anyhow::Result<(Report, anyhow::Result<()>)> {
    let began_ms = begin();
    let (bytes, inodes) = measure(plan.source)?;
    check_room(plan, bytes)?;
    let pass = Pass::new(plan, Progress::new(bytes, inodes));
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
            pass.sweep(began_ms)?;
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

pub(super) fn exists(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn same_kind(one: &Metadata, other: &Metadata) -> bool {
    one.mode() & libc::S_IFMT == other.mode() & libc::S_IFMT
}

/// Never what is mounted in it: that isn't the copy's.
pub(super) fn remove(path: &Path, there: &Metadata) -> io::Result<()> {
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

impl<'a> Pass<'a> {
    fn new(plan: &'a Plan<'a>, progress: Progress) -> Self {
        Self {
            plan,
            report: Report::default(),
            progress,
            ended: OnceLock::new(),
        }
    }
}

impl Pass<'_> {
    /// The mount refuses: nothing else would succeed either.
    pub(super) fn end(&self, path: &Path, error: impl Into<io::Error>) {
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
                    > began_ms
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

pub(super) fn wall_ms() -> i64 {
    i64::try_from(Clock::read().now_unix_ms).unwrap_or(i64::MAX)
}

/// Closed to everybody else until its attributes are set.
fn make_directory(to: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever stops the PBX and calls the last pass at once isn't told that somebody still writes.
    #[test]
    fn what_changes_after_the_beginning_is_told_and_nothing_from_before() {
        let source = tempfile::tempdir().unwrap();
        let plan = Plan {
            source: source.path(),
            into: source.path(),
            last: true,
            thorough: false,
        };
        for round in 0..20 {
            fs::write(source.path().join("file"), format!("{round}")).unwrap();
            let began_ms = begin();
            let before = Pass::new(&plan, Progress::new(0, 0));
            before.sweep(began_ms).unwrap();
            assert!(before.report.is_whole(), "round {round}: {}", before.report.found(None));
            fs::write(source.path().join("file"), "later").unwrap();
            let after = Pass::new(&plan, Progress::new(0, 0));
            after.sweep(began_ms).unwrap();
            assert!(!after.report.is_whole(), "round {round}");
        }
    }
}
