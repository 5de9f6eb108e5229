//! Classes and seals of inodes.

use super::scratch::{Scratch, Stop};
use crate::class::{Class, Close};
use crate::key;
use crate::op::{Refusal, Reply};
use crate::record::{ClassRoot, Inode};
use crate::types::{Ino, Time};

/// A new directory whose path the configuration names; everything else keeps what it has inherited.
pub(super) fn made(scratch: &mut Scratch<'_>, ino: Ino, inode: &mut Inode, class: Option<Class>) {
    if let Some(class) = class.filter(|_| inode.is_dir()) {
        give(scratch, ino, inode, class, false);
    }
}

fn give(scratch: &mut Scratch<'_>, ino: Ino, inode: &mut Inode, class: Class, by_hand: bool) {
    inode.class = class;
    if inode.is_dir() {
        inode.own_class = true;
        let root = ClassRoot {
            class,
            by_hand,
            since: scratch.now(),
        };
        scratch.put(key::class_root(ino), root.encode());
    }
}

/// Its class is its own no longer, or it has no name any more to be listed under.
pub(super) fn unmake(scratch: &mut Scratch<'_>, ino: Ino, inode: &mut Inode) {
    if std::mem::take(&mut inode.own_class) {
        scratch.delete(key::class_root(ino));
    }
}

pub(super) fn set(scratch: &mut Scratch<'_>, ino: Ino, class: Option<Class>) -> Result<Reply, Stop> {
    let mut inode = scratch.inode(ino)?;
    let before = inode.clone();
    match class {
        Some(class) if inode.own_class && inode.class == class => {}
        Some(class) if inode.nlink == 0 => inode.class = class,
        Some(class) => give(scratch, ino, &mut inode, class, true),
        None => {
            inode.class = inherited(scratch, ino, &inode)?;
            unmake(scratch, ino, &mut inode);
        }
    }
    if inode != before {
        inode.ctime = scratch.now();
        scratch.put_inode(ino, &inode);
    }
    Ok(Reply::Done { orphaned: None })
}

/// What the directory has in which it was made, or to which it was renamed last; the default, if that is gone.
fn inherited(scratch: &Scratch<'_>, ino: Ino, inode: &Inode) -> Result<Class, Stop> {
    if ino == Ino::ROOT || inode.nlink == 0 {
        return Ok(Class::Default);
    }
    match scratch.inode(inode.parent) {
        Ok(parent) => Ok(parent.class),
        Err(Stop::Refused(Refusal::NotFound)) => Ok(Class::Default),
        Err(stop) => Err(stop),
    }
}

/// Changes no time: a seal says something about the file and is no change of it.
pub(super) fn seal(
    scratch: &mut Scratch<'_>,
    ino: Ino,
    (size, ctime): (u64, Time),
    hash: [u8; 32],
) -> Result<Reply, Stop> {
    let mut inode = scratch.inode(ino)?;
    let same = inode.is_file() && inode.size == size && inode.ctime == ctime;
    if !same || inode.class.profile().close != Close::Sealed {
        return Ok(Reply::Sealed(false));
    }
    inode.seal = Some(hash);
    scratch.put_inode(ino, &inode);
    Ok(Reply::Sealed(true))
}
