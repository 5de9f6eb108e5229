//! The simulated disk of one machine behind wires that can be cut, refuse or lie: the storage crate's own `SimDisk` keeps
//! what was written and decides what a power cut leaves, this says which calls get there.
//!
//! A process can die in any call (`dies_after`): the write of that call may have been done, its sync not. After that
//! either the power was cut as well, or only the process was killed, and what it had written is still there, unsynced.

use super::harm::Harm;
use super::random::Random;
use holdfast_storage::disk::sim::{SimDisk, SimFile};
use holdfast_storage::disk::{Disk, DiskFile, OpenHow, Space};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a call is for, told by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Log = 0,
    Data = 1,
    Other = 2,
}

fn kind(path: &str) -> Kind {
    if path.starts_with("log/") {
        Kind::Log
    } else if path.starts_with("data/") {
        Kind::Data
    } else {
        Kind::Other
    }
}

/// Bytes of a disk that is never full.
const LARGE: u64 = 1 << 40;

type Beside = Box<dyn FnMut() + Send>;

#[derive(Default)]
struct Wires {
    /// Calls so far that change or sync something.
    calls: u64,
    dies_at: Option<u64>,
    dead: bool,
    /// Processes so far: files of an earlier one are closed.
    process: u64,
    /// Writes and syncs of this kind fail with EIO.
    refuses: [bool; 3],
    /// So do reads of data.
    unreadable: bool,
    /// Syncs say that they are done and aren't.
    lies: bool,
    /// What another thread of the process does just before this call.
    beside: Option<(u64, Beside)>,
    /// The next write of data ends up there.
    astray: Option<(String, u64)>,
    /// Files whose write has gone elsewhere, not asked for yet.
    unwritten: Vec<String>,
    /// The next write of the log isn't done, and called done.
    loses_log_write: bool,
    /// Of this process's log.
    harms: Vec<Harm>,
    /// An earlier process has left such a log.
    is_harmed: bool,
}

#[derive(Clone, Default)]
pub struct FaultyDisk {
    disk: SimDisk,
    wires: Arc<Mutex<Wires>>,
}

pub struct FaultyFile {
    file: Arc<SimFile>,
    disk: FaultyDisk,
    process: u64,
    kind: Kind,
    path: String,
}

