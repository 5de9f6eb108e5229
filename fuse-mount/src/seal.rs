//! Seals recordings when their last writer has closed them: reads the whole file, and has its hash kept with it.
//!
//! Begins at RELEASE and not at FLUSH: that comes for each copy of a descriptor, also where a program forks. Nobody waits
//! for it, since the kernel waits for no RELEASE. One thread goes round all files under way a piece at a time, so that
//! a long one doesn't hold up the others.

use crate::backend::Backend;
use crate::opens::Opens;
use holdfast_replicator::api::{Failure, Request, Wait};
use holdfast_storage::class::Close;
use holdfast_storage::op::{Op, Reply};
use holdfast_storage::record::Inode;
use holdfast_storage::types::{Ino, Time};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use tracing::{debug, warn};

/// Read and hashed in one go.
const PIECE: usize = 1 << 20;

/// More files at once stay without a seal: each one closed and not yet hashed is a small amount of memory.
const JOBS_MAX: usize = 16 << 10;

/// A file under way. It begins anew when it has changed meanwhile.
#[derive(Default)]
struct Job {
    ino: Ino,
    size: u64,
    ctime: Time,
    hasher: Box<blake3::Hasher>,
    read: u64,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Those of the jobs: a file that is opened and closed again and again is read once.
    inodes: HashSet<Ino>,
    ended: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn push(&self, job: Job) {
        let mut state = self.state();
        if state.ended || state.inodes.contains(&job.ino) {
            return;
        }
        if state.jobs.len() >= JOBS_MAX {
            warn!(ino = %job.ino, "too many files are being closed: this one stays without a seal");
            return;
        }
        state.inodes.insert(job.ino);
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
    }

    /// None: the mount has ended.
    fn pop(&self) -> Option<Job> {
        let state = self.state();
        let mut state = self
            .changed
            .wait_while(state, |state| state.jobs.is_empty() && !state.ended)
            .expect("no panic under the lock");
        let job = state.jobs.pop_front()?;
        state.inodes.remove(&job.ino);
        Some(job)
    }
}

/// The thread ends when this is dropped; what isn't sealed by then stays without.
pub(crate) struct Seals(Arc<Queue>);

impl Seals {
    pub(crate) fn begin<B: Backend>(backend: Arc<B>, opens: Arc<Opens>, deadline: Duration) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let sealer = Sealer {
            backend,
            opens,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            queue: Arc::clone(&queue),
        };
        thread::Builder::new()
            .name("fuse-seal".into())
            .spawn(move || Arc::new(sealer).run())?;
        Ok(Self(queue))
    }

    pub(crate) fn seal(&self, ino: Ino) {
        self.0.push(Job { ino, ..Job::default() });
    }
}

impl Drop for Seals {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        state.jobs.clear();
        state.inodes.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}

struct Sealer<B> {
    backend: Arc<B>,
    opens: Arc<Opens>,
    deadline_ms: u64,
    queue: Arc<Queue>,
}

impl<B: Backend> Sealer<B> {
    fn run(self: Arc<Self>) {
        while let Some(job) = self.queue.pop() {
            let ino = job.ino;
            if let Err(failure) = self.step(job) {
                debug!(%ino, %failure, "not sealed");
            }
        }
    }

    /// Reads one piece more, or has the hash of all kept. Ends for a file that has a writer again: its last close begins
    /// anew.
    fn step(self: &Arc<Self>, mut job: Job) -> Result<(), Failure> {
        let inode = self.backend.getattr(job.ino)?;
        if !is_to_be_sealed(&inode) || self.opens.writers_of(job.ino) > 0 {
            return Ok(());
        }
        // No two changes have the same ctime, and nobody can set it.
        if (job.size, job.ctime) != (inode.size, inode.ctime) {
            job = Job {
                ino: job.ino,
                size: inode.size,
                ctime: inode.ctime,
                ..Job::default()
            };
        }
        let left = job.size - job.read;
        if left > 0 {
            // What isn't there reads as zeros, so that no piece is short but of a file that was cut meanwhile.
            let data = self.backend.read(job.ino, job.read, left.min(PIECE as u64) as usize)?;
            job.hasher.update(&data);
            job.read += data.len() as u64;
        }
        if job.read < job.size {
            self.queue.push(job);
        } else {
            self.keep(job);
        }
        Ok(())
    }

    fn keep(self: &Arc<Self>, job: Job) {
        let op = Op::Seal {
            ino: job.ino,
            size: job.size,
            ctime: job.ctime,
            hash: *job.hasher.finalize().as_bytes(),
        };
        let queue = Arc::clone(&self.queue);
        let done = move |outcome: Result<Reply, Failure>| match outcome {
            // A chmod or a rename came between.
            Ok(Reply::Sealed(false)) => queue.push(job),
            Ok(_) => {}
            Err(failure) => debug!(ino = %job.ino, %failure, "not sealed"),
        };
        self.backend.submit(Request {
            op,
            wait: Wait::Sequenced,
            deadline_ms: self.backend.now_ms().saturating_add(self.deadline_ms),
            done: Box::new(done),
        });
    }
}

/// A file of a class that seals, which has a name and no seal.
pub(crate) fn is_to_be_sealed(inode: &Inode) -> bool {
    inode.class.profile().close == Close::Sealed && inode.is_file() && inode.seal.is_none() && inode.nlink > 0
}
