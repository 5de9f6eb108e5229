//! The replicator's handle as the mount's backend.

use crate::backend::Backend;
use bytes::Bytes;
use holdfast_replicator::api::{Done, Failure, Request, Scope};
use holdfast_replicator::{Handle, Rotten};
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::record::{Child, Inode, Xattrs};
use holdfast_storage::store::ReadError;
use holdfast_storage::types::Ino;
use rustix::time::{ClockId, clock_gettime};
use tracing::error;

fn read<T>(replica: &Handle, result: Result<T, ReadError>) -> Result<T, Failure> {
    result.map_err(|error| match error {
        ReadError::Refused(refusal) => Failure::Refused(refusal),
        // Said by whoever mends it, once.
        ReadError::Store(StoreError::Rot { .. }) => Failure::Rotten,
        ReadError::Store(error) => unreadable(replica, &error),
    })
}

/// The application hears EIO; what is wrong is for the operator.
fn unreadable(replica: &Handle, error: &StoreError) -> Failure {
    error!(error = chain(error), "a read failed");
    replica.read_failed(error);
    Failure::Unreadable
}

impl Backend for Handle {
    fn submit(&self, request: Request) {
        Handle::submit(self, request);
    }

    fn sync(&self, scope: Scope, deadline_ms: u64, done: Done<()>) {
        Handle::sync(self, scope, deadline_ms, done);
    }

    fn answer(&self, deadline_ms: u64, done: Done<()>) {
        Handle::answer(self, deadline_ms, done);
    }

    fn getattr(&self, ino: Ino) -> Result<Inode, Failure> {
        read(self, self.store().inode(ino))
    }

    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<(Ino, Inode), Failure> {
        read(self, self.store().lookup(parent, name))
    }

    fn readdir(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<(u64, Child)>, Failure> {
        read(self, self.store().readdir(dir, after, limit))
    }

    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Bytes, Failure> {
        read(self, self.store().read(ino, offset, len))
    }

    fn mend(&self, ino: Ino, offset: u64, len: usize, then: Box<dyn FnOnce() + Send>) {
        let rotten = Rotten { ino, offset, len, then };
        if let Err(rotten) = self.mend_read(rotten) {
            (rotten.then)();
        }
    }

    fn xattrs(&self, ino: Ino) -> Result<Xattrs, Failure> {
        read(self, self.store().xattrs(ino))
    }

    fn space(&self) -> Result<(u64, u64), Failure> {
        let space = self.store().space().map_err(|error| unreadable(self, &error))?;
        Ok((self.view().latest().room.min(space.total), space.total))
    }

    fn seek_data(&self, ino: Ino, offset: u64) -> Result<Option<u64>, Failure> {
        read(self, self.store().seek_data(ino, offset))
    }

    fn seek_hole(&self, ino: Ino, offset: u64) -> Result<u64, Failure> {
        read(self, self.store().seek_hole(ino, offset))
    }

    fn orphans(&self) -> Result<Vec<Ino>, Failure> {
        self.store().orphans().map_err(|error| unreadable(self, &error))
    }

    fn now_ms(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }
}
