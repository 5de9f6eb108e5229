//! Keys of the metadata store. Their byte order is the order of scans, so numbers are big-endian.
//!
//! | key | value |
//! |---|---|
//! | `i` ino | `record::Inode` |
//! | `d` parent name | `record::Dirent`: the entry of that name |
//! | `c` parent cookie | `record::Child`: the same entry in the order of `readdir` |
//! | `x` ino | `record::Xattrs`: all extended attributes of an inode |
//! | `o` ino | empty: an inode without names that may still be open |
//! | `p` root ino | `record::ClassRoot`: a directory that was given a class. All under the root's number, to be listed at once |
//! | `b` ino group | checksums of 128 blocks of 4 KiB (`data::sums`); written by apply alone, never planned |
//! | `m` name | the store's own values: `m` + `next-ino`, ... |
//! | `z` name | what one replica alone keeps (`apply::APPLIED`); never planned, compared or copied |

use crate::types::Ino;
use bytes::{BufMut, Bytes, BytesMut};

pub type Key = Bytes;

fn with(prefix: u8, ino: Ino, tail: &[u8]) -> Key {
    let mut key = BytesMut::with_capacity(9 + tail.len());
    key.put_u8(prefix);
    key.put_u64(ino.0);
    key.put_slice(tail);
    key.freeze()
}

pub fn inode(ino: Ino) -> Key {
    with(b'i', ino, &[])
}
pub fn dirent(parent: Ino, name: &[u8]) -> Key {
    with(b'd', parent, name)
}
pub fn child(parent: Ino, cookie: u64) -> Key {
    with(b'c', parent, &cookie.to_be_bytes())
}
/// First part of all `child` keys of a directory.
pub fn children(parent: Ino) -> Key {
    with(b'c', parent, &[])
}
pub fn xattrs(ino: Ino) -> Key {
    with(b'x', ino, &[])
}
pub fn orphan(ino: Ino) -> Key {
    with(b'o', ino, &[])
}
/// Prefix of all orphans.
pub const ORPHANS: &[u8] = b"o";
pub fn class_root(ino: Ino) -> Key {
    with(b'p', Ino::ROOT, &ino.0.to_be_bytes())
}
/// Prefix of all directories that were given a class.
pub fn class_roots() -> Key {
    with(b'p', Ino::ROOT, &[])
}
pub fn sums(ino: Ino, group: u64) -> Key {
    with(b'b', ino, &group.to_be_bytes())
}
pub fn own(name: &str) -> Key {
    let mut key = BytesMut::with_capacity(1 + name.len());
    key.put_u8(b'm');
    key.put_slice(name.as_bytes());
    key.freeze()
}

/// The inode that a key belongs to (for `d` and `c` the directory); none for the store's own values.
pub fn owner(key: &[u8]) -> Option<Ino> {
    if key.len() < 9 || key[0] == b'm' {
        return None;
    }
    Some(Ino(u64::from_be_bytes(key[1..9].try_into().expect("eight bytes"))))
}

/// The number at the end of a `c`, `p` or `b` key: cookie, inode or group.
pub fn tail_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

/// Value: a random number (u64, little-endian), there once the replicas were recovered from one of them alone.
pub const EPOCH: &str = "epoch";
/// Value: the number of the next new inode (u64, little-endian).
pub const NEXT_INO: &str = "next-ino";
