//! What many processes share: one file in which each has its own records, beside those of others on the same page; one to
//! whose end all append; one folder in which all have names. Each knows what it did itself, and sees what others do.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    Advice, AtFlags, Dir, MemfdFlags, Mode, OFlags, RenameFlags, fadvise, fsync, ftruncate, memfd_create, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::mm::ProtFlags;

use super::appended::Appended;
use super::compare::{mixed, same, whole};
use super::fault::{Fault, fault, wrong};
use super::mapping::Mapping;
use super::place::Place;
use super::story::Story;
use super::work::Work;

/// At most so many workers.
const OWNERS: u64 = 64;
const RECORDS: usize = 8;
/// Divides no page.
const RECORD: usize = 700;
const NAMES: u32 = 24;
const PAGE: usize = 4096;

#[derive(Debug, Clone, Copy)]
enum Op {
    Write { record: usize },
    MapWrite { record: usize },
    Read { record: usize },
    ReadDirect { record: usize },
    MapRead { record: usize },
    Sync,
    Forget,
    Append { len: usize },
    Follow,
    SyncAppended,
    Make { name: u32 },
    Remove { name: u32 },
    Move { from: u32, to: u32 },
    List,
}

struct Files {
    folder: OwnedFd,
    table: OwnedFd,
    direct: OwnedFd,
    log: OwnedFd,
    reader: OwnedFd,
}

pub(super) struct Shared {
    place: Place,
    owner: u64,
    files: Files,
    ferry: OwnedFd,
    records: Vec<Vec<u8>>,
    appended: Appended,
    names: BTreeSet<u32>,
    random: StdRng,
    story: Story,
}

impl Files {
    fn open(place: &Place, owner: u64) -> anyhow::Result<Result<Self, Fault>> {
        let folder = place.open()?;
        let open = |name: &str, how: OFlags| {
            let how = how | OFlags::CLOEXEC | OFlags::CREATE;
            openat(&folder, name, how, Mode::from_raw_mode(0o600)).map_err(|errno| fault("open", errno))
        };
        // Some append around the page cache, if nobody reads through it, and some through it.
        let append = if owner.is_multiple_of(2) {
            OFlags::WRONLY
        } else {
            OFlags::RDWR
        };
        let opened = open("log", append | OFlags::APPEND).and_then(|log| {
            let table = open("table", OFlags::RDWR)?;
            let (direct, reader) = (open("table", OFlags::DIRECT)?, open("log", OFlags::empty())?);
            let length = OWNERS * (RECORDS * RECORD) as u64;
            // Cuts nothing: it is as long for all.
            ftruncate(&table, length).map_err(|errno| fault("ftruncate", errno))?;
            Ok((table, direct, log, reader))
        });
        Ok(opened.map(|(table, direct, log, reader)| Self {
            folder,
            table,
            direct,
            log,
            reader,
        }))
    }
}

impl Shared {
    pub(super) fn new(place: &Place, seed: u64) -> anyhow::Result<Self> {
        let owner = seed % OWNERS;
        let files = loop {
            match Files::open(place, owner)? {
                Ok(files) => break files,
                Err(Fault::Lost(_)) if place.fails_over() => {}
                Err(fault) => anyhow::bail!("opening what is shared: {fault:?}"),
            }
        };
        Ok(Self {
            place: place.clone(),
            owner,
            files,
            ferry: memfd_create("ferry", MemfdFlags::CLOEXEC)?,
            records: vec![vec![0; RECORD]; RECORDS],
            appended: Appended::new(owner, place.fails_over()),
            names: BTreeSet::new(),
            random: StdRng::seed_from_u64(seed),
            story: Story::default(),
        })
    }

    fn all(&mut self) -> Result<(), Fault> {
        (0..RECORDS).try_for_each(|record| self.compare(record))?;
        self.list()?;
        self.appended.begin_anew();
        self.appended.follow(self.files.reader.as_fd())?;
        self.appended.nothing_is_missing()
    }

    fn draw(&mut self) -> Op {
        let record = self.random.random_range(0..RECORDS);
        let name = self.random.random_range(0..NAMES);
        match self.random.random_range(0..100) {
            0..20 => Op::Write { record },
            20..28 => Op::MapWrite { record },
            28..40 => Op::Read { record },
            40..44 => Op::ReadDirect { record },
            44..50 => Op::MapRead { record },
            50..52 => Op::Sync,
            52..54 => Op::Forget,
            54..72 => Op::Append {
                len: self.random.random_range(1..3000),
            },
            72..80 => Op::Follow,
            80..82 => Op::SyncAppended,
            82..96 => match (self.names.contains(&name), self.random.random_bool(0.5)) {
                (false, _) => Op::Make { name },
                (true, true) => Op::Remove { name },
                (true, false) => Op::Move {
                    from: name,
                    to: (name + 1) % NAMES,
                },
            },
            _ => Op::List,
        }
    }

