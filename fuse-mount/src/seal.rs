//! Seals recordings when their last writer has closed them: reads the whole file, and has its hash kept with it.
//!
//! Begins at RELEASE and not at FLUSH: that comes for each copy of a descriptor, also where a program forks. Nobody waits
//! for it, since the kernel waits for no RELEASE. One thread goes round all files under way a piece at a time, so that
//! a long one doesn't hold up the others.

use crate::backend::Backend;
use holdfast_replicator::api::{Failure, Request, Wait};
use holdfast_storage::op::{Op, Reply};
use holdfast_storage::record::Inode;
use holdfast_storage::types::{Ino, Time};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use tracing::{debug, warn};

/// Read and hashed in one go.
const PIECE: usize = 1 << 20;

/// More files at once stay without a seal: each one closed and not yet hashed is a small amount of memory.
const JOBS_MAX: usize = 16 << 10;

/// How often a file is begun anew that changed while it was read, by a chmod or a rename.
const TRIES: u32 = 5;

struct Job {
    ino: Ino,
    size: u64,
    ctime: Time,
    hasher: Box<blake3::Hasher>,
    read: u64,
    tries: u32,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
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
        if state.ended {
            return;
        }
        if state.jobs.len() >= JOBS_MAX {
            warn!(ino = %job.ino, "too many files are being closed: this one stays without a seal");
            return;
        }
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
        state.jobs.pop_front()
    }
}

/// The thread ends when this is dropped; what isn't sealed by then stays without.
pub(crate) struct Seals(Arc<Queue>);

impl Seals {
    pub(crate) fn begin<B: Backend>(backend: Arc<B>, deadline: Duration) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let sealer = Sealer {
            backend,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            queue: Arc::clone(&queue),
        };
        thread::Builder::new()
            .name("fuse-seal".into())
            .spawn(move || Arc::new(sealer).run())?;
        Ok(Self(queue))
    }

    /// The file as it is now.
    pub(crate) fn seal(&self, ino: Ino, inode: &Inode) {
        self.0.push(Job {
            ino,
            size: inode.size,
            ctime: inode.ctime,
            hasher: Box::default(),
            read: 0,
            tries: 0,
        });
    }
}

impl Drop for Seals {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        state.jobs.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}

struct Sealer<B> {
    backend: Arc<B>,
    deadline_ms: u64,
    queue: Arc<Queue>,
}

impl<B: Backend> Sealer<B> {
    fn run(self: Arc<Self>) {
        while let Some(mut job) = self.queue.pop() {
            match self.read(&mut job) {
                Ok(true) => self.keep(job),
                Ok(false) => self.queue.push(job),
                Err(failure) => debug!(ino = %job.ino, %failure, "not sealed"),
            }
        }
    }

    /// Whether the whole file is read now.
    fn read(&self, job: &mut Job) -> Result<bool, Failure> {
        let left = job.size - job.read;
        if left == 0 {
            return Ok(true);
        }
        let data = self.backend.read(job.ino, job.read, left.min(PIECE as u64) as usize)?;
        if data.is_empty() {
            // Shorter than it was: keeping the hash will be refused.
            return Ok(true);
        }
        job.hasher.update(&data);
        job.read += data.len() as u64;
        Ok(job.read == job.size)
    }

    fn keep(self: &Arc<Self>, job: Job) {
        let op = Op::Seal {
            ino: job.ino,
            size: job.size,
            ctime: job.ctime,
            hash: *job.hasher.finalize().as_bytes(),
        };
        let sealer = Arc::clone(self);
        let done = move |outcome: Result<Reply, Failure>| match outcome {
            Ok(Reply::Sealed(false)) => sealer.changed(job),
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

    /// Begins anew if it was a change of its name or its owner; one of its bytes has a writer, who will close it.
    fn changed(&self, mut job: Job) {
        match self.backend.getattr(job.ino) {
            Ok(inode) if inode.nlink > 0 && inode.size == job.size && inode.seal.is_none() && job.tries < TRIES => {
                job.ctime = inode.ctime;
                job.tries += 1;
                job.read = 0;
                job.hasher.reset();
                self.queue.push(job);
            }
            _ => {}
        }
    }
}
