//! Values of the metadata store: fixed layouts, little-endian, each with a version byte first.

use crate::class::Class;
use crate::types::{Ino, Time};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A value that doesn't have the layout that its key promises.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a {what} record of {len} bytes can't be read")]
pub struct BadRecord {
    pub what: &'static str,
    pub len: usize,
}

fn bad(what: &'static str, value: &[u8]) -> BadRecord {
    BadRecord { what, len: value.len() }
}

/// What `stat` shows, and what the planner needs to decide without scanning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Type and permission bits as in `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// For a directory 2 + its sub-directories.
    pub nlink: u32,
    /// Bytes; of a directory, see `st_size` in the fuse-mount; of a symbolic link the target's length.
    pub size: u64,
    pub rdev: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    /// Directories: the directory that holds it (the root holds itself). Others: the directory of its first name, for messages.
    pub parent: Ino,
    /// Directories: number of entries without `.` and `..`.
    pub entries: u64,
    /// Directories: cookie that the next new entry gets; the first is 3 (after `.` and `..`).
    pub next_cookie: u64,
    pub class: Class,
    /// Directories: the class was given to this one; else it was inherited.
    pub own_class: bool,
    /// blake3 of a file's content, kept since it was closed; gone with the next change of a byte or of the size.
    pub seal: Option<[u8; 32]>,
    /// Symbolic links: the target.
    pub target: Bytes,
}

const OWN_CLASS: u8 = 1;
const SEALED: u8 = 2;

pub const FIRST_COOKIE: u64 = 3;

fn put_time(out: &mut BytesMut, time: Time) {
    out.put_i64_le(time.secs);
    out.put_u32_le(time.nanos);
}

fn get_time(from: &mut Bytes) -> Time {
    Time {
        secs: from.get_i64_le(),
        nanos: from.get_u32_le(),
    }
}

impl Inode {
    const FIXED: usize = 1 + 4 * 5 + 8 * 4 + 12 * 4 + 2;
    const VERSION: u8 = 2;
    /// Version 1, of stores of format 1, had neither a class nor flags.
    const FIXED_1: usize = Self::FIXED - 2;

    pub fn encode(&self) -> Bytes {
        let seal = self.seal.as_ref().map_or(&[][..], |seal| seal);
        let mut out = BytesMut::with_capacity(Self::FIXED + seal.len() + self.target.len());
        out.put_u8(Self::VERSION);
        for value in [self.mode, self.uid, self.gid, self.nlink, self.rdev] {
            out.put_u32_le(value);
        }
        for value in [self.size, self.parent.0, self.entries, self.next_cookie] {
            out.put_u64_le(value);
        }
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            put_time(&mut out, time);
        }
        out.put_u8(self.class.number());
        out.put_u8(if self.own_class { OWN_CLASS } else { 0 } | if self.seal.is_some() { SEALED } else { 0 });
        out.put_slice(seal);
        out.put_slice(&self.target);
        out.freeze()
    }

    pub fn decode(value: &Bytes) -> Result<Self, BadRecord> {
        let mut from = value.clone();
        let version = from.first().copied().unwrap_or(0);
        let fixed = match version {
            1 => Self::FIXED_1,
            Self::VERSION => Self::FIXED,
            _ => return Err(bad("inode", value)),
        };
        if from.len() < fixed {
            return Err(bad("inode", value));
        }
        from.advance(1);
        let [mode, uid, gid, nlink, rdev] = std::array::from_fn(|_| from.get_u32_le());
        let [size, parent, entries, next_cookie] = std::array::from_fn(|_| from.get_u64_le());
        let [atime, mtime, ctime, btime] = std::array::from_fn(|_| get_time(&mut from));
        let (class, flags) = match version {
            1 => (Class::Default, 0),
            _ => {
                let class = Class::numbered(from.get_u8());
                (class.ok_or_else(|| bad("inode", value))?, from.get_u8())
            }
        };
        let seal = if flags & SEALED == 0 {
            None
        } else if from.len() < 32 {
            return Err(bad("inode", value));
        } else {
            let mut seal = [0; 32];
            from.copy_to_slice(&mut seal);
            Some(seal)
        };
        Ok(Self {
            mode,
            uid,
            gid,
            nlink,
            size,
            rdev,
            atime,
            mtime,
            ctime,
            btime,
            parent: Ino(parent),
            entries,
            next_cookie,
            class,
            own_class: flags & OWN_CLASS != 0,
            seal,
            target: from,
        })
    }

    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
    pub fn is_symlink(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent {
    pub ino: Ino,
    pub cookie: u64,
    /// Type bits of `st_mode` (S_IFDIR, ...).
    pub kind: u32,
}

impl Dirent {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(21);
        out.put_u8(1);
        out.put_u64_le(self.ino.0);
        out.put_u64_le(self.cookie);
        out.put_u32_le(self.kind);
        out.freeze()
    }

    pub fn decode(value: &[u8]) -> Result<Self, BadRecord> {
        let mut from = value;
        if from.len() != 21 || from.get_u8() != 1 {
            return Err(bad("directory entry", value));
        }
        Ok(Self {
            ino: Ino(from.get_u64_le()),
            cookie: from.get_u64_le(),
            kind: from.get_u32_le(),
        })
    }
}