    fn position(&self, record: usize) -> u64 {
        (record as u64 * OWNERS + self.owner) * RECORD as u64
    }

    fn name(&self, name: u32) -> String {
        format!("of-{}-{name}", self.owner)
    }

    fn carry_out(&mut self, op: Op, after: &[u8]) -> Result<(), Fault> {
        let files = &self.files;
        match op {
            Op::Write { record } => whole("pwrite", pwrite(&files.table, after, self.position(record)), RECORD),
            Op::MapWrite { record } => {
                let both = ProtFlags::READ | ProtFlags::WRITE;
                let (mapping, from) = self.map(record, both)?;
                pwrite(&self.ferry, after, 0).map_err(|errno| Fault::Wrong(format!("the ferry: {errno}")))?;
                let loaded = mapping.load(from, RECORD, self.ferry.as_fd());
                whole("writing to a mapping", loaded, RECORD)?;
                mapping.sync().map_err(|errno| fault("msync", errno))
            }
            Op::Read { record } => self.compare(record),
            Op::ReadDirect { record } => self.compare_direct(record),
            Op::MapRead { record } => {
                let (mapping, from) = self.map(record, ProtFlags::READ)?;
                let saved = mapping.save(from, RECORD, self.ferry.as_fd());
                whole("reading a mapping", saved, RECORD)?;
                let mut found = vec![0; RECORD];
                pread(&self.ferry, &mut found, 0).map_err(|errno| Fault::Wrong(format!("the ferry: {errno}")))?;
                same("a mapping", record, &self.records[record], &found)
            }
            Op::Sync => fsync(&files.table).map_err(|errno| fault("fsync", errno)),
            Op::Forget => fadvise(&files.table, 0, None, Advice::DontNeed).map_err(|errno| fault("fadvise", errno)),
            Op::Append { len } => {
                let mut payload = vec![0; len];
                self.random.fill_bytes(&mut payload);
                let record = self.appended.next(&payload);
                whole(
                    "write with O_APPEND",
                    rustix::io::write(&files.log, &record),
                    record.len(),
                )
            }
            Op::Follow => self.appended.follow(files.reader.as_fd()),
            Op::SyncAppended => {
                self.appended.follow(files.reader.as_fd())?;
                fsync(&files.log).map_err(|errno| fault("fsync", errno))
            }
            Op::Make { name } => {
                let how = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let made = openat(&files.folder, self.name(name), how, Mode::from_raw_mode(0o600));
                made.map(drop).map_err(|errno| fault("open with O_EXCL", errno))
            }
            Op::Remove { name } => {
                unlinkat(&files.folder, self.name(name), AtFlags::empty()).map_err(|errno| fault("unlink", errno))
            }
            Op::Move { from, to } => {
                let (from, to) = (self.name(from), self.name(to));
                renameat_with(&files.folder, from, &files.folder, to, RenameFlags::empty())
                    .map_err(|errno| fault("rename", errno))
            }
            Op::List => self.list(),
        }
    }

    /// What the model is once the operation is done.
    fn done(&mut self, op: Op, after: Vec<u8>) {
        match op {
            Op::Write { record } | Op::MapWrite { record } => self.records[record] = after,
            Op::Append { .. } => self.appended.acknowledged(),
            Op::SyncAppended => self.appended.synced(),
            Op::Make { name } => drop(self.names.insert(name)),
            Op::Remove { name } => drop(self.names.remove(&name)),
            Op::Move { from, to } => {
                self.names.remove(&from);
                self.names.insert(to);
            }
            Op::Read { .. }
            | Op::ReadDirect { .. }
            | Op::MapRead { .. }
            | Op::Sync
            | Op::Forget
            | Op::Follow
            | Op::List => {}
        }
    }

    fn map(&self, record: usize, how: ProtFlags) -> Result<(Mapping, usize), Fault> {
        Mapping::around(&self.files.table, self.position(record), RECORD, how).map_err(|errno| fault("mmap", errno))
    }

    fn content(&self, record: usize) -> Result<Vec<u8>, Fault> {
        let mut found = vec![0; RECORD];
        let read = pread(&self.files.table, &mut found, self.position(record));
        whole("pread", read, RECORD)?;
        Ok(found)
    }

    fn compare(&self, record: usize) -> Result<(), Fault> {
        same("read()", record, &self.records[record], &self.content(record)?)
    }

