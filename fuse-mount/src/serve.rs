//! The kernel's requests: each is translated, handed on and answered. Nothing else happens here.

use crate::attr::{self, GENERATION, TTL, asked_ttl};
use crate::backend::Backend;
use crate::class;
use crate::directory;
use crate::errno;
use crate::opening::{Handle, Opening, Way};
use crate::request::{Desk, Refuse, inode, written};
use crate::translate::{
    bytes, caller, create, create_of_class, fallocate_how, ino, rename_how, seek, set_xattr_how, sized,
};
use crate::xattr;
use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use holdfast_replicator::api::{Failure, Wait};
use holdfast_storage::op::{Op, Refusal, SetAttr};
use holdfast_storage::types::{BLOCK, Ino, MAX_NAME, MAX_WRITE};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tracing::warn;

/// Requests of its own (read-ahead, asynchronous direct I/O, write-back of mappings) that the kernel has under way.
const MAX_BACKGROUND: u16 = 64;

/// Entries read at a time; a buffer of the kernel holds some hundred, with attributes a quarter of that.
const PAGE: usize = 128;
const PAGE_PLUS: usize = 32;

/// What makes the kernel keep what it knows, and ask in parallel.
const WANTED: &[InitFlags] = &[
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Set-id bits are ours to clear; without it the kernel asks for an attribute before every single write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // The planner keeps ACLs and modes in step; the kernel checks both.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    // Shared mappings of files that are open for direct I/O, too: SQLite's -shm fails without.
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

pub(crate) struct Active<B> {
    desk: Arc<Desk<B>>,
    opening: Opening,
}

impl<B: Backend> Active<B> {
    pub(crate) fn new(desk: Arc<Desk<B>>) -> Self {
        Self {
            desk,
            opening: Opening::here(),
        }
    }

    fn backend(&self) -> &B {
        &self.desk.backend
    }
}

/// Counted before the kernel knows of it, for its closing may overtake the answer.
fn handle<B: Backend>(desk: &Desk<B>, ino: Ino, flags: i32, way: Way) -> Handle {
    desk.opens.opened(ino, flags & libc::O_ACCMODE != libc::O_RDONLY, way)
}

impl<B: Backend> Filesystem for Active<B> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(*flag).is_err() {
                warn!(?flag, "this kernel lacks a FUSE feature: Linux 6.8 or newer is wanted");
            }
        }
        // Both are in the range that fuser takes.
        let _ = config.set_max_write(MAX_WRITE as u32);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes();
        let found = if name.len() > MAX_NAME {
            Err(Refusal::NameTooLong.into())
        } else {
            match self.backend().lookup(ino(parent), name) {
                Ok(found) => Ok(Some(found)),
                Err(Failure::Refused(Refusal::NotFound)) => Ok(None),
                Err(failure) => Err(failure),
            }
        };
        let desk = Arc::clone(&self.desk);
        self.desk.answer(reply, found, move |found, reply| match found {
            Some(found) => desk.entry(&found, reply, |attr, reply| {
                reply.entry_with_ttls(&asked_ttl(attr), &TTL, attr, GENERATION);
            }),
            None => reply.entry(&TTL, &attr::absent(), GENERATION),
        });
    }

    fn forget(&self, _req: &Request, number: INodeNo, _nlookup: u64) {
        self.desk.forget(ino(number));
    }

    fn getattr(&self, _req: &Request, number: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.backend().getattr(ino(number));
        if found.as_ref().is_ok_and(|inode| inode.nlink == 0) {
            // The answer to the removal may have been lost.
            self.desk.orphans.add(ino(number));
        }
        let found = found.and_then(|inode| attr::of(ino(number), &inode));
        self.desk
            .answer(reply, found, |attr, reply| reply.attr(&asked_ttl(&attr), &attr));
    }

    fn setattr(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // fuser 0.18 doesn't hand on FATTR_KILL_SUIDGID, which says whether the caller lacks CAP_FSETID: taken from
        // the user. A chown clears set-id bits whoever asks.
        let nothing_set = mode.is_none() && size.is_none() && atime.is_none() && mtime.is_none();
        // With nothing to set, that is all that the request can be about: a chown that keeps user and group.
        let clear_setid = uid.is_some() || gid.is_some() || nothing_set || (size.is_some() && req.uid() != 0);
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(attr::set_time),
            mtime: mtime.map(attr::set_time),
            clear_setid,
        };
        self.desk
            .change(reply, Op::SetAttr { ino: ino(number), set }, |_, outcome, reply| {
                let (ino, inode) = inode(outcome);
                match attr::of(ino, &inode) {
                    Ok(attr) => reply.attr(&TTL, &attr),
                    Err(failure) => reply.refuse(failure),
                }
            });
    }

    fn readlink(&self, _req: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.backend().getattr(ino(number)).and_then(|inode| {
            if inode.is_symlink() {
                Ok(inode.target)
            } else {
                Err(Refusal::Invalid.into())
            }
        });
        self.desk.answer(reply, target, |target, reply| reply.data(&target));
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let kind = if mode & libc::S_IFMT == 0 {
            libc::S_IFREG
        } else {
            mode & libc::S_IFMT
        };
        self.desk.change_entry(
            reply,
            create(
                caller(req, umask),
                parent,
                name,
                kind | mode & 0o7777,
                rdev,
                Bytes::new(),
            ),
        );
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let class = match class::of_new(self.backend(), &self.desk.options.classes, ino(parent), name.as_bytes()) {
            Ok(class) => class,
            Err(failure) => return reply.refuse(failure),
        };
        self.desk.change_entry(
            reply,
            create_of_class(
                class,
                caller(req, umask),
                parent,
                name,
                libc::S_IFDIR | mode & 0o7777,
                0,
                Bytes::new(),
            ),
        );
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.desk.change_only(
            reply,
            Op::Unlink {
                parent: ino(parent),
                name: bytes(name),
                caller: caller(req, 0),
            },
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.desk.change_only(
            reply,
            Op::Rmdir {
                parent: ino(parent),
                name: bytes(name),
                caller: caller(req, 0),
            },
        );
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = bytes(target.as_os_str());
        self.desk.change_entry(
            reply,
            create(caller(req, 0), parent, name, libc::S_IFLNK | 0o777, 0, target),
        );
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let how = match rename_how(flags) {
            Ok(how) => how,
            Err(failure) => return reply.refuse(failure),
        };
        let (from_name, to_name) = (bytes(name), bytes(newname));
        let op = Op::Rename {
            from: ino(parent),
            from_name,
            to: ino(newparent),
            to_name,
            how,
            caller: caller(req, 0),
        };
        self.desk.change_only(reply, op);
    }

    fn link(&self, _req: &Request, number: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.desk.change_entry(
            reply,
            Op::Link {
                ino: ino(number),
                parent: ino(newparent),
                name: bytes(newname),
            },
        );
    }

    fn open(&self, _req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (desk, number) = (Arc::clone(&self.desk), ino(number));
        let class = || desk.backend.getattr(number).ok().map(|inode| inode.class);
        let way = self.opening.way(flags.0, class);
        // O_TRUNC comes as a setattr of its own.
        self.desk.answer(reply, Ok(()), move |(), reply| {
            let handle = handle(&desk, number, flags.0, way);
            reply.opened(handle.number(), handle.flags());
        });
    }

    fn release(
        &self,
        _req: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Nobody waits for it.
        reply.ok();
        self.desk.released(ino(number), Handle::of(fh));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let op = create(
            caller(req, umask),
            parent,
            name,
            libc::S_IFREG | mode & 0o7777,
            0,
            Bytes::new(),
        );
        let opening = self.opening;
        self.desk.change(reply, op, move |desk, outcome, reply| {
            let found = inode(outcome);
            desk.entry(&found, reply, |attr, reply| {
                let way = opening.way(flags, || Some(found.1.class));
                let handle = handle(desk, found.0, flags, way);
                reply.created(&TTL, attr, GENERATION, handle.number(), handle.flags());
            });
        });
    }

    fn read(
        &self,
        _req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (ino, len) = (ino(number), size as usize);
        let data = self.backend().read(ino, offset, len);
        if !matches!(data, Err(Failure::Rotten)) {
            return self.desk.answer(reply, data, |data, reply| reply.data(&data));
        }
        let desk = Arc::clone(&self.desk);
        let again = move || {
            let data = desk.backend.read(ino, offset, len);
            desk.answer(reply, data, |data, reply| reply.data(&data));
        };
        self.backend().mend(ino, offset, len, Box::new(again));
    }

    fn write(
        &self,
        _req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let clear_setid = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let op = Op::Write {
            ino: ino(number),
            offset,
            data: Bytes::copy_from_slice(data),
            clear_setid,
        };
        // O_SYNC contains O_DSYNC; the log being one, what is committed has all names before it.
        let wait = if flags.0 & libc::O_DSYNC != 0 {
            Wait::Committed
        } else {
            Wait::Sequenced
        };
        let give = |_: &Desk<B>, outcome, reply: ReplyWrite| reply.written(written(&outcome));
        if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.desk.write_back(wait, reply, op, ino(number), give);
        } else {
            self.desk.change_when(wait, reply, op, give);
        }
    }

    /// Every write has had its own answer; what the kernel wrote back from mappings it knows itself, and says at close.
    fn flush(&self, _req: &Request, number: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        if Handle::of(fh).is_writer {
            self.desk.flush(reply, ino(number));
        } else {
            self.desk.answer(reply, Ok(()), |(), reply| reply.ok());
        }
    }

    fn fsync(&self, _req: &Request, number: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.desk.sync(reply, ino(number));
    }

    fn fsyncdir(&self, _req: &Request, number: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.desk.sync(reply, ino(number));
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.desk.listings.open();
        self.desk.answer(reply, Ok(()), move |(), reply| {
            reply.opened(handle, FopenFlags::empty());
        });
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.desk.listings.close(fh);
        reply.ok();
    }

    fn readdir(&self, _req: &Request, dir: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let end = self.desk.listing_end(ino(dir), fh, offset);
        let listed = end.and_then(|end| {
            directory::list(self.backend(), ino(dir), (offset, end), PAGE, |entry| {
                Ok(reply.add(
                    INodeNo(entry.ino.0),
                    entry.offset,
                    entry.kind,
                    OsStr::from_bytes(&entry.name),
                ))
            })
        });
        self.desk.answer(reply, listed, |(), reply| reply.ok());
    }

    fn readdirplus(&self, _req: &Request, dir: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let end = self.desk.listing_end(ino(dir), fh, offset);
        let listed = end.and_then(|end| {
            directory::list(self.backend(), ino(dir), (offset, end), PAGE_PLUS, |entry| {
                let inode = match self.backend().getattr(entry.ino) {
                    Ok(inode) => inode,
                    // Removed since it was listed.
                    Err(Failure::Refused(Refusal::NotFound)) => return Ok(false),
                    Err(failure) => return Err(failure),
                };
                let attr = attr::of(entry.ino, &inode)?;
                let name = OsStr::from_bytes(&entry.name);
                Ok(reply.add(attr.ino, entry.offset, name, &TTL, &attr, GENERATION))
            })
        });
        self.desk.answer(reply, listed, |(), reply| reply.ok());
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.desk.answer(reply, self.backend().space(), |(free, total), reply| {
            let (blocks, free) = (total / BLOCK, free / BLOCK);
            // Inodes take what space there is: as many files as blocks.
            reply.statfs(
                blocks,
                free,
                free,
                blocks,
                free,
                BLOCK as u32,
                MAX_NAME as u32,
                BLOCK as u32,
            );
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if let Some(own) = class::Attribute::named(name.as_bytes()) {
            if flags & libc::XATTR_CREATE != 0 {
                // Each file has one.
                return reply.refuse(Refusal::Exists.into());
            }
            return match own.set(req.uid(), ino(number), Some(value)) {
                Ok(op) => self.desk.change_only(reply, op),
                Err(failure) => reply.refuse(failure),
            };
        }
        match xattr::supported(name.as_bytes()).and_then(|()| set_xattr_how(flags)) {
            Ok(how) => {
                let (name, value) = (bytes(name), Bytes::copy_from_slice(value));
                self.desk.change_only(
                    reply,
                    Op::SetXattr {
                        ino: ino(number),
                        name,
                        value,
                        how,
                        caller: caller(req, 0),
                    },
                );
            }
            Err(failure) => reply.refuse(failure),
        }
    }

    fn getxattr(&self, _req: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes();
        if let Some(own) = class::Attribute::named(name) {
            let value = self.backend().getattr(ino(number)).and_then(|inode| own.value(&inode));
            return self
                .desk
                .answer(reply, value, move |value, reply| sized(reply, value.as_bytes(), size));
        }
        let value = xattr::supported(name)
            .and_then(|()| self.backend().xattrs(ino(number)))
            .and_then(|all| xattr::get(&all, name));
        self.desk
            .answer(reply, value, move |value, reply| sized(reply, &value, size));
    }

    fn listxattr(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let privileged = req.uid() == 0;
        let names = self
            .backend()
            .xattrs(ino(number))
            .map(|all| xattr::list(&all, privileged));
        self.desk
            .answer(reply, names, move |names, reply| sized(reply, &names, size));
    }

    fn removexattr(&self, req: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Some(own) = class::Attribute::named(name.as_bytes()) {
            return match own.set(req.uid(), ino(number), None) {
                Ok(op) => self.desk.change_only(reply, op),
                Err(failure) => reply.refuse(failure),
            };
        }
        match xattr::supported(name.as_bytes()) {
            Ok(()) => self.desk.change_only(
                reply,
                Op::RemoveXattr {
                    ino: ino(number),
                    name: bytes(name),
                },
            ),
            Err(failure) => reply.refuse(failure),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        match fallocate_how(mode) {
            Ok(how) => self.desk.change_only(
                reply,
                Op::Fallocate {
                    ino: ino(number),
                    offset,
                    len: length,
                    how,
                },
            ),
            Err(failure) => reply.refuse(failure),
        }
    }

    fn lseek(&self, _req: &Request, number: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = seek(self.backend(), ino(number), offset, whence);
        self.desk.answer(reply, found, |found, reply| {
            match found.and_then(|at| i64::try_from(at).ok()) {
                Some(at) => reply.offset(at),
                None => reply.error(errno::NOTHING_FURTHER),
            }
        });
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel reads and writes instead.
        reply.error(errno::LEFT_TO_KERNEL);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(errno::NO_IOCTL);
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(errno::LEFT_TO_KERNEL);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Files are always ready; the kernel says so itself from now on.
        reply.error(errno::LEFT_TO_KERNEL);
    }
}
