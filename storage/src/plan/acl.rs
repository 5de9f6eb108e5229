//! POSIX ACLs: kept as extended attributes in the kernel's own format, in step with the mode as ext4 does it
//! (`acl(5)`; the kernel's `posix_acl.c`). The kernel checks them; what they make of a mode is decided here.

use super::scratch::{Scratch, Stop};
use super::xattr;
use crate::op::{Caller, Refusal, Reply};
use crate::record::{Inode, Xattrs};
use crate::types::Ino;
use bytes::{Buf, BufMut, Bytes, BytesMut};

pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// A directory's: what is made in it inherits this.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY: usize = 8;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    pub(crate) fn decode(value: &[u8]) -> Result<Self, Refusal> {
        let mut from = value;
        if from.len() < 4 || from.get_u32_le() != VERSION || !from.len().is_multiple_of(ENTRY) {
            return Err(Refusal::Invalid);
        }
        let mut entries = Vec::with_capacity(from.len() / ENTRY);
        while from.has_remaining() {
            entries.push(Entry {
                tag: from.get_u16_le(),
                permissions: from.get_u16_le(),
                id: from.get_u32_le(),
            });
        }
        let acl = Self(entries);
        if acl.is_valid() { Ok(acl) } else { Err(Refusal::Invalid) }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let known = [OWNER, USER, OWNING_GROUP, GROUP, MASK, OTHERS].map(count);
        let [owner, users, owning_group, groups, masks, others] = known;
        known.iter().sum::<usize>() == self.0.len()
            && (owner, owning_group, others) == (1, 1, 1)
            && (masks == 1 || (masks == 0 && users + groups == 0))
            && self.0.iter().all(|entry| entry.permissions <= 7)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(4 + self.0.len() * ENTRY);
        out.put_u32_le(VERSION);
        for entry in &self.0 {
            out.put_u16_le(entry.tag);
            out.put_u16_le(entry.permissions);
            out.put_u32_le(entry.id);
        }
        out.freeze()
    }

    /// Says no more than a mode does.
    fn is_a_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The entries that stand for the mode's three digits: the group's is the mask's, where there is one.
    fn digits(&mut self) -> [&mut u16; 3] {
        let group = if self.is_a_mode() { OWNING_GROUP } else { MASK };
        let mut found = [None, None, None];
        for entry in &mut self.0 {
            let at = match entry.tag {
                OWNER => 0,
                OTHERS => 2,
                tag if tag == group => 1,
                _ => continue,
            };
            found[at] = Some(&mut entry.permissions);
        }
        found.map(|digit| digit.expect("a valid list has all three"))
    }

    fn mode(&mut self) -> u32 {
        let [owner, group, others] = self.digits().map(|digit| u32::from(*digit));
        owner << 6 | group << 3 | others
    }

    fn set_mode(&mut self, mode: u32) {
        for (digit, shift) in self.digits().into_iter().zip([6, 3, 0]) {
            *digit = (mode >> shift & 7) as u16;
        }
    }
}

fn set_permissions(inode: &mut Inode, permissions: u32) {
    inode.mode = inode.mode & !0o777 | permissions;
}

fn kept(all: &Xattrs, name: &[u8]) -> Result<Option<Acl>, Stop> {
    // What is stored was valid when it was set.
    let decode = |value: &Bytes| Acl::decode(value).map_err(|_| Refusal::Damaged);
    Ok(all.0.get(name).map(decode).transpose()?)
}

fn keep(all: &mut Xattrs, name: &'static [u8], acl: &Acl) {
    all.0.insert(Bytes::from_static(name), acl.encode());
}

pub(super) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

/// Sets one of the two; an access list that says no more than a mode becomes one.
pub(super) fn set(
    scratch: &mut Scratch<'_>,
    ino: Ino,
    name: &Bytes,
    value: &Bytes,
    caller: Caller,
) -> Result<Reply, Stop> {
    let mut acl = Acl::decode(value)?;
    let (mut inode, mut all) = xattr::load(scratch, ino)?;
    if inode.is_symlink() {
        return Err(Refusal::NotSupported.into());
    }
    if name == DEFAULT {
        if !inode.is_dir() {
            return Err(Refusal::NotPermitted.into());
        }
        keep(&mut all, DEFAULT, &acl);
    } else {
        set_permissions(&mut inode, acl.mode());
        // The request names one group of the caller's; one of another group keeps the bit only as root.
        if caller.uid != 0 && caller.gid != inode.gid {
            inode.mode &= !libc::S_ISGID;
        }
        if acl.is_a_mode() {
            all.0.remove(ACCESS);
        } else {
            keep(&mut all, ACCESS, &acl);
        }
    }
    xattr::store(scratch, ino, inode, &all)?;
    Ok(xattr::DONE)
}

/// The mode stays as the list has made it. One that isn't there is no error.
pub(super) fn remove(scratch: &mut Scratch<'_>, ino: Ino, name: &Bytes) -> Result<Reply, Stop> {
    let (inode, mut all) = xattr::load(scratch, ino)?;
    if all.0.remove(name).is_some() {
        xattr::store(scratch, ino, inode, &all)?;
    }
    Ok(xattr::DONE)
}

/// After a chmod the access list says the same as the mode.
pub(super) fn follow_mode(scratch: &mut Scratch<'_>, ino: Ino, inode: &Inode) -> Result<(), Stop> {
    let mut all = scratch.xattrs(ino)?;
    if let Some(mut acl) = kept(&all, ACCESS)? {
        acl.set_mode(inode.mode);
        keep(&mut all, ACCESS, &acl);
        scratch.put_xattrs(ino, &all);
    }
    Ok(())
}

/// What a new inode inherits from its directory's default list, or else loses by the caller's umask. Returns the
/// attributes that it begins with.
pub(super) fn inherit(scratch: &Scratch<'_>, parent: Ino, inode: &mut Inode, umask: u32) -> Result<Xattrs, Stop> {
    let mut all = Xattrs::default();
    if inode.is_symlink() {
        return Ok(all);
    }
    let Some(default) = kept(&scratch.xattrs(parent)?, DEFAULT)? else {
        inode.mode &= !(umask & 0o777);
        return Ok(all);
    };
    let mut access = default.clone();
    access.set_mode(access.clone().mode() & inode.mode);
    set_permissions(inode, access.mode());
    if !access.is_a_mode() {
        keep(&mut all, ACCESS, &access);
    }
    if inode.is_dir() {
        keep(&mut all, DEFAULT, &default);
    }
    Ok(all)
}
