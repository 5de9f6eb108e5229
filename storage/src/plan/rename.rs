//! Rename: moves an entry, over another one if need be, or exchanges two.
//!
//! What a reader of the directory sees in the meantime: a name that is there before and after keeps its cookie, so it
//! is shown once, also when another inode takes it over; an entry that gets a new name in the same directory keeps its
//! cookie, so it is never shown twice; entries that aren't named here aren't touched.

use super::names;
use super::scratch::{Scratch, Stop};
use crate::key;
use crate::op::{Refusal, Rename, Reply};
use crate::record::{Dirent, Inode};
use crate::types::Ino;
use bytes::Bytes;
use std::collections::BTreeSet;

/// A name in a directory.
type Place<'a> = (Ino, &'a Bytes);

pub(super) fn rename(scratch: &mut Scratch<'_>, from: Place<'_>, to: Place<'_>, how: Rename) -> Result<Reply, Stop> {
    names::check(from.1, Refusal::Invalid)?;
    names::check(
        to.1,
        if how == Rename::NoReplace {
            Refusal::Exists
        } else {
            Refusal::Invalid
        },
    )?;
    scratch.require([
        key::inode(from.0),
        key::inode(to.0),
        key::dirent(from.0, from.1),
        key::dirent(to.0, to.1),
    ])?;
    scratch.directory(from.0)?;
    scratch.live_directory(to.0)?;
    let source = scratch.entry(from.0, from.1)?.ok_or(Refusal::NotFound)?;
    let target = scratch.entry(to.0, to.1)?;
    match (how, target) {
        (Rename::NoReplace, Some(_)) => return Err(Refusal::Exists.into()),
        (Rename::Exchange, None) => return Err(Refusal::NotFound.into()),
        // Two names of one inode, or the same place twice: POSIX wants that nothing happens.
        (_, Some(target)) if target.ino == source.ino => return Ok(Reply::Done { orphaned: None }),
        _ => {}
    }
    scratch.require([
        key::inode(source.ino),
        key::inode(target.map_or(source.ino, |target| target.ino)),
    ])?;
    refuse_loops(
        scratch,
        from.0,
        to.0,
        &source,
        target.filter(|_| how == Rename::Exchange).as_ref(),
    )?;
    let orphaned = match target {
        Some(target) if how == Rename::Exchange => {
            exchange(scratch, from, to, &source, &target)?;
            None
        }
        _ => replace(scratch, from, to, &source, target.as_ref())?,
    };
    Ok(Reply::Done { orphaned })
}

/// No directory may come to lie below itself; in an exchange, neither of the two.
fn refuse_loops(
    scratch: &Scratch<'_>,
    from: Ino,
    to: Ino,
    source: &Dirent,
    exchanged: Option<&Dirent>,
) -> Result<(), Stop> {
    if from == to {
        return Ok(());
    }
    if source.kind == libc::S_IFDIR && lies_below(scratch, to, source.ino)? {
        return Err(Refusal::Invalid.into());
    }
    match exchanged {
        Some(target) if target.kind == libc::S_IFDIR && lies_below(scratch, from, target.ino)? => {
            Err(Refusal::Invalid.into())
        }
        _ => Ok(()),
    }
}

/// Whether `directory` is `above` or somewhere below it.
fn lies_below(scratch: &Scratch<'_>, mut directory: Ino, above: Ino) -> Result<bool, Stop> {
    let mut passed = BTreeSet::new();
    while directory != above {
        if directory == Ino::ROOT {
            return Ok(false);
        }
        // A damaged chain of parents could be a ring.
        if !passed.insert(directory) {
            return Err(Refusal::Damaged.into());
        }
        directory = parent(scratch, directory)?;
    }
    Ok(true)
}

fn parent(scratch: &Scratch<'_>, directory: Ino) -> Result<Ino, Stop> {
    let value = scratch.get(&key::inode(directory))?.ok_or(Refusal::Damaged)?;
    let inode = Inode::decode(&value)?;
    if inode.is_dir() {
        Ok(inode.parent)
    } else {
        Err(Refusal::Damaged.into())
    }
}

fn replace(
    scratch: &mut Scratch<'_>,
    from: Place<'_>,
    to: Place<'_>,
    source: &Dirent,
    target: Option<&Dirent>,
) -> Result<Option<Ino>, Stop> {
    let moved = scratch.target(source)?;
    let mut orphaned = None;
    let mut freed = None;
    if let Some(target) = target {
        let replaced = scratch.target(target)?;
        match (moved.is_dir(), replaced.is_dir()) {
            (true, false) => return Err(Refusal::NotDirectory.into()),
            (false, true) => return Err(Refusal::IsDirectory.into()),
            (true, true) if replaced.entries > 0 => return Err(Refusal::NotEmpty.into()),
            _ => {}
        }
        names::remove(scratch, to.0, to.1, target)?;
        orphaned = names::lose_name(scratch, target.ino, replaced)?;
        freed = Some(target.cookie);
    } else if from.0 == to.0 {
        freed = Some(source.cookie);
    }
    names::remove(scratch, from.0, from.1, source)?;
    let cookie = match freed {
        Some(cookie) => cookie,
        None => scratch.directory(to.0)?.next_cookie,
    };
    names::add(scratch, to.0, to.1, (source.ino, source.kind), cookie)?;
    settle(scratch, source.ino, moved, to.0);
    Ok(orphaned)
}

fn exchange(
    scratch: &mut Scratch<'_>,
    from: Place<'_>,
    to: Place<'_>,
    source: &Dirent,
    target: &Dirent,
) -> Result<(), Stop> {
    let (one, other) = (scratch.target(source)?, scratch.target(target)?);
    names::remove(scratch, from.0, from.1, source)?;
    names::remove(scratch, to.0, to.1, target)?;
    names::add(scratch, to.0, to.1, (source.ino, source.kind), target.cookie)?;
    names::add(scratch, from.0, from.1, (target.ino, target.kind), source.cookie)?;
    settle(scratch, source.ino, one, to.0);
    settle(scratch, target.ino, other, from.0);
    Ok(())
}

/// An inode in its new place.
fn settle(scratch: &mut Scratch<'_>, ino: Ino, mut inode: Inode, parent: Ino) {
    inode.parent = parent;
    inode.ctime = scratch.now();
    scratch.put_inode(ino, &inode);
}
