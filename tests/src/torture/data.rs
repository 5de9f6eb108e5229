//! One file's bytes: every way to write them, to move its end, to make holes and to read, against a copy in memory.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    Advice, FallocateFlags, MemfdFlags, Mode, OFlags, SeekFrom, copy_file_range, fadvise, fallocate, fdatasync, fstat,
    fsync, ftruncate, memfd_create, openat, seek,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::mm::ProtFlags;

use super::compare::{mixed, same, whole};
use super::fault::{Fault, fault, wrong};
use super::mapping::Mapping;
use super::place::Place;
use super::story::Story;
use super::work::Work;

/// Of the file's part that the model knows.
const MOST: usize = 256 << 10;
const LONGEST: usize = 64 << 10;
const PAGE: usize = 4096;
const BLOCK: usize = 4096;
/// Where that part begins: at the start, or behind a hole of gigabytes.
const BASES: [u64; 3] = [0, 3 << 30, 5 << 40];
const NAME: &str = "data";

#[derive(Debug, Clone)]
enum Op {
    Write { at: usize, len: usize },
    WriteDirect { at: usize, len: usize },
    Append { len: usize },
    Read { at: usize, len: usize },
    ReadDirect { at: usize, len: usize },
    MapRead { at: usize, len: usize },
    MapWrite { at: usize, len: usize },
    Truncate { size: usize },
    Allocate { at: usize, len: usize },
    AllocateKeepSize { at: usize, len: usize },
    Punch { at: usize, len: usize },
    Zero { at: usize, len: usize },
    ZeroKeepSize { at: usize, len: usize },
    Copy { from: usize, to: usize, len: usize },
    Seek { at: usize },
    Sync,
    SyncData,
    Forget,
    Reopen { how: OFlags },
    Verify,
}

/// In which parts an operation whose outcome is open may be there.
#[derive(Clone, Copy, PartialEq)]
enum Grain {
    Whole,
    /// One or more requests of the kernel, in order, each ending where a page of the file or the operation does.
    Pages {
        from: usize,
    },
    /// As requests of the kernel, anyhow.
    Bytes,
}

pub(super) struct Data {
    place: Place,
    folder: OwnedFd,
    base: u64,
    file: OwnedFd,
    direct: OwnedFd,
    /// Carries bytes to and from mappings: a page that can't be had is an error of a call then, not a signal.
    ferry: OwnedFd,
    buffer: Aligned,
    model: Vec<u8>,
    random: StdRng,
    story: Story,
}

/// Memory as O_DIRECT wants it.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; LONGEST + PAGE];
        let from = bytes.as_ptr().align_offset(PAGE);
        Self { bytes, from }
    }

    fn first(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + len]
    }
}

