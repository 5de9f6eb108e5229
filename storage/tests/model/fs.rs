//! The model: nodes, directories as maps of names, and counts that are counted and never kept.

use super::sparse::Sparse;
use super::{Facts, Tree};
use holdfast_storage::class::{Class, Close};
use holdfast_storage::op::{Caller, Fallocate, Op, Refusal, Rename, SetAttr, SetTime, SetXattr};
use holdfast_storage::types::{MAX_FILE, MAX_WRITE, Time};
use std::collections::BTreeMap;

type Name = Vec<u8>;
type Outcome = Result<Answer, Refusal>;

/// What the application is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The inode that create, link and setattr show.
    pub shown: Option<Facts>,
    pub orphaned: Option<u64>,
    pub written: Option<usize>,
    pub sealed: Option<bool>,
}

#[derive(Clone, Debug)]
enum What {
    File(Sparse, u64),
    Directory(BTreeMap<Name, u64>),
    Symlink(Vec<u8>),
    /// Type bits and device.
    Special(u32, u32),
}

#[derive(Clone, Debug)]
struct Node {
    what: What,
    permissions: u32,
    uid: u32,
    gid: u32,
    atime: Time,
    mtime: Time,
    ctime: Time,
    btime: Time,
    xattrs: BTreeMap<Name, Vec<u8>>,
    class: Class,
    own_class: bool,
    seal: Option<[u8; 32]>,
    /// Where it was made, or renamed to last; further names don't count.
    home: u64,
}

#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

impl Node {
    fn new(what: What, permissions: u32, (uid, gid): (u32, u32), now: Time) -> Self {
        let (atime, mtime, ctime, btime) = (now, now, now, now);
        Self {
            what,
            permissions,
            uid,
            gid,
            atime,
            mtime,
            ctime,
            btime,
            xattrs: BTreeMap::new(),
            class: Class::Default,
            own_class: false,
            seal: None,
            home: 0,
        }
    }

    fn kind(&self) -> u32 {
        match &self.what {
            What::File(..) => libc::S_IFREG,
            What::Directory(_) => libc::S_IFDIR,
            What::Symlink(_) => libc::S_IFLNK,
            What::Special(kind, _) => *kind,
        }
    }

    fn is_dir(&self) -> bool {
        matches!(self.what, What::Directory(_))
    }

    fn lose_setid(&mut self) {
        if !self.is_dir() {
            self.permissions &= !0o4000;
            if self.permissions & 0o010 != 0 {
                self.permissions &= !0o2000;
            }
        }
    }

    fn modified(&mut self, now: Time) {
        self.seal = None;
        self.mtime = now;
        self.ctime = now;
    }
}

/// The shape that the kernel lets through.
fn proper(name: &[u8], dots: Refusal) -> Result<(), Refusal> {
    if name == b"." || name == b".." {
        return Err(dots);
    }
    if name.len() > 255 {
        return Err(Refusal::NameTooLong);
    }
    if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(Refusal::Invalid);
    }
    Ok(())
}

impl Model {
    pub fn new(now: Time) -> Self {
        let root = Node::new(What::Directory(BTreeMap::new()), 0o755, (0, 0), now);
        Self {
            nodes: BTreeMap::from([(1, root)]),
            last: 1,
        }
    }

