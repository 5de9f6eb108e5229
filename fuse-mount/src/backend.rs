//! What the mount asks of the rest of the daemon. `replica` implements it for the replicator; tests, in memory.

use bytes::Bytes;
use holdfast_replicator::api::{Done, Failure, Request, Scope};
use holdfast_storage::record::{Child, Inode, Xattrs};
use holdfast_storage::types::Ino;

/// Changes and waits never block; reads may touch the disk.
pub trait Backend: Send + Sync + 'static {
    /// `request.done` is called from another thread, by the request's deadline.
    fn submit(&self, request: Request);

    /// `done` is called once what `scope` covers is durable on a majority, by the deadline.
    fn sync(&self, scope: Scope, deadline_ms: u64, done: Done<()>);

    /// Calls `done` at once, in this thread, if the lease runs; holds it otherwise until it runs again, or fails it.
    /// Every answer to a read goes through here, after the reading: a node whose lease has run out answers nothing.
    fn answer(&self, deadline_ms: u64, done: Done<()>);

    fn getattr(&self, ino: Ino) -> Result<Inode, Failure>;

    /// Fails with `Refusal::NotFound` if there is no such name.
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<(Ino, Inode), Failure>;

    /// `limit` entries with cookies above `after`, in their order, without `.` and `..`; fewer only at the end.
    fn readdir(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<(u64, Child)>, Failure>;

    /// Fewer than `len` bytes only where the file ends.
    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Bytes, Failure>;

    /// Calls `then` once what made this read answer `Failure::Rotten` was mended, or can't be now; at the latest after a
    /// few seconds. Perhaps at once and in this thread, else in one that may block.
    fn mend(&self, ino: Ino, offset: u64, len: usize, then: Box<dyn FnOnce() + Send>);

    fn xattrs(&self, ino: Ino) -> Result<Xattrs, Failure>;

    /// Bytes that may still be written, and bytes in all.
    fn space(&self) -> Result<(u64, u64), Failure>;

    /// First byte at or after `offset`, which lies inside the file, that isn't in a hole; none if only a hole follows.
    fn seek_data(&self, ino: Ino, offset: u64) -> Result<Option<u64>, Failure>;

    /// First byte at or after `offset`, which lies inside the file, that is in a hole; the file's end counts as one.
    fn seek_hole(&self, ino: Ino, offset: u64) -> Result<u64, Failure>;

    /// Inodes that lost their last name before this mount began; nobody can have them open any more.
    fn orphans(&self) -> Result<Vec<Ino>, Failure>;

    /// CLOCK_BOOTTIME in ms, the clock of all deadlines.
    fn now_ms(&self) -> u64;
}