impl Data {
    pub(super) fn new(place: &Place, seed: u64) -> anyhow::Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let base = BASES[random.random_range(0..BASES.len())];
        let ferry = memfd_create("ferry", MemfdFlags::CLOEXEC)?;
        loop {
            let folder = place.open()?;
            let opened = open(folder.as_fd(), OFlags::CREATE).and_then(|files| {
                ftruncate(&files.0, base)
                    .map_err(|errno| fault("ftruncate", errno))
                    .map(|()| files)
            });
            match opened {
                Ok((file, direct)) => {
                    return Ok(Self {
                        place: place.clone(),
                        folder,
                        base,
                        file,
                        direct,
                        ferry,
                        buffer: Aligned::new(),
                        model: Vec::new(),
                        random,
                        story: Story::default(),
                    });
                }
                Err(Fault::Lost(_)) if place.fails_over() => {}
                Err(fault) => anyhow::bail!("making the file: {fault:?}"),
            }
        }
    }

    fn draw(&mut self) -> Op {
        let size = self.model.len();
        let len = match self.random.random_range(0..4) {
            0 => self.random.random_range(1..64),
            1 => self.random.random_range(1..=PAGE),
            _ => self.random.random_range(1..=LONGEST),
        };
        // Near the end as often as anywhere: that is where the cases are.
        let near = if self.random.random_bool(0.3) {
            size.saturating_sub(self.random.random_range(0..2 * PAGE))
        } else {
            self.random.random_range(0..MOST)
        };
        let at = near.min(MOST - len);
        // Within the file, for what needs bytes that are there.
        let inside = at.min(size.saturating_sub(1));
        let within = len.min(size - inside.min(size));
        let block = at / BLOCK * BLOCK;
        let blocks = (len.div_ceil(BLOCK) * BLOCK).min(MOST - block).min(LONGEST);
        match self.random.random_range(0..100) {
            0..24 => Op::Write { at, len },
            24..30 => Op::WriteDirect { at: block, len: blocks },
            30..35 if size + len <= MOST => Op::Append { len },
            30..45 => Op::Read { at, len },
            45..50 => Op::ReadDirect { at: block, len: blocks },
            50..56 if within > 0 => Op::MapRead {
                at: inside,
                len: within,
            },
            56..64 if within > 0 => Op::MapWrite {
                at: inside,
                len: within,
            },
            50..69 => Op::Truncate { size: at },
            69..71 => Op::Allocate { at, len },
            71..72 => Op::AllocateKeepSize { at, len },
            72..76 => Op::Punch { at, len },
            76..78 => Op::Zero { at, len },
            78..80 => Op::ZeroKeepSize { at, len },
            80..84 if within > 0 && inside + within <= MOST - within => Op::Copy {
                from: inside,
                to: self.random.random_range(inside + within..=MOST - within),
                len: within,
            },
            80..88 => Op::Seek { at },
            88..90 => Op::Sync,
            90..92 => Op::SyncData,
            92..95 => Op::Forget,
            95..98 => Op::Reopen {
                how: [OFlags::empty(), OFlags::SYNC, OFlags::DSYNC][self.random.random_range(0..3)],
            },
            _ => Op::Verify,
        }
    }

    /// What the file is once the operation is done. New bytes are random, so that no two are mistaken for each other.
    fn after(&mut self, op: &Op) -> (Vec<u8>, Grain) {
        let mut model = self.model.clone();
        let mut grain = Grain::Whole;
        let reach = |model: &mut Vec<u8>, end: usize| model.resize(model.len().max(end), 0);
        match *op {
            Op::Write { at, len } | Op::WriteDirect { at, len } => {
                if matches!(op, Op::Write { .. }) {
                    grain = Grain::Pages { from: at };
                }
                reach(&mut model, at + len);
                self.random.fill_bytes(&mut model[at..at + len]);
            }
            Op::Append { len } => {
                let at = model.len();
                grain = Grain::Pages { from: at };
                reach(&mut model, at + len);
                self.random.fill_bytes(&mut model[at..]);
            }
            Op::MapWrite { at, len } => {
                self.random.fill_bytes(&mut model[at..at + len]);
                grain = Grain::Bytes;
            }
            Op::Truncate { size } => model.resize(size, 0),
            Op::Allocate { at, len } => reach(&mut model, at + len),
            Op::Zero { at, len } => {
                reach(&mut model, at + len);
                model[at..at + len].fill(0);
            }
            Op::Punch { at, len } | Op::ZeroKeepSize { at, len } => {
                let end = (at + len).min(model.len());
                if at < end {
                    model[at..end].fill(0);
                }
            }
            Op::Copy { from, to, len } => {
                reach(&mut model, to + len);
                model.copy_within(from..from + len, to);
                grain = Grain::Bytes;
            }
            Op::Read { .. }
            | Op::ReadDirect { .. }
            | Op::MapRead { .. }
            | Op::AllocateKeepSize { .. }
            | Op::Seek { .. }
            | Op::Sync
            | Op::SyncData
            | Op::Forget
            | Op::Reopen { .. }
            | Op::Verify => {}
        }
        (model, grain)
    }

    fn carry_out(&mut self, op: &Op, after: &[u8]) -> Result<(), Fault> {
        let base = self.base;
        let place = |at: usize| base + at as u64;
        match *op {
            Op::Write { at, len } => {
                let written = pwrite(&self.file, &after[at..at + len], place(at));
                whole("pwrite", written, len)
            }
            Op::WriteDirect { at, len } => {
                self.buffer.first(len).copy_from_slice(&after[at..at + len]);
                let written = pwrite(&self.direct, self.buffer.first(len), place(at));
                whole("pwrite with O_DIRECT", written, len)
            }
            Op::Append { len } => {
                let file = open_one(self.folder.as_fd(), OFlags::APPEND)?;
                let written = rustix::io::write(&file, &after[after.len() - len..]);
                whole("write with O_APPEND", written, len)
            }
            Op::Read { at, len } => self.compare(at, len, false),
            Op::ReadDirect { at, len } => self.compare(at, len, true),
            Op::MapRead { at, len } => self.map_read(at, len),
            Op::MapWrite { at, len } => self.map_write(at, &after[at..at + len]),
            Op::Truncate { size } => ftruncate(&self.file, place(size)).map_err(|errno| fault("ftruncate", errno)),
            Op::Allocate { at, len } => self.allocate(FallocateFlags::empty(), at, len),
            Op::AllocateKeepSize { at, len } => self.allocate(FallocateFlags::KEEP_SIZE, at, len),
            Op::Punch { at, len } => self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len),
            Op::Zero { at, len } => self.allocate(FallocateFlags::ZERO_RANGE, at, len),
            Op::ZeroKeepSize { at, len } => {
                self.allocate(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, at, len)
            }
            Op::Copy { from, to, len } => self.copy(from, to, len),
            Op::Seek { at } => self.seek(at),
            Op::Sync => fsync(&self.file).map_err(|errno| fault("fsync", errno)),
            Op::SyncData => fdatasync(&self.file).map_err(|errno| fault("fdatasync", errno)),
            Op::Forget => fadvise(&self.file, 0, None, Advice::DontNeed).map_err(|errno| fault("fadvise", errno)),
            Op::Reopen { how } => {
                (self.file, self.direct) = open(self.folder.as_fd(), how)?;
                Ok(())
            }
            Op::Verify => self.verify(after),
        }
    }

    fn allocate(&self, how: FallocateFlags, at: usize, len: usize) -> Result<(), Fault> {
        fallocate(&self.file, how, self.base + at as u64, len as u64).map_err(|errno| fault("fallocate", errno))
    }

    fn copy(&self, from: usize, to: usize, len: usize) -> Result<(), Fault> {
        let (mut from, mut to) = (self.base + from as u64, self.base + to as u64);
        let end = to + len as u64;
        while to < end {
            let left = usize::try_from(end - to).expect("at most LONGEST");
            let copied = copy_file_range(&self.file, Some(&mut from), &self.file, Some(&mut to), left);
            match copied {
                Ok(0) => wrong!("copy_file_range stops {left} bytes before its end"),
                Ok(_) => {}
                Err(errno) => return Err(fault("copy_file_range", errno)),
            }
        }
        Ok(())
    }

    /// Between there and the data that is found all must be zeros, and a hole must be one.
    fn seek(&self, at: usize) -> Result<(), Fault> {
        let (size, from) = (self.model.len(), self.base + at as u64);
        let zeros = |range: std::ops::Range<usize>| self.model[range].iter().all(|byte| *byte == 0);
        match seek(&self.file, SeekFrom::Data(from)) {
            Ok(found) => {
                let found = usize::try_from(found - self.base).unwrap_or(usize::MAX);
                if found < at || found >= size || !zeros(at..found) {
                    wrong!("SEEK_DATA from {at} finds {found} of {size}, over bytes that aren't zero");
                }
            }
            Err(Errno::NXIO) if at >= size || zeros(at..size) => {}
            Err(Errno::NXIO) => wrong!("SEEK_DATA from {at} finds nothing, but there is data"),
            Err(errno) => return Err(fault("lseek", errno)),
        }
        match seek(&self.file, SeekFrom::Hole(from)) {
            Ok(found) => {
                let found = usize::try_from(found - self.base).unwrap_or(usize::MAX);
                let is_hole = found == size || self.model.get(found) == Some(&0);
                if found < at || !is_hole {
                    wrong!("SEEK_HOLE from {at} finds {found} of {size}, which isn't one");
                }
                Ok(())
            }
            Err(Errno::NXIO) if at >= size => Ok(()),
            Err(errno) => Err(fault("lseek", errno)),
        }
    }

    fn map(&self, at: usize, len: usize, how: ProtFlags) -> Result<(Mapping, usize), Fault> {
        Mapping::around(&self.file, self.base + at as u64, len, how).map_err(|errno| fault("mmap", errno))
    }

    fn map_read(&self, at: usize, len: usize) -> Result<(), Fault> {
        let (mapping, from) = self.map(at, len, ProtFlags::READ)?;
        let moved = mapping.save(from, len, self.ferry.as_fd());
        whole("reading a mapping", moved, len)?;
        let mut found = vec![0; len];
        pread(&self.ferry, &mut found, 0).map_err(|errno| Fault::Wrong(format!("the ferry: {errno}")))?;
        same("a mapping", at, &self.model[at..at + len], &found)
    }

    fn map_write(&mut self, at: usize, content: &[u8]) -> Result<(), Fault> {
        let len = content.len();
        let (mapping, from) = self.map(at, len, ProtFlags::READ | ProtFlags::WRITE)?;
        pwrite(&self.ferry, content, 0).map_err(|errno| Fault::Wrong(format!("the ferry: {errno}")))?;
        whole("writing to a mapping", mapping.load(from, len, self.ferry.as_fd()), len)?;
        // read() must see it before anybody wrote it back.
        let mut found = vec![0; len];
        if read(&self.file, &mut found, self.base + at as u64)? < len {
            return Err(Fault::Lost(Errno::IO));
        }
        same("read() of what was stored in a mapping", at, content, &found)?;
        mapping.sync().map_err(|errno| fault("msync", errno))
    }

    fn compare(&mut self, at: usize, len: usize, direct: bool) -> Result<(), Fault> {
        let file = if direct { &self.direct } else { &self.file };
        let buffer = self.buffer.first(len);
        let expected = self.model.get(at..).unwrap_or_default();
        let expected = &expected[..expected.len().min(len)];
        // A call that meets an error after some bytes gives the bytes; the next one says the error.
        let mut have = 0;
        loop {
            let more = read(file, &mut buffer[have..], self.base + (at + have) as u64)?;
            have += more;
            if more == 0 || have >= expected.len() {
                break;
            }
        }
        let what = if direct { "O_DIRECT" } else { "read()" };
        match same(what, at, expected, &buffer[..have]) {
            Err(Fault::Wrong(what)) => wrong!("{what}; {}", self.second_look()),
            outcome => outcome,
        }
    }

    /// Whether what was wrong stays so, for whoever has to find the cause.
    fn second_look(&self) -> String {
        let looks = [&self.file, &self.direct].map(|file| {
            let size = fstat(file).map_or(-1, |shown| shown.st_size) - self.base.cast_signed();
            let mut found = vec![0; MOST];
            let read = pread(file, &mut found, self.base).unwrap_or(0);
            let right = if found[..read] == self.model { "right" } else { "wrong" };
            format!("size {size}, {read} bytes, {right}")
        });
        format!("a moment later: {}; around the cache: {}", looks[0], looks[1])
    }

    fn verify(&self, expected: &[u8]) -> Result<(), Fault> {
        same("the whole file", 0, expected, &self.content()?)
    }

    fn content(&self) -> Result<Vec<u8>, Fault> {
        let shown = fstat(&self.file).map_err(|errno| fault("fstat", errno))?;
        let size = u64::try_from(shown.st_size)
            .ok()
            .and_then(|size| size.checked_sub(self.base));
        let Some(size) = size
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| *size <= MOST)
        else {
            wrong!("the size is {}, which it never was", shown.st_size);
        };
        let mut found = vec![0; size];
        let mut have = 0;
        while have < size {
            match pread(&self.file, &mut found[have..], self.base + have as u64) {
                Ok(0) => wrong!("the file ends at {have} of {size}"),
                Ok(read) => have += read,
                Err(errno) => return Err(fault("pread", errno)),
            }
        }
        Ok(found)
    }

    /// After an error: on the mount that works now, the file must be as before the operation or as after it.
    fn settle(&mut self, after: &[u8], grain: Grain, errno: Errno) -> Result<(), String> {
        self.story.open += 1;
        self.story.tell(&format!("lost: {errno}"));
        let found = loop {
            self.folder = self.place.open().map_err(|error| format!("{error:#}"))?;
            let opened = open(self.folder.as_fd(), OFlags::empty());
            let read = opened.and_then(|files| {
                (self.file, self.direct) = files;
                self.content()
            });
            match read {
                Ok(found) => break found,
                Err(Fault::Lost(errno)) => self.story.tell(&format!("lost again: {errno}")),
                Err(Fault::Wrong(what)) => return Err(what),
            }
        };
        let before = &self.model;
        // Had a first piece been taken, the call would have said how long it is.
        let nothing_done = errno == Errno::AGAIN && grain != Grain::Bytes;
        let fits = match grain {
            _ if nothing_done => found == *before,
            Grain::Whole => found == *before || found == *after,
            Grain::Pages { from } => found == *after || pieces(before, after, from).any(|piece| piece == found),
            Grain::Bytes => mixed(before, after, &found),
        };
        if !fits {
            let against = |what: &str, bytes: &[u8]| match same(what, 0, bytes, &found) {
                Err(Fault::Wrong(text)) => text,
                _ => format!("as {what}"),
            };
            return Err(format!(
                "after {errno} the file is neither as before nor as after:\n    {}\n    {}",
                against("before", before),
                against("after", after)
            ));
        }
        self.model = found;
        Ok(())
    }
}