    pub fn inodes(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub fn directories(&self) -> Vec<u64> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.is_dir())
            .map(|(ino, _)| *ino)
            .collect()
    }

    pub fn orphans(&self) -> Vec<u64> {
        self.nodes.keys().copied().filter(|ino| self.names(*ino) == 0).collect()
    }

    /// How many names lead to an inode; the root has one of its own.
    fn names(&self, ino: u64) -> usize {
        let all = self.nodes.values().filter_map(|node| match &node.what {
            What::Directory(entries) => Some(entries.values().filter(|target| **target == ino).count()),
            _ => None,
        });
        usize::from(ino == 1) + all.sum::<usize>()
    }

    pub fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        self.walk(1, Vec::new(), &mut tree);
        tree.orphans = self.orphans().into_iter().map(|ino| (ino, self.facts(ino))).collect();
        tree
    }

    fn walk(&self, ino: u64, path: Vec<u8>, tree: &mut Tree) {
        if let What::Directory(entries) = &self.nodes[&ino].what {
            for (name, child) in entries {
                self.walk(*child, [&path, b"/".as_slice(), name].concat(), tree);
            }
        }
        tree.paths.insert(path, self.facts(ino));
    }

    fn facts(&self, ino: u64) -> Facts {
        let node = &self.nodes[&ino];
        let names = u32::try_from(self.names(ino)).expect("few names");
        let mut facts = Facts {
            ino,
            mode: node.kind() | node.permissions,
            uid: node.uid,
            gid: node.gid,
            nlink: names,
            size: 0,
            rdev: 0,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
            btime: node.btime,
            content: BTreeMap::new(),
            target: Vec::new(),
            xattrs: node.xattrs.clone(),
            class: node.class,
            own_class: node.own_class && names > 0,
            seal: node.seal,
        };
        match &node.what {
            What::File(bytes, size) => (facts.content, facts.size) = (bytes.blocks(), *size),
            What::Directory(entries) => {
                let below = entries.values().filter(|child| self.nodes[child].is_dir()).count();
                facts.size = 4096;
                facts.nlink = if names == 0 {
                    0
                } else {
                    2 + u32::try_from(below).expect("few directories")
                };
            }
            What::Symlink(target) => (facts.target, facts.size) = (target.clone(), target.len() as u64),
            What::Special(_, rdev) => facts.rdev = *rdev,
        }
        facts
    }

    pub fn apply(&mut self, now: Time, op: &Op) -> Outcome {
        match op {
            Op::Create {
                parent,
                name,
                mode,
                rdev,
                target,
                class,
                caller,
            } => self.create(now, parent.0, name, (*mode, *rdev, target), *class, *caller),
            Op::Link { ino, parent, name } => self.link(now, ino.0, parent.0, name),
            Op::Unlink { parent, name, .. } => self.unlink(now, parent.0, name),
            Op::Rmdir { parent, name, .. } => self.rmdir(now, parent.0, name),
            Op::Rename {
                from,
                from_name,
                to,
                to_name,
                how,
                ..
            } => self.rename(now, (from.0, from_name), (to.0, to_name), *how),
            Op::SetAttr { ino, set } => self.set_attr(now, ino.0, set),
            Op::Write {
                ino,
                offset,
                data,
                clear_setid,
            } => self.write(now, ino.0, *offset, data, *clear_setid),
            Op::Fallocate { ino, offset, len, how } => self.fallocate(now, ino.0, *offset, *len, *how),
            Op::SetXattr {
                ino,
                name,
                value,
                how,
                caller: _,
            } => self.set_xattr(now, ino.0, name, value, *how),
            Op::RemoveXattr { ino, name } => self.remove_xattr(now, ino.0, name),
            Op::SetClass { ino, class } => self.set_class(now, ino.0, *class),
            Op::Seal { ino, size, ctime, hash } => self.seal(ino.0, (*size, *ctime), *hash),
            Op::Reap { ino } => {
                if self.nodes.contains_key(&ino.0) && self.names(ino.0) == 0 {
                    self.nodes.remove(&ino.0);
                }
                Ok(Answer::default())
            }
        }
    }

    fn node(&mut self, ino: u64) -> Result<&mut Node, Refusal> {
        self.nodes.get_mut(&ino).ok_or(Refusal::NotFound)
    }

    fn entries(&mut self, ino: u64) -> Result<&mut BTreeMap<Name, u64>, Refusal> {
        match &mut self.node(ino)?.what {
            What::Directory(entries) => Ok(entries),
            _ => Err(Refusal::NotDirectory),
        }
    }

    /// The directory may get `name`.
    fn vacant(&mut self, parent: u64, name: &[u8]) -> Result<(), Refusal> {
        if self.entries(parent)?.contains_key(name) {
            return Err(Refusal::Exists);
        }
        if self.names(parent) == 0 {
            Err(Refusal::NotFound)
        } else {
            Ok(())
        }
    }

    fn enter(&mut self, now: Time, parent: u64, name: &[u8], ino: u64) {
        self.entries(parent).expect("a directory").insert(name.to_vec(), ino);
        self.node(parent).expect("a directory").modified(now);
    }

    /// Takes a name away; the inode, if that was its last.
    fn leave(&mut self, now: Time, parent: u64, name: &[u8]) -> Option<u64> {
        let ino = self
            .entries(parent)
            .expect("a directory")
            .remove(name)
            .expect("an entry");
        self.node(parent).expect("a directory").modified(now);
        self.node(ino).expect("a node").ctime = now;
        (self.names(ino) == 0).then_some(ino)
    }

    fn show(&self, ino: u64) -> Outcome {
        Ok(Answer {
            shown: Some(self.facts(ino)),
            ..Answer::default()
        })
    }

    fn create(
        &mut self,
        now: Time,
        parent: u64,
        name: &[u8],
        kind: (u32, u32, &[u8]),
        class: Option<Class>,
        caller: Caller,
    ) -> Outcome {
        proper(name, Refusal::Exists)?;
        let (mode, rdev, target) = kind;
        let what = match mode & libc::S_IFMT {
            libc::S_IFLNK if target.is_empty() => return Err(Refusal::NotFound),
            libc::S_IFLNK if target.len() >= 4096 => return Err(Refusal::NameTooLong),
            libc::S_IFLNK => What::Symlink(target.to_vec()),
            libc::S_IFREG => What::File(Sparse::default(), 0),
            libc::S_IFDIR => What::Directory(BTreeMap::new()),
            kind @ (libc::S_IFCHR | libc::S_IFBLK) => What::Special(kind, rdev),
            kind @ (libc::S_IFIFO | libc::S_IFSOCK) => What::Special(kind, 0),
            _ => return Err(Refusal::Invalid),
        };
        self.vacant(parent, name)?;
        let above = &self.nodes[&parent];
        let inherits = above.permissions & 0o2000 != 0;
        let gid = if inherits { above.gid } else { caller.gid };
        let permissions = match what {
            What::Symlink(_) => 0o777,
            What::Directory(_) if inherits => mode & 0o7777 | 0o2000,
            _ => mode & 0o7777,
        };
        self.last += 1;
        let ino = self.last;
        let inherited = above.class;
        let mut node = Node::new(what, permissions, (caller.uid, gid), now);
        node.own_class = class.is_some() && node.is_dir();
        node.class = class.filter(|_| node.is_dir()).unwrap_or(inherited);
        node.home = parent;
        self.nodes.insert(ino, node);
        self.enter(now, parent, name, ino);
        self.show(ino)
    }

    fn link(&mut self, now: Time, ino: u64, parent: u64, name: &[u8]) -> Outcome {
        proper(name, Refusal::Exists)?;
        self.vacant(parent, name)?;
        if self.node(ino)?.is_dir() {
            return Err(Refusal::NotPermitted);
        }
        match self.names(ino) {
            0 => return Err(Refusal::NotFound),
            65_000.. => return Err(Refusal::TooManyLinks),
            _ => {}
        }
        self.enter(now, parent, name, ino);
        self.node(ino)?.ctime = now;
        self.show(ino)
    }

    fn unlink(&mut self, now: Time, parent: u64, name: &[u8]) -> Outcome {
        proper(name, Refusal::IsDirectory)?;
        let ino = *self.entries(parent)?.get(name).ok_or(Refusal::NotFound)?;
        if self.node(ino)?.is_dir() {
            return Err(Refusal::IsDirectory);
        }
        Ok(Answer {
            orphaned: self.leave(now, parent, name),
            ..Answer::default()
        })
    }

    fn rmdir(&mut self, now: Time, parent: u64, name: &[u8]) -> Outcome {
        proper(
            name,
            if name == b"." {
                Refusal::Invalid
            } else {
                Refusal::NotEmpty
            },
        )?;
        let ino = *self.entries(parent)?.get(name).ok_or(Refusal::NotFound)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Refusal::NotEmpty);
        }
        Ok(Answer {
            orphaned: self.leave(now, parent, name),
            ..Answer::default()
        })
    }

    /// Whether `ino` is `top` or can be reached from it.
    fn under(&self, top: u64, ino: u64) -> bool {
        top == ino
            || match &self.nodes[&top].what {
                What::Directory(entries) => entries.values().any(|child| self.under(*child, ino)),
                _ => false,
            }
    }

    fn rename(&mut self, now: Time, from: (u64, &[u8]), to: (u64, &[u8]), how: Rename) -> Outcome {
        proper(from.1, Refusal::Invalid)?;
        proper(
            to.1,
            if how == Rename::NoReplace {
                Refusal::Exists
            } else {
                Refusal::Invalid
            },
        )?;
        self.entries(from.0)?;
        self.entries(to.0)?;
        if self.names(to.0) == 0 {
            return Err(Refusal::NotFound);
        }
        let source = *self.entries(from.0)?.get(from.1).ok_or(Refusal::NotFound)?;
        let target = self.entries(to.0)?.get(to.1).copied();
        if how == Rename::NoReplace && target.is_some() {
            return Err(Refusal::Exists);
        }
        if how == Rename::Exchange && target.is_none() {
            return Err(Refusal::NotFound);
        }
        if target == Some(source) {
            return Ok(Answer::default());
        }
        if self.nodes[&source].is_dir() && self.under(source, to.0) {
            return Err(Refusal::Invalid);
        }
        if how == Rename::Exchange {
            let target = target.expect("seen above");
            if self.nodes[&target].is_dir() && self.under(target, from.0) {
                return Err(Refusal::Invalid);
            }
            self.enter(now, from.0, from.1, target);
            self.enter(now, to.0, to.1, source);
            for (ino, home) in [(source, to.0), (target, from.0)] {
                let node = self.node(ino)?;
                (node.ctime, node.home) = (now, home);
            }
            return Ok(Answer::default());
        }
        let mut orphaned = None;
        if let Some(target) = target {
            match (self.nodes[&source].is_dir(), self.nodes[&target].is_dir()) {
                (false, true) => return Err(Refusal::IsDirectory),
                (true, false) => return Err(Refusal::NotDirectory),
                (true, true) if !self.entries(target)?.is_empty() => return Err(Refusal::NotEmpty),
                _ => orphaned = self.leave(now, to.0, to.1),
            }
        }
        self.leave(now, from.0, from.1);
        self.enter(now, to.0, to.1, source);
        self.node(source)?.home = to.0;
        Ok(Answer {
            orphaned,
            ..Answer::default()
        })
    }

    fn set_attr(&mut self, now: Time, ino: u64, set: &SetAttr) -> Outcome {
        let node = self.node(ino)?;
        let before = node.permissions;
        match (&mut node.what, set.size) {
            (_, None) => {}
            (What::Directory(_), _) => return Err(Refusal::IsDirectory),
            (What::File(..), Some(size)) if size > MAX_FILE => return Err(Refusal::TooLarge),
            (What::File(bytes, old), Some(size)) => {
                bytes.truncate(size);
                *old = size;
                node.seal = None;
                node.mtime = now;
            }
            _ => return Err(Refusal::Invalid),
        }
        let chosen = |time: SetTime| if let SetTime::To(time) = time { time } else { now };
        node.permissions = set.mode.map_or(node.permissions, |mode| mode & 0o7777);
        node.uid = set.uid.unwrap_or(node.uid);
        node.gid = set.gid.unwrap_or(node.gid);
        if set.clear_setid || set.uid.or(set.gid).is_some() {
            node.lose_setid();
        }
        node.atime = set.atime.map_or(node.atime, chosen);
        node.mtime = set.mtime.map_or(node.mtime, chosen);
        let fields = [set.mode, set.uid, set.gid].iter().any(Option::is_some)
            || set.size.is_some()
            || set.atime.or(set.mtime).is_some();
        if fields || node.permissions != before {
            node.ctime = now;
        }
        self.show(ino)
    }

    fn write(&mut self, now: Time, ino: u64, offset: u64, data: &[u8], clear_setid: bool) -> Outcome {
        let node = self.node(ino)?;
        let What::File(bytes, size) = &mut node.what else {
            return Err(Refusal::Invalid);
        };
        if data.len() > MAX_WRITE {
            return Err(Refusal::Invalid);
        }
        let written = Ok(Answer {
            written: Some(data.len()),
            ..Answer::default()
        });
        if data.is_empty() {
            return written;
        }
        if u128::from(offset) + data.len() as u128 > u128::from(MAX_FILE) {
            return Err(Refusal::TooLarge);
        }
        bytes.write(offset, data);
        *size = (*size).max(offset + data.len() as u64);
        if clear_setid {
            node.lose_setid();
        }
        node.modified(now);
        written
    }

    fn fallocate(&mut self, now: Time, ino: u64, offset: u64, len: u64, how: Fallocate) -> Outcome {
        let node = self.node(ino)?;
        if node.is_dir() {
            return Err(Refusal::IsDirectory);
        }
        let What::File(bytes, size) = &mut node.what else {
            return Err(Refusal::Invalid);
        };
        if len == 0 {
            return Err(Refusal::Invalid);
        }
        if u128::from(offset) + u128::from(len) > u128::from(MAX_FILE) {
            return Err(Refusal::TooLarge);
        }
        if matches!(how, Fallocate::Punch | Fallocate::Zero { .. }) {
            bytes.zero(offset, len);
        }
        if matches!(how, Fallocate::Allocate | Fallocate::Zero { keep_size: false }) {
            *size = (*size).max(offset + len);
        }
        node.lose_setid();
        node.modified(now);
        Ok(Answer::default())
    }

    /// Size and ctime of an inode that is there.
    pub fn state(&self, ino: u64) -> (u64, Time) {
        let facts = self.facts(ino);
        (facts.size, facts.ctime)
    }

    fn set_class(&mut self, now: Time, ino: u64, class: Option<Class>) -> Outcome {
        let named = self.names(ino) > 0;
        let home = self.node(ino)?.home;
        let home = self.nodes.get(&home);
        let above = home.filter(|_| named).map(|home| home.class);
        let node = self.node(ino)?;
        node.own_class &= named;
        let before = (node.class, node.own_class);
        match class {
            Some(class) if before != (class, true) => {
                node.class = class;
                node.own_class |= named && node.is_dir();
            }
            Some(_) => {}
            None => (node.class, node.own_class) = (above.unwrap_or_default(), false),
        }
        if before != (node.class, node.own_class) {
            node.ctime = now;
        }
        Ok(Answer::default())
    }

    fn seal(&mut self, ino: u64, was: (u64, Time), hash: [u8; 32]) -> Outcome {
        self.node(ino)?;
        let same = self.state(ino) == was;
        let node = self.node(ino)?;
        let sealed = same && matches!(node.what, What::File(..)) && node.class.profile().close == Close::Sealed;
        if sealed {
            node.seal = Some(hash);
        }
        Ok(Answer {
            sealed: Some(sealed),
            ..Answer::default()
        })
    }

    fn set_xattr(&mut self, now: Time, ino: u64, name: &[u8], value: &[u8], how: SetXattr) -> Outcome {
        proper_attribute(name)?;
        let node = self.node(ino)?;
        let old = node.xattrs.get(name);
        if how == SetXattr::Create && old.is_some() {
            return Err(Refusal::Exists);
        }
        if how == SetXattr::Replace && old.is_none() {
            return Err(Refusal::NoAttribute);
        }
        if old.is_some_and(|old| old == value) {
            return Ok(Answer::default());
        }
        let others = node.xattrs.iter().filter(|(other, _)| other.as_slice() != name);
        let taken: usize = others.map(|(other, value)| other.len() + value.len()).sum();
        if taken + name.len() + value.len() > 65_536 {
            return Err(Refusal::AttributeTooLarge);
        }
        node.xattrs.insert(name.to_vec(), value.to_vec());
        node.ctime = now;
        Ok(Answer::default())
    }

    fn remove_xattr(&mut self, now: Time, ino: u64, name: &[u8]) -> Outcome {
        proper_attribute(name)?;
        let node = self.node(ino)?;
        node.xattrs.remove(name).ok_or(Refusal::NoAttribute)?;
        node.ctime = now;
        Ok(Answer::default())
    }
}

fn proper_attribute(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > 255 {
        return Err(Refusal::NameTooLong);
    }
    if name.is_empty() || name.contains(&0) {
        Err(Refusal::Invalid)
    } else {
        Ok(())
    }
}