    fn compare_direct(&self, record: usize) -> Result<(), Fault> {
        let at = usize::try_from(self.position(record)).expect("some hundred KiB");
        let (first, end) = (at / PAGE * PAGE, (at + RECORD).next_multiple_of(PAGE));
        let mut memory = vec![0; end - first + PAGE];
        let aligned = memory.as_ptr().align_offset(PAGE);
        let buffer = &mut memory[aligned..aligned + end - first];
        let read = pread(&self.files.direct, &mut *buffer, first as u64).map_err(|errno| fault("pread", errno))?;
        let from = at - first;
        if read < from + RECORD {
            return Err(Fault::Lost(Errno::IO));
        }
        same("O_DIRECT", record, &self.records[record], &buffer[from..from + RECORD])
    }

    /// Own names, once each, whatever others do to theirs.
    fn list(&self) -> Result<(), Fault> {
        let prefix = format!("of-{}-", self.owner);
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.files.folder).map_err(|errno| fault("opendir", errno))? {
            let entry = entry.map_err(|errno| fault("readdir", errno))?;
            let name = entry.file_name().to_string_lossy();
            found.extend(name.strip_prefix(&prefix).and_then(|number| number.parse::<u32>().ok()));
        }
        found.sort_unstable();
        if !found.iter().eq(&self.names) {
            wrong!("readdir shows {found:?} of {:?}", self.names);
        }
        Ok(())
    }

    fn reopen(&mut self, errno: Errno) -> Result<(), String> {
        self.story.tell(&format!("lost: {errno}"));
        loop {
            match Files::open(&self.place, self.owner).map_err(|error| format!("{error:#}"))? {
                Ok(files) => {
                    self.files = files;
                    self.appended.again();
                    return Ok(());
                }
                Err(Fault::Lost(errno)) => self.story.tell(&format!("lost again: {errno}")),
                Err(Fault::Wrong(what)) => return Err(what),
            }
        }
    }

    /// After an error: on the mount that works now, what is this worker's own is as before the operation or as after it.
    fn settle(&mut self, op: Op, after: &[u8], mut errno: Errno) -> Result<(), String> {
        self.story.open += 1;
        loop {
            self.reopen(errno)?;
            match self.settle_once(op, after) {
                Ok(()) => return Ok(()),
                Err(Fault::Lost(again)) => errno = again,
                Err(Fault::Wrong(what)) => return Err(format!("after {errno}: {what}")),
            }
        }
    }

    fn settle_once(&mut self, op: Op, after: &[u8]) -> Result<(), Fault> {
        match op {
            // A page may have gone to the daemon with somebody else's record: pieces, in any order.
            Op::Write { record } | Op::MapWrite { record } => {
                let found = self.content(record)?;
                if !mixed(&self.records[record], after, &found) {
                    wrong!("record {record} is neither as before nor as after");
                }
                self.records[record] = found;
            }
            Op::Append { .. } => self.appended.left_open(),
            Op::Make { name } | Op::Remove { name } => {
                if self.is_there(name)? {
                    self.names.insert(name);
                } else {
                    self.names.remove(&name);
                }
            }
            Op::Move { from, to } => {
                let is_to = self.is_there(to)?;
                match (self.is_there(from)?, is_to) {
                    (true, is_to) if is_to == self.names.contains(&to) => {}
                    (false, true) => {
                        self.names.remove(&from);
                        self.names.insert(to);
                    }
                    state => wrong!("a rename has left the old and the new name as {state:?}"),
                }
            }
            Op::Read { .. }
            | Op::ReadDirect { .. }
            | Op::MapRead { .. }
            | Op::Sync
            | Op::Forget
            | Op::Follow
            | Op::SyncAppended
            | Op::List => {}
        }
        Ok(())
    }

    fn is_there(&self, name: u32) -> Result<bool, Fault> {
        match statat(&self.files.folder, self.name(name), AtFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(fault("stat", errno)),
        }
    }
}

impl Work for Shared {
    fn step(&mut self) -> Result<(), String> {
        let op = self.draw();
        self.story.operation(&op);
        let mut after = vec![0; RECORD];
        self.random.fill_bytes(&mut after);
        match self.carry_out(op, &after) {
            Ok(()) => {
                self.done(op, after);
                Ok(())
            }
            Err(Fault::Lost(errno)) if self.place.fails_over() => self.settle(op, &after, errno),
            Err(Fault::Lost(errno)) => Err(format!("says {errno}")),
            Err(Fault::Wrong(what)) => Err(what),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        loop {
            match self.all() {
                Ok(()) => return Ok(()),
                Err(Fault::Lost(errno)) if self.place.fails_over() => self.reopen(errno)?,
                Err(fault) => return Err(format!("{fault:?}")),
            }
        }
    }

    fn story(self) -> Story {
        self.story
    }
}
