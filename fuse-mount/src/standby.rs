//! What a node that isn't active shows in place of the data: one file that says where they are. Every other name says
//! "not active here", and the kernel refuses all writing, so that nothing can be written underneath.

use crate::errno;
use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request,
};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

pub(crate) const NOTICE: &str = "NOT-ACTIVE-HERE";

const NOTICE_INO: INodeNo = INodeNo(2);

/// The notice changes with the cluster.
const TTL: Duration = Duration::ZERO;

pub(crate) struct Standby {
    notice: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Standby {
    pub(crate) fn new(notice: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Self { notice }
    }

    fn text(&self) -> String {
        let mut text = (self.notice)();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, perm, nlink, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0o555, 2, 4096),
            NOTICE_INO => (FileType::RegularFile, 0o444, 1, self.text().len() as u64),
            _ => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Standby {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self
            .attr(NOTICE_INO)
            .filter(|_| parent == INodeNo::ROOT && name == NOTICE)
        {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(errno::NOT_ACTIVE_HERE),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(errno::NO_SUCH_NAME),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Its length is known only when it is read.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let text = self.text();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let to = from.saturating_add(size as usize).min(text.len());
        reply.data(&text.as_bytes()[from..to]);
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = [
            (INodeNo::ROOT, FileType::Directory, "."),
            (INodeNo::ROOT, FileType::Directory, ".."),
            (NOTICE_INO, FileType::RegularFile, NOTICE),
        ];
        for (at, (ino, kind, name)) in (1..).zip(entries) {
            if at > offset && reply.add(ino, at, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(errno::LEFT_TO_KERNEL);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(errno::LEFT_TO_KERNEL);
    }
}
