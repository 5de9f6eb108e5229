//! Writes what a store shows as directories and files. What can't be read or set is told and gone past; an error of
//! the place where it is written to ends it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use holdfast_storage::RealStore;
use holdfast_storage::error::chain;
use holdfast_storage::record::{Child, Inode, Xattrs};
use holdfast_storage::store::ReadError;
use holdfast_storage::types::{BLOCK, Ino, Time};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use crate::output::{complain, progress};

const PIECE: u64 = 1 << 20;
/// Entries of a directory that are looked up at once.
const PAGE: usize = 1024;

#[derive(Default)]
pub(super) struct Done {
    pub(super) directories: u64,
    /// Files, links, pipes, devices; each once, however many names it has.
    pub(super) others: u64,
    pub(super) bytes: u64,
    /// Things that aren't as they were in the store.
    pub(super) problems: u64,
}

/// Blocks of a file that aren't what was stored, by their first byte.
#[derive(Default)]
struct Bad {
    damaged: Vec<u64>,
    unreadable: Vec<u64>,
}

pub(super) struct Tree<'a> {
    store: &'a RealStore,
    out: &'a Path,
    /// Files that entries which aren't exported may have changed.
    unsettled: HashSet<Ino>,
    /// Where an inode with several names was written.
    first_names: HashMap<Ino, PathBuf>,
    done: Done,
}

impl<'a> Tree<'a> {
    pub(super) fn new(store: &'a RealStore, out: &'a Path, unsettled: HashSet<Ino>) -> Self {
        Self {
            store,
            out,
            unsettled,
            first_names: HashMap::new(),
            done: Done::default(),
        }
    }

    pub(super) fn export(mut self) -> anyhow::Result<Done> {
        let root = self.store.inode(Ino::ROOT).context("reading the root directory")?;
        self.directory(Ino::ROOT, &root, self.out)?;
        progress("");
        Ok(self.done)
    }

    fn problem(&mut self, path: &Path, what: &str) {
        self.done.problems += 1;
        let path = path.strip_prefix(self.out).unwrap_or(path);
        complain(&format!("/{}: {what}", path.display()));
    }

    /// What is in a directory that exists, then its own attributes: each new entry would change its times.
    fn directory(&mut self, ino: Ino, inode: &Inode, path: &Path) -> anyhow::Result<()> {
        let mut after = 0;
        loop {
            let page = match self.store.readdir(ino, after, PAGE) {
                Ok(page) => page,
                Err(error) => {
                    self.problem(path, &format!("its entries can't be read: {}", chain(&error)));
                    break;
                }
            };
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (_, child) in &page {
                self.entry(child, &path.join(OsStr::from_bytes(&child.name)))?;
            }
        }
        self.done.directories += 1;
        self.attributes(ino, inode, path);
        Ok(())
    }

    fn entry(&mut self, child: &Child, path: &Path) -> anyhow::Result<()> {
        let inode = match self.store.inode(child.ino) {
            Ok(inode) => inode,
            Err(error) => {
                self.problem(path, &format!("inode {} can't be read: {}", child.ino, chain(&error)));
                return Ok(());
            }
        };
        if inode.is_dir() {
            let mut how = fs::DirBuilder::new();
            if let Err(error) = how.mode(0o700).create(path) {
                return self.refused(path, "the directory can't be made, so all in it is left out", error);
            }
            return self.directory(child.ino, &inode, path);
        }
        if let Some(first) = self.first_names.get(&child.ino) {
            let Err(error) = fs::hard_link(first, path) else {
                return Ok(());
            };
            let first = first.strip_prefix(self.out).unwrap_or(first).display();
            let what = format!("it can't be linked to /{first}, so it is written once more");
            self.refused(path, &what, error)?;
        }
        if let Err(error) = self.make(child.ino, &inode, path)? {
            return self.refused(path, "it can't be made", error);
        }
        if inode.nlink > 1 {
            self.first_names.entry(child.ino).or_insert_with(|| path.to_owned());
        }
        self.attributes(child.ino, &inode, path);
        self.done.others += 1;
        Ok(())
    }

    /// What isn't a directory. The inner error is that of making it.
    fn make(&mut self, ino: Ino, inode: &Inode, path: &Path) -> anyhow::Result<io::Result<()>> {
        if inode.is_file() {
            let made = File::create_new(path).and_then(|file| file.set_len(inode.size).map(|()| file));
            return match made {
                Ok(file) => self.file(ino, &file, path).map(Ok),
                Err(error) => Ok(Err(error)),
            };
        }
        if inode.is_symlink() {
            return Ok(std::os::unix::fs::symlink(OsStr::from_bytes(&inode.target), path));
        }
        Ok(special(inode, path).map_err(io::Error::from))
    }

    /// The place that is written to doesn't take it. If nothing more can be written there, that is the end; else it is told.
    fn refused(&mut self, path: &Path, what: &str, error: io::Error) -> anyhow::Result<()> {
        const ENDS: [i32; 4] = [libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EIO];
        if error.raw_os_error().is_some_and(|number| ENDS.contains(&number)) {
            return Err(error).with_context(|| format!("writing {}", path.display()));
        }
        self.problem(path, &format!("{what}: {error}"));
        Ok(())
    }

