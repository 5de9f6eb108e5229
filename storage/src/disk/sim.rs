//! A disk in memory that tears, loses and rots, the same way each time for the same seed.
//!
//! For tests. What is written is seen at once by all who read; what a power cut leaves of it is decided by
//! `crash`: all that was synced, and of the rest any subset of writes (a write torn at any sector boundaries)
//! and any subset of names made, renamed and removed. A synced file whose name was not synced may be lost.

mod content;
mod state;

use super::{Disk, DiskFile, OpenHow, Space};
use crate::types::BLOCK;
use content::Change;
use state::State;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A seeded source of decisions (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct Machine {
    state: Mutex<State>,
    released: Condvar,
}

/// A handle; clones lead to the same disk.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Machine>,
}

pub struct SimFile {
    disk: SimDisk,
    ino: u64,
    boot: u64,
    direct: bool,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

fn crashed() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

impl SimDisk {
    pub fn new() -> Self {
        Self {
            machine: Arc::new(Machine {
                state: Mutex::new(State::new()),
                released: Condvar::new(),
            }),
        }
    }

    /// Power is cut and comes back. Files opened before are dead, held syncs end with an error.
    pub fn crash(&self, seed: u64) {
        self.lock().crash(&mut Dice(seed));
        self.machine.released.notify_all();
    }

    /// `calls` more calls that change or sync something work; the one after them is the last thing the
    /// machine does (a write or a name may or may not survive it, a sync has not happened), and every call
    /// from then on is an error until `crash`.
    pub fn fail_after(&self, calls: u64) {
        let mut state = self.lock();
        state.fail_at = Some(state.calls + calls + 1);
    }

    /// Calls so far that change or sync something.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Flips the bits of one stored byte.
    pub fn rot(&self, path: &str, offset: u64) -> io::Result<()> {
        self.lock().rot(path, offset)
    }

    /// From now on the disk holds this many bytes; what needs more is refused with ENOSPC.
    pub fn full(&self, bytes: u64) {
        self.lock().limit = bytes;
    }

    /// While held, syncs don't return (what they sync isn't stable yet).
    pub fn hold_syncs(&self, hold: bool) {
        self.lock().hold = hold;
        self.machine.released.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.machine.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the machine as started for the `boot`-th time, if it is still alive.
    fn alive(&self, boot: Option<u64>) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        let same = boot.is_none_or(|boot| boot == state.boot);
        if state.dead || !same { Err(crashed()) } else { Ok(state) }
    }

    /// Counts a call. True if the machine dies in it.
    fn count(state: &mut State) -> bool {
        state.calls += 1;
        state.dead = state.fail_at == Some(state.calls);
        state.dead
    }

    fn change<T>(&self, boot: Option<u64>, what: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.alive(boot)?;
        let dies = Self::count(&mut state);
        let done = what(&mut state);
        if dies { Err(crashed()) } else { done }
    }

    fn sync<T>(
        &self,
        boot: Option<u64>,
        before: impl FnOnce(&mut State) -> io::Result<()>,
        sync: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.alive(boot)?;
        let boot = state.boot;
        let dies = Self::count(&mut state);
        before(&mut state)?;
        if dies {
            return Err(crashed());
        }
        while state.hold && !state.dead && state.boot == boot {
            state = self
                .machine
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.dead || state.boot != boot {
            return Err(crashed());
        }
        sync(&mut state)
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    const MANY_AT_ONCE: bool = false;

    fn open(&self, path: &str, how: OpenHow) -> io::Result<SimFile> {
        let (ino, boot) = if how.create {
            self.change(None, |state| Ok((state.open_or_make(path)?, state.boot)))?
        } else {
            let state = self.alive(None)?;
            (state.open_existing(path)?, state.boot)
        };
        Ok(SimFile {
            disk: self.clone(),
            ino,
            boot,
            direct: how.direct,
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(None, |state| state.remove(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(None, |state| state.rename(from, to))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.change(None, |state| state.create_dir(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.alive(None)?.list(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.sync(None, |_| Ok(()), |state| state.sync_dir(path))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(
            None,
            |_| Ok(()),
            |state| {
                state.sync_all();
                Ok(())
            },
        )
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.alive(None)?;
        Ok(Space {
            free: state.limit.saturating_sub(state.used),
            total: state.limit,
            free_files: u64::MAX,
            files: u64::MAX,
        })
    }
}

impl SimFile {
    fn check_aligned(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let aligned = |number: u64| number.is_multiple_of(BLOCK);
        let all = aligned(buffer.as_ptr() as u64) && aligned(buffer.len() as u64) && aligned(offset);
        if self.direct && !all {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        } else {
            Ok(())
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.disk
            .change(Some(self.boot), |state| state.change_data(self.ino, change))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check_aligned(buffer, offset)?;
        Ok(self.disk.alive(Some(self.boot))?.live(self.ino).read(buffer, offset))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_aligned(data, offset)?;
        self.change(Change::Write {
            offset,
            data: data.to_vec(),
        })
    }

    fn write_synced(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_aligned(data, offset)?;
        let write = Change::Write {
            offset,
            data: data.to_vec(),
        };
        self.disk.sync(
            Some(self.boot),
            |state| state.change_data(self.ino, write),
            |state| {
                state.sync_data(self.ino);
                Ok(())
            },
        )
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive(Some(self.boot))?.live(self.ino).len())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Change::Punch { offset, len })
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Change::Reserve { offset, len })
    }

    /// As a file system that knows of no holes.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.len()?).then_some(offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(
            Some(self.boot),
            |_| Ok(()),
            |state| {
                state.sync_data(self.ino);
                Ok(())
            },
        )
    }
}
