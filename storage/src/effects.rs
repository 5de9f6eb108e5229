//! What one log entry does, already decided: metadata to put and delete, bytes to write.
//!
//! Followers decide nothing. The layout of an entry's data (docs/formats.md, *Log entry*), little-endian:
//! version u8, planning term u64, then effects, each a tag u8 and its fields.

use crate::types::{Ino, LogIndex, MAX_OFFSET, Term};
use bytes::{Buf, BufMut, Bytes, BytesMut};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// Bytes of a file, exactly those that were written.
    Write {
        ino: Ino,
        offset: u64,
        data: Bytes,
    },
    /// All from `size` on is gone: reads as zeros and takes no space.
    Truncate {
        ino: Ino,
        size: u64,
    },
    /// Reads as zeros and takes no space.
    Zero {
        ino: Ino,
        offset: u64,
        len: u64,
    },
    /// The inode is gone for good: its data, checksums and attributes. Its `i` and `o` keys are deleted by effects of their own.
    Purge {
        ino: Ino,
    },
    /// Each replica hashes this part of its state here and tells the node that asked.
    Check {
        id: u64,
        part: CheckPart,
    },
}

/// A part of the replicated state that is compared at one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckPart {
    /// Metadata keys from `from` (included) on, at most `limit` keys, `b` keys left out; the next part begins where this one ended. With a
    /// limit of 0 the digest of all keys is compared instead, `b` keys included.
    Meta { from: Bytes, limit: u32 },
    /// Data of a file, read from disk.
    Data { ino: Ino, offset: u64, len: u64 },
}

/// An entry's data that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("log entry {index}: {what}")]
pub struct BadEntry {
    pub index: LogIndex,
    pub what: String,
}

/// Data of a log entry: effects, and the term in which they were planned. Apply refuses a mismatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub term: Term,
    pub effects: Vec<Effect>,
}

const VERSION: u8 = 1;
const CHECK: u8 = 7;
/// Version and term.
const HEAD: usize = 9;

/// Whether an entry's data asks for a comparison of the replicas. Such an entry has no other effect.
pub fn is_check(data: &[u8]) -> bool {
    data.get(HEAD) == Some(&CHECK)
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("effects are far below 4 GiB"));
    out.put_slice(bytes);
}

impl Entry {
    pub fn encode(&self) -> Bytes {
        let size: usize = self.effects.iter().map(Effect::size_hint).sum();
        let mut out = BytesMut::with_capacity(HEAD + size);
        out.put_u8(VERSION);
        out.put_u64_le(self.term.0);
        for effect in &self.effects {
            effect.encode(&mut out);
        }
        out.freeze()
    }

    /// Without copying: what the effects carry are slices of `data`.
    pub fn decode(index: LogIndex, data: &Bytes) -> Result<Self, BadEntry> {
        let bad = |what: &str| BadEntry {
            index,
            what: what.into(),
        };
        let mut from = data.clone();
        if from.len() < HEAD {
            return Err(bad("shorter than its head"));
        }
        let version = from.get_u8();
        if version != VERSION {
            return Err(BadEntry {
                index,
                what: format!("has version {version}, this software reads {VERSION}"),
            });
        }
        let term = Term(from.get_u64_le());
        let mut effects = Vec::new();
        while from.has_remaining() {
            effects.push(Effect::decode(&mut from).map_err(|what| bad(&what))?);
        }
        Ok(Self { term, effects })
    }
}

impl Effect {
    fn size_hint(&self) -> usize {
        match self {
            Self::Put { key, value } => 9 + key.len() + value.len(),
            Self::Delete { key } => 5 + key.len(),
            Self::Write { data, .. } => 21 + data.len(),
            Self::Truncate { .. } | Self::Zero { .. } | Self::Purge { .. } | Self::Check { .. } => 64,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Put { key, value } => {
                out.put_u8(1);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Self::Delete { key } => {
                out.put_u8(2);
                put_bytes(out, key);
            }
            Self::Write { ino, offset, data } => {
                out.put_u8(3);
                out.put_u64_le(ino.0);
                out.put_u64_le(*offset);
                put_bytes(out, data);
            }
            Self::Truncate { ino, size } => {
                out.put_u8(4);
                out.put_u64_le(ino.0);
                out.put_u64_le(*size);
            }
            Self::Zero { ino, offset, len } => {
                out.put_u8(5);
                out.put_u64_le(ino.0);
                out.put_u64_le(*offset);
                out.put_u64_le(*len);
            }
            Self::Purge { ino } => {
                out.put_u8(6);
                out.put_u64_le(ino.0);
            }
            Self::Check { id, part } => {
                out.put_u8(CHECK);
                out.put_u64_le(*id);
                match part {
                    CheckPart::Meta { from, limit } => {
                        out.put_u8(1);
                        put_bytes(out, from);
                        out.put_u32_le(*limit);
                    }
                    CheckPart::Data { ino, offset, len } => {
                        out.put_u8(2);
                        out.put_u64_le(ino.0);
                        out.put_u64_le(*offset);
                        out.put_u64_le(*len);
                    }
                }
            }
        }
    }

    fn decode(from: &mut Bytes) -> Result<Self, String> {
        let mut from = Cut(from);
        Ok(match from.u8()? {
            1 => Self::Put {
                key: from.bytes()?,
                value: from.bytes()?,
            },
            2 => Self::Delete { key: from.bytes()? },
            3 => {
                let (ino, offset, data) = (Ino(from.u64()?), from.u64()?, from.bytes()?);
                within_a_file(offset, data.len() as u64)?;
                Self::Write { ino, offset, data }
            }
            4 => {
                let (ino, size) = (Ino(from.u64()?), from.u64()?);
                within_a_file(size, 0)?;
                Self::Truncate { ino, size }
            }
            5 => {
                let (ino, offset, len) = (Ino(from.u64()?), from.u64()?, from.u64()?);
                within_a_file(offset, len)?;
                Self::Zero { ino, offset, len }
            }
            6 => Self::Purge { ino: Ino(from.u64()?) },
            CHECK => {
                let id = from.u64()?;
                let part = match from.u8()? {
                    1 => CheckPart::Meta {
                        from: from.bytes()?,
                        limit: from.u32()?,
                    },
                    2 => CheckPart::Data {
                        ino: Ino(from.u64()?),
                        offset: from.u64()?,
                        len: from.u64()?,
                    },
                    other => return Err(format!("check of unknown kind {other}")),
                };
                Self::Check { id, part }
            }
            other => {
                return Err(format!(
                    "effect of unknown kind {other}: is this node's software older than its peers'?"
                ));
            }
        })
    }
}

/// Apply relies on it: rounded to blocks, nothing overflows.
fn within_a_file(offset: u64, len: u64) -> Result<(), String> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_OFFSET => Ok(()),
        _ => Err(format!("{len} bytes at {offset}, where no file reaches")),
    }
}

/// Takes fields off the front, refusing to run past the end.
struct Cut<'a>(&'a mut Bytes);

impl Cut<'_> {
    fn need(&self, len: usize) -> Result<(), String> {
        if self.0.remaining() < len {
            Err("ends inside an effect".into())
        } else {
            Ok(())
        }
    }
    fn u8(&mut self) -> Result<u8, String> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }
    fn u32(&mut self) -> Result<u32, String> {
        self.need(4)?;
        Ok(self.0.get_u32_le())
    }
    fn u64(&mut self) -> Result<u64, String> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }
    fn bytes(&mut self) -> Result<Bytes, String> {
        let len = self.u32()? as usize;
        self.need(len)?;
        Ok(self.0.split_to(len))
    }
}