    /// The bytes, with holes where the store has them.
    fn file(&mut self, ino: Ino, file: &File, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("writing {}", path.display());
        let mut bad = Bad::default();
        let mut at = 0;
        loop {
            let (data, hole) = match self.next_data(ino, at) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    self.problem(
                        path,
                        &format!("the rest from byte {at} on can't be read: {}", chain(&error)),
                    );
                    break;
                }
            };
            at = data;
            while at < hole {
                // To the next border, so that blocks stay whole.
                let end = hole.min((at / PIECE + 1) * PIECE);
                self.piece(ino, at, end, file, &mut bad).with_context(failed)?;
                self.done.bytes += end - at;
                at = end;
                progress(&format!("{} MiB, {}", self.done.bytes >> 20, path.display()));
            }
        }
        if !bad.damaged.is_empty() {
            let why = if self.unsettled.contains(&ino) {
                "; they may hold bytes of a log entry that is left out"
            } else {
                ""
            };
            let what = "damaged: ";
            let is = format!("not what their checksum says; written as they are on the disk{why}");
            self.tell_bad(path, what, &bad.damaged, &is);
        }
        if !bad.unreadable.is_empty() {
            let is = "the disk doesn't give them; there are zeros in their place";
            self.tell_bad(path, "unreadable: ", &bad.unreadable, is);
        }
        Ok(())
    }

    fn next_data(&self, ino: Ino, at: u64) -> Result<Option<(u64, u64)>, ReadError> {
        match self.store.seek_data(ino, at)? {
            Some(data) => Ok(Some((data, self.store.seek_hole(ino, data)?))),
            None => Ok(None),
        }
    }

    /// Blocks that don't fit their checksum are written as they are: mostly a few bits are wrong, and they are told. Of those that
    /// can't be read nothing is written. The error is that of the place where it is written to.
    fn piece(&self, ino: Ino, from: u64, to: u64, file: &File, bad: &mut Bad) -> anyhow::Result<()> {
        if let Ok(bytes) = self.store.read(ino, from, (to - from) as usize) {
            return Ok(file.write_all_at(&bytes, from)?);
        }
        let mut at = from;
        while at < to {
            let end = to.min((at / BLOCK + 1) * BLOCK);
            match self.store.read(ino, at, (end - at) as usize) {
                Ok(bytes) => file.write_all_at(&bytes, at)?,
                Err(_) => {
                    let mut bytes = vec![0; (end - at) as usize];
                    if self.store.data.read(ino, &mut bytes, at).is_ok() {
                        file.write_all_at(&bytes, at)?;
                        bad.damaged.push(at);
                    } else {
                        bad.unreadable.push(at);
                    }
                }
            }
            at = end;
        }
        Ok(())
    }

    fn tell_bad(&mut self, path: &Path, what: &str, blocks: &[u64], is: &str) {
        const TOLD: usize = 8;
        let mut places = blocks
            .iter()
            .take(TOLD)
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        if blocks.len() > TOLD {
            places.push_str(", ...");
        }
        let blocks = blocks.len();
        self.problem(
            path,
            &format!("{what}{blocks} of its blocks of {BLOCK} bytes, at {places}: {is}"),
        );
    }

    /// Owner first, since it takes set-id bits and capabilities away; times last.
    fn attributes(&mut self, ino: Ino, inode: &Inode, path: &Path) {
        let owner = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
        if let Err(error) = rustix::fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
            self.problem(
                path,
                &format!("its owner {}:{} can't be set: {error}", inode.uid, inode.gid),
            );
        }
        match self.store.xattrs(ino) {
            Ok(xattrs) => self.xattrs(&xattrs, path),
            Err(error) => self.problem(
                path,
                &format!("its extended attributes can't be read: {}", chain(&error)),
            ),
        }
        if !inode.is_symlink()
            && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(inode.mode & 0o7777))
        {
            self.problem(path, &format!("its mode can't be set: {error}"));
        }
        let times = Timestamps {
            last_access: time(inode.atime),
            last_modification: time(inode.mtime),
        };
        if let Err(error) = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
            self.problem(path, &format!("its times can't be set: {error}"));
        }
    }

    fn xattrs(&mut self, xattrs: &Xattrs, path: &Path) {
        for (name, value) in &xattrs.0 {
            if let Err(error) = rustix::fs::lsetxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                let name = String::from_utf8_lossy(name);
                self.problem(path, &format!("its extended attribute {name} can't be set: {error}"));
            }
        }
    }
}

fn time(time: Time) -> Timespec {
    Timespec {
        tv_sec: time.secs,
        tv_nsec: time.nanos.into(),
    }
}

fn special(inode: &Inode, path: &Path) -> rustix::io::Result<()> {
    // Both the stored number and dev_t have the minor's lower byte first, then the major, then the rest of the minor.
    rustix::fs::mknodat(
        CWD,
        path,
        FileType::from_raw_mode(inode.mode),
        Mode::from_raw_mode(0o600),
        inode.rdev.into(),
    )
}