impl Work for Data {
    fn step(&mut self) -> Result<(), String> {
        let op = self.draw();
        self.story.operation(&op);
        let (after, grain) = self.after(&op);
        match self.carry_out(&op, &after) {
            Ok(()) => {
                self.model = after;
                Ok(())
            }
            Err(Fault::Lost(errno)) if self.place.fails_over() => self.settle(&after, grain, errno),
            Err(Fault::Lost(errno)) => Err(format!("says {errno}")),
            Err(Fault::Wrong(what)) => Err(what),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        let model = self.model.clone();
        match self.verify(&model) {
            Ok(()) => Ok(()),
            Err(Fault::Lost(errno)) if self.place.fails_over() => self.settle(&model, Grain::Whole, errno),
            Err(fault) => Err(format!("{fault:?}")),
        }
    }

    fn story(self) -> Story {
        self.story
    }
}

/// The file as it is after none, one, two, ... pages of a write, the last left out.
fn pieces<'a>(before: &'a [u8], after: &'a [u8], from: usize) -> impl Iterator<Item = Vec<u8>> + 'a {
    let boundaries = (from / PAGE + 1..)
        .map(|page| page * PAGE)
        .take_while(|at| *at < after.len());
    std::iter::once(from).chain(boundaries).map(move |end| {
        let mut piece = before.to_vec();
        if end > from {
            piece.resize(before.len().max(end), 0);
            piece[from..end].copy_from_slice(&after[from..end]);
        }
        piece
    })
}

fn open_one(folder: BorrowedFd<'_>, how: OFlags) -> Result<OwnedFd, Fault> {
    let how = OFlags::RDWR | OFlags::CLOEXEC | how;
    openat(folder, NAME, how, Mode::from_raw_mode(0o600)).map_err(|errno| fault("open", errno))
}

/// Twice: through the page cache, and around it.
fn open(folder: BorrowedFd<'_>, how: OFlags) -> Result<(OwnedFd, OwnedFd), Fault> {
    Ok((open_one(folder, how)?, open_one(folder, how | OFlags::DIRECT)?))
}

fn read(file: &OwnedFd, buffer: &mut [u8], at: u64) -> Result<usize, Fault> {
    pread(file, buffer, at).map_err(|errno| fault("pread", errno))
}