fn died() -> io::Error {
    io::Error::other("the simulated process has died")
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl FaultyDisk {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more calls work; in the one after them the process dies.
    pub fn dies_after(&self, calls: u64) {
        let mut wires = self.wires();
        wires.dies_at = Some(wires.calls + calls + 1);
    }

    pub fn lives(&self) {
        self.wires().dies_at = None;
    }

    pub fn is_dead(&self) -> bool {
        self.wires().dead
    }

    /// The process is gone; what it wrote is still there.
    pub fn kill(&self) {
        let mut wires = self.wires();
        let (refuses, unreadable, lies) = (wires.refuses, wires.unreadable, wires.lies);
        *wires = Wires {
            process: wires.process + 1,
            refuses,
            unreadable,
            lies,
            unwritten: std::mem::take(&mut wires.unwritten),
            is_harmed: wires.is_harmed,
            ..Wires::default()
        };
    }

    /// Power is cut and comes back.
    pub fn crash(&self, seed: u64) {
        self.kill();
        self.disk.crash(seed);
    }

    pub fn refuse(&self, kind: Kind, refuses: bool) {
        self.wires().refuses[kind as usize] = refuses;
    }

    pub fn unreadable(&self, unreadable: bool) {
        self.wires().unreadable = unreadable;
    }

    /// From now on what it says of syncs isn't true.
    pub fn lie(&self) {
        self.wires().lies = true;
    }

    /// All is well again.
    pub fn mend(&self) {
        let mut wires = self.wires();
        (wires.refuses, wires.unreadable) = ([false; 3], false);
        drop(wires);
        self.disk.full(LARGE);
    }

    /// Somebody has said how much is free.
    pub fn is_small(&self) -> bool {
        self.disk.space().is_ok_and(|space| space.total < LARGE)
    }

    pub fn rot(&self, path: &str, offset: u64) -> bool {
        self.disk.rot(path, offset).is_ok()
    }

    /// The next write of data is done at this place of that file instead, and called done.
    pub fn misdirect(&self, path: String, offset: u64) {
        self.wires().astray = Some((path, offset));
    }

    /// Whose write has gone elsewhere since asked last.
    pub fn unwritten(&self) -> Vec<String> {
        std::mem::take(&mut self.wires().unwritten)
    }

    pub fn lose_log_write(&self) {
        self.wires().loses_log_write = true;
    }

    /// Whether there was a byte to rot.
    pub fn rot_log(&self, dice: &mut Random) -> bool {
        let harm = Harm::rot(&self.disk, dice).ok().flatten();
        let has_rotted = harm.is_some();
        self.wires().harms.extend(harm);
        has_rotted
    }

    /// The log isn't all that was written, or soon won't be.
    pub fn is_harmed(&self) -> bool {
        let wires = self.wires();
        wires.is_harmed || wires.loses_log_write || wires.harms.iter().any(Harm::is_there)
    }

    /// Before its process ends: the harm stays for the next one to find, or is undone. Whether there is any.
    pub fn settle_harm(&self, stays: bool) -> bool {
        let mut wires = self.wires();
        let harms = std::mem::take(&mut wires.harms);
        wires.loses_log_write = false;
        if stays {
            wires.is_harmed |= harms.iter().any(Harm::is_there);
        } else {
            let undone = harms.iter().try_for_each(Harm::undo);
            undone.expect("the simulated disk under the wires does as it is told");
        }
        wires.is_harmed
    }

    /// The log was opened: what was harmed at its end is no part of it any more.
    pub fn forget_harm(&self) {
        self.wires().is_harmed = false;
    }

    /// From now on so many bytes are free.
    pub fn leave_free(&self, bytes: u64) {
        if let Ok(space) = self.disk.space() {
            self.disk.full(space.total - space.free + bytes);
        }
    }

    /// Does something before the call that is so many away, as another thread would.
    pub fn beside(&self, calls: u64, what: Beside) {
        let mut wires = self.wires();
        wires.beside = Some((wires.calls + calls + 1, what));
    }

    pub fn nothing_beside(&self) {
        self.wires().beside = None;
    }

    /// Lets a call through that changes something; true if the process dies in it.
    fn pass(&self, process: Option<u64>, kind: Kind) -> io::Result<bool> {
        let mut wires = self.wires();
        if wires.dead || process.is_some_and(|process| process != wires.process) {
            return Err(died());
        }
        if wires.refuses[kind as usize] {
            return Err(eio());
        }
        wires.calls += 1;
        let calls = wires.calls;
        if let Some((_, mut beside)) = wires.beside.take_if(|(at, _)| *at == calls) {
            drop(wires);
            beside();
            wires = self.wires();
        }
        wires.dead |= wires.dies_at.is_some_and(|at| wires.calls >= at);
        Ok(wires.dead)
    }

    fn change<T>(&self, process: Option<u64>, kind: Kind, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let dies = self.pass(process, kind)?;
        let done = change();
        if dies { Err(died()) } else { done }
    }

    fn sync(&self, process: Option<u64>, kind: Kind, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.pass(process, kind)? {
            return Err(died());
        }
        if self.wires().lies { Ok(()) } else { sync() }
    }

    fn alive(&self, process: Option<u64>) -> io::Result<()> {
        let wires = self.wires();
        let same = process.is_none_or(|process| process == wires.process);
        if wires.dead || !same { Err(died()) } else { Ok(()) }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;
    const MANY_AT_ONCE: bool = false;

    fn open(&self, path: &str, how: OpenHow) -> io::Result<FaultyFile> {
        let kind = kind(path);
        let file = if how.create {
            self.change(None, kind, || self.disk.open(path, how))?
        } else {
            self.alive(None)?;
            self.disk.open(path, how)?
        };
        Ok(FaultyFile {
            file: Arc::new(file),
            disk: self.clone(),
            process: self.wires().process,
            kind,
            path: path.to_owned(),
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change(None, kind(path), || self.disk.remove(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(None, kind(to), || self.disk.rename(from, to))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.change(None, kind(path), || self.disk.create_dir(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.alive(None)?;
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.sync(None, kind(path), || self.disk.sync_dir(path))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(None, Kind::Other, || self.disk.sync_all())
    }

    fn space(&self) -> io::Result<Space> {
        self.alive(None)?;
        self.disk.space()
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.alive(Some(self.process))?;
        if self.kind == Kind::Data && self.disk.wires().unreadable {
            return Err(eio());
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let goes_astray = |wires: &mut Wires| {
            if self.kind == Kind::Data {
                wires.astray.take()
            } else {
                None
            }
        };
        self.disk.change(Some(self.process), self.kind, || {
            let astray = goes_astray(&mut self.disk.wires());
            let elsewhere =
                astray.and_then(|(path, at)| Some((self.disk.disk.open(&path, OpenHow::default()).ok()?, at)));
            match elsewhere {
                Some((file, at)) => {
                    self.disk.wires().unwritten.push(self.path.clone());
                    file.write_at(data, at)
                }
                None => self.file.write_at(data, offset),
            }
        })
    }

    fn write_synced(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let dies = self.disk.pass(Some(self.process), self.kind)?;
        if dies || self.disk.wires().lies {
            self.file.write_at(data, offset)?;
            return if dies { Err(died()) } else { Ok(()) };
        }
        if self.kind == Kind::Log && std::mem::take(&mut self.disk.wires().loses_log_write) {
            let harm = Harm::lost(&self.file, data, offset)?;
            self.disk.wires().harms.push(harm);
            return Ok(());
        }
        self.file.write_synced(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk
            .change(Some(self.process), self.kind, || self.file.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.alive(Some(self.process))?;
        self.file.len()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk
            .change(Some(self.process), self.kind, || self.file.punch(offset, len))
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk
            .change(Some(self.process), self.kind, || self.file.reserve(offset, len))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.disk.alive(Some(self.process))?;
        self.file.next_data(offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(Some(self.process), self.kind, || self.file.sync_data())
    }
}
