//! The planner: what an operation changes, decided from a view of the metadata. Pure and serial.
//!
//! It does no I/O, asks no clock and draws no random number. What it decides is what ext4 does, as far as the kernel
//! leaves it to a FUSE file system with `default_permissions`: the kernel has checked permissions, sticky bits and
//! group membership for S_ISGID. Checksums (`b` keys) are never planned: apply makes them from the bytes.

pub mod acl;
mod attr;
mod class;
mod data;
mod names;
mod rename;
mod scratch;
mod xattr;

use crate::class::Class;
use crate::effects::Effect;
use crate::key::{self, Key};
use crate::op::{Op, Refusal, Reply};
use crate::record::{FIRST_COOKIE, Inode};
use crate::types::{Ino, Time};
use crate::view::View;
use bytes::Bytes;
use scratch::{Scratch, Stop};

/// `st_size` of every directory; what it takes on disk says nothing to an application.
pub const DIRECTORY_SIZE: u64 = 4096;

/// Most names of one inode that isn't a directory, as in ext4. Sub-directories have no limit.
pub const MAX_LINKS: u32 = 65_000;

/// Longest target of a symbolic link: a path of the kernel with its closing NUL is at most 4096 bytes.
pub const MAX_TARGET: usize = 4095;

/// What becomes of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Metadata in the order of its keys, then data in the order of the operation. Empty if nothing changes.
    Do {
        effects: Vec<Effect>,
        reply: Reply,
        /// The strictest of the inodes that change; none if none does.
        class: Option<Class>,
    },
    Refused(Refusal),
    /// Bring these into memory and ask again. Not sorted, none twice.
    Need(Vec<Key>),
}

/// Decides `op` on `view` at the time `now`. The same arguments give the same result.
pub fn plan(view: &impl View, now: Time, op: &Op) -> Planned {
    let mut scratch = Scratch::new(view, now);
    match decide(&mut scratch, op) {
        Ok(reply) => Planned::Do {
            class: scratch.class(),
            effects: scratch.into_effects(),
            reply,
        },
        Err(Stop::Refused(refusal)) => Planned::Refused(refusal),
        Err(Stop::Need(keys)) => Planned::Need(keys),
    }
}

fn decide(scratch: &mut Scratch<'_>, op: &Op) -> Result<Reply, Stop> {
    match op {
        Op::Create {
            parent,
            name,
            mode,
            rdev,
            target,
            class,
            caller,
        } => names::create(scratch, (*parent, name), *mode, *rdev, target, *class, *caller),
        Op::Link { ino, parent, name } => names::link(scratch, *ino, *parent, name),
        Op::Unlink {
            parent,
            name,
            caller: _,
        } => names::unlink(scratch, *parent, name),
        Op::Rmdir {
            parent,
            name,
            caller: _,
        } => names::rmdir(scratch, *parent, name),
        Op::Rename {
            from,
            from_name,
            to,
            to_name,
            how,
            caller: _,
        } => rename::rename(scratch, (*from, from_name), (*to, to_name), *how),
        Op::SetAttr { ino, set } => attr::set(scratch, *ino, set),
        Op::Write {
            ino,
            offset,
            data,
            clear_setid,
        } => data::write(scratch, *ino, *offset, data, *clear_setid),
        Op::Fallocate { ino, offset, len, how } => data::fallocate(scratch, *ino, *offset, *len, *how),
        Op::SetXattr {
            ino,
            name,
            value,
            how,
            caller,
        } => xattr::set(scratch, *ino, name, value, *how, *caller),
        Op::RemoveXattr { ino, name } => xattr::remove(scratch, *ino, name),
        Op::SetClass { ino, class } => class::set(scratch, *ino, *class),
        Op::Seal { ino, size, ctime, hash } => class::seal(scratch, *ino, (*size, *ctime), *hash),
        Op::Reap { ino } => names::reap(scratch, *ino),
    }
}

/// What formatting a store puts: the root directory, mode 0755, of 0:0.
pub fn root(now: Time) -> Vec<Effect> {
    let inode = Inode {
        mode: libc::S_IFDIR | 0o755,
        uid: 0,
        gid: 0,
        nlink: 2,
        size: DIRECTORY_SIZE,
        rdev: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        parent: Ino::ROOT,
        entries: 0,
        next_cookie: FIRST_COOKIE,
        class: Class::Default,
        own_class: false,
        seal: None,
        target: Bytes::new(),
    };
    vec![Effect::Put {
        key: key::inode(Ino::ROOT),
        value: inode.encode(),
    }]
}