/// An entry in the order of its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub ino: Ino,
    pub kind: u32,
    pub name: Bytes,
}

impl Child {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(13 + self.name.len());
        out.put_u8(1);
        out.put_u64_le(self.ino.0);
        out.put_u32_le(self.kind);
        out.put_slice(&self.name);
        out.freeze()
    }

    pub fn decode(value: &Bytes) -> Result<Self, BadRecord> {
        let mut from = value.clone();
        if from.len() < 13 || from.get_u8() != 1 {
            return Err(bad("child", value));
        }
        Ok(Self {
            ino: Ino(from.get_u64_le()),
            kind: from.get_u32_le(),
            name: from,
        })
    }
}

/// A directory that was given a class, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassRoot {
    pub class: Class,
    /// Through `setfattr` or `holdfast classes set`; else the configuration named its path when it was made.
    pub by_hand: bool,
    pub since: Time,
}

impl ClassRoot {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(15);
        out.put_u8(1);
        out.put_u8(self.class.number());
        out.put_u8(u8::from(self.by_hand));
        put_time(&mut out, self.since);
        out.freeze()
    }

    pub fn decode(value: &Bytes) -> Result<Self, BadRecord> {
        let mut from = value.clone();
        if from.len() != 15 || from.get_u8() != 1 {
            return Err(bad("class", value));
        }
        Ok(Self {
            class: Class::numbered(from.get_u8()).ok_or_else(|| bad("class", value))?,
            by_hand: from.get_u8() != 0,
            since: get_time(&mut from),
        })
    }
}

/// All extended attributes of an inode, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattrs(pub std::collections::BTreeMap<Bytes, Bytes>);

impl Xattrs {
    /// Most bytes of names and values that one inode may have.
    pub const MAX: usize = 64 << 10;

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(1);
        for (name, value) in &self.0 {
            out.put_u16_le(u16::try_from(name.len()).expect("names are at most 255 bytes"));
            out.put_u32_le(u32::try_from(value.len()).expect("values are at most 64 KiB"));
            out.put_slice(name);
            out.put_slice(value);
        }
        out.freeze()
    }

    pub fn decode(value: &Bytes) -> Result<Self, BadRecord> {
        let mut from = value.clone();
        if from.is_empty() || from.get_u8() != 1 {
            return Err(bad("xattr", value));
        }
        let mut all = std::collections::BTreeMap::new();
        while from.has_remaining() {
            if from.remaining() < 6 {
                return Err(bad("xattr", value));
            }
            let (name, len) = (from.get_u16_le() as usize, from.get_u32_le() as usize);
            if from.remaining() < name + len {
                return Err(bad("xattr", value));
            }
            let name = from.split_to(name);
            all.insert(name, from.split_to(len));
        }
        Ok(Self(all))
    }

    /// Bytes that count against `MAX`.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
