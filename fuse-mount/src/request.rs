//! The way of a request through the mount: a deadline, the backend, the answer.

use crate::attr;
use crate::backend::Backend;
use crate::doubt::Doubt;
use crate::errno;
use crate::listings::Listings;
use crate::mount::Options;
use crate::opening::Handle;
use crate::opens::Opens;
use crate::orphans::Orphans;
use crate::seal::{Seals, is_to_be_sealed};
use fuser::{
    Errno, FileAttr, FileHandle, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use holdfast_replicator::api::{Failure, Request, Scope, Wait};
use holdfast_storage::class::Close;
use holdfast_storage::op::{Op, Reply};
use holdfast_storage::record::Inode;
use holdfast_storage::types::Ino;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tracing::debug;

/// All replies of fuser can carry an error.
pub(crate) trait Refuse: Send + 'static {
    fn errno(self, errno: Errno);

    fn refuse(self, failure: Failure)
    where
        Self: Sized,
    {
        self.errno(errno::of(failure));
    }
}

macro_rules! refuse {
    ($($reply:ty),* $(,)?) => {$(
        impl Refuse for $reply {
            fn errno(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr,
);

/// What the requests of one mount share, and what their answers need after the request's own thread has gone on.
pub(crate) struct Desk<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) listings: Listings,
    pub(crate) opens: Arc<Opens>,
    pub(crate) orphans: Arc<Orphans>,
    pub(crate) options: Options,
    pub(crate) doubts: Sender<Doubt>,
    /// Orphans that the kernel has let go of.
    pub(crate) forgotten: Sender<Ino>,
    pub(crate) seals: Seals,
}

impl<B: Backend> Desk<B> {
    pub(crate) fn deadline_ms(&self) -> u64 {
        let wait_ms = u64::try_from(self.options.deadline.as_millis()).unwrap_or(u64::MAX);
        self.backend.now_ms().saturating_add(wait_ms)
    }

    /// Hands `found` and the reply to `give` when it may be answered. That a thing isn't there is an answer, too.
    pub(crate) fn answer<T, R>(&self, reply: R, found: Result<T, Failure>, give: impl FnOnce(T, R) + Send + 'static)
    where
        T: Send + 'static,
        R: Refuse,
    {
        let done = move |leased: Result<(), Failure>| match leased.and(found) {
            Ok(found) => give(found, reply),
            Err(failure) => reply.refuse(failure),
        };
        self.backend.answer(self.deadline_ms(), Box::new(done));
    }

    /// A change that waits for what its class wants.
    pub(crate) fn change<R: Refuse>(
        self: &Arc<Self>,
        reply: R,
        op: Op,
        give: impl FnOnce(&Self, Reply, R) + Send + 'static,
    ) {
        self.change_when(Wait::Sequenced, reply, op, give);
    }

    pub(crate) fn change_when<R: Refuse>(
        self: &Arc<Self>,
        wait: Wait,
        reply: R,
        op: Op,
        give: impl FnOnce(&Self, Reply, R) + Send + 'static,
    ) {
        self.change_or(wait, reply, op, give, |desk, failure, doubt| {
            if failure == Failure::Deadline {
                desk.doubt(doubt);
            }
        });
    }

    /// As `change_when`, for pages of a mapping: no program waits for the answer. If it isn't known what is stored, the kernel
    /// is told to look.
    pub(crate) fn write_back<R: Refuse>(
        self: &Arc<Self>,
        wait: Wait,
        reply: R,
        op: Op,
        ino: Ino,
        give: impl FnOnce(&Self, Reply, R) + Send + 'static,
    ) {
        self.change_or(wait, reply, op, give, move |desk, failure, doubt| {
            desk.opens.lost(ino);
            // What was refused is known: the pages stay as they are in memory, for a mapping that processes share must not jump back.
            if !matches!(failure, Failure::Refused(_)) {
                desk.doubt(doubt);
            }
        });
    }

    fn change_or<R: Refuse>(
        self: &Arc<Self>,
        wait: Wait,
        reply: R,
        op: Op,
        give: impl FnOnce(&Self, Reply, R) + Send + 'static,
        failed: impl FnOnce(&Self, Failure, Doubt) + Send + 'static,
    ) {
        let desk = Arc::clone(self);
        let doubt = Doubt::about(&op);
        let may_orphan = matches!(op, Op::Unlink { .. } | Op::Rmdir { .. } | Op::Rename { .. });
        let done = move |outcome: Result<Reply, Failure>| match outcome {
            Ok(outcome) => {
                if let Reply::Done { orphaned: Some(ino) } = outcome {
                    desk.orphans.add(ino);
                }
                give(&desk, outcome, reply);
            }
            Err(failure) => {
                if may_orphan && !matches!(failure, Failure::Refused(_)) {
                    desk.orphans.doubt();
                }
                // Before the answer: an fsync that follows it must know.
                failed(&desk, failure, doubt);
                reply.refuse(failure);
            }
        };
        self.backend.submit(Request {
            op,
            wait,
            deadline_ms: self.deadline_ms(),
            done: Box::new(done),
        });
    }

    fn doubt(&self, doubt: Doubt) {
        // Fails only when the mount has ended.
        let _ = self.doubts.send(doubt);
    }

    /// A change that answers nothing but that it is done.
    pub(crate) fn change_only(self: &Arc<Self>, reply: ReplyEmpty, op: Op) {
        self.change(reply, op, |_, _, reply| reply.ok());
    }

    /// A change whose answer is the inode under a name.
    pub(crate) fn change_entry(self: &Arc<Self>, reply: ReplyEntry, op: Op) {
        self.change(reply, op, |desk, outcome, reply| {
            desk.entry(&inode(outcome), reply, |attr, reply| {
                reply.entry(&attr::TTL, attr, attr::GENERATION);
            });
        });
    }

    pub(crate) fn entry<R: Refuse>(&self, (ino, inode): &(Ino, Inode), reply: R, give: impl FnOnce(&FileAttr, R)) {
        match attr::of(*ino, inode) {
            Ok(attr) => give(&attr, reply),
            Err(failure) => reply.refuse(failure),
        }
    }

    /// Where this reading of a directory stops.
    pub(crate) fn listing_end(&self, dir: Ino, handle: FileHandle, offset: u64) -> Result<u64, Failure> {
        if offset == 0 {
            self.listings.begin(handle, self.backend.getattr(dir)?.next_cookie);
        }
        Ok(self.listings.end(handle))
    }

    pub(crate) fn sync(&self, reply: ReplyEmpty, ino: Ino) {
        if self.opens.has_lost(ino) {
            return reply.errno(Errno::EIO);
        }
        let done = move |synced: Result<(), Failure>| match synced {
            Ok(()) => reply.ok(),
            Err(failure) => reply.refuse(failure),
        };
        self.backend.sync(Scope::File(ino), self.deadline_ms(), Box::new(done));
    }

    /// A descriptor of this file is being closed that may write.
    pub(crate) fn flush(&self, reply: ReplyEmpty, ino: Ino) {
        let inode = match self.backend.getattr(ino) {
            Ok(inode) => inode,
            Err(failure) => return reply.refuse(failure),
        };
        match inode.class.profile().close {
            Close::Nothing => self.answer(reply, Ok(()), |(), reply| reply.ok()),
            Close::Durable | Close::Sealed => self.sync(reply, ino),
        }
    }

    /// Nothing refers any more to an open file, nor to a mapping of it.
    pub(crate) fn released(&self, ino: Ino, handle: Handle) {
        if self.opens.closed(ino, handle) > 0 || !handle.is_writer {
            return;
        }
        if self.backend.getattr(ino).is_ok_and(|inode| is_to_be_sealed(&inode)) {
            self.seals.seal(ino);
        }
    }

    /// The kernel says that it has forgotten an inode.
    pub(crate) fn forget(&self, ino: Ino) {
        if self.orphans.has(ino) {
            // Fails only when the mount has ended.
            let _ = self.forgotten.send(ino);
        }
    }

    /// The log carries it out after the removal of the last name, or neither.
    pub(crate) fn reap(&self, ino: Ino) {
        let orphans = Arc::clone(&self.orphans);
        let done = move |outcome: Result<Reply, Failure>| match outcome {
            // Refused: it is gone already.
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(failure) => {
                debug!(%ino, %failure, "an inode without names is still there");
                orphans.doubt();
            }
        };
        let deadline_ms = self.deadline_ms();
        self.backend.submit(Request {
            op: Op::Reap { ino },
            wait: Wait::Sequenced,
            deadline_ms,
            done: Box::new(done),
        });
    }
}

/// The planner answers create, link and setattr with the inode.
pub(crate) fn inode(outcome: Reply) -> (Ino, Inode) {
    match outcome {
        Reply::Inode(ino, inode) => (ino, inode),
        other => unreachable!("an inode was to be answered, not {other:?}"),
    }
}

/// The planner answers a write with its length.
pub(crate) fn written(outcome: &Reply) -> u32 {
    match outcome {
        Reply::Written(len) => *len,
        other => unreachable!("the length of a write was to be answered, not {other:?}"),
    }
}
