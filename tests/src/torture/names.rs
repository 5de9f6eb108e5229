//! A small tree of names: create, link, remove and rename in every way that makes sense or doesn't, against a tree in
//! memory that knows the answer.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, fsync, linkat, mkdirat, openat, readlinkat, renameat_with,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::fault::{Fault, fault, wrong};
use super::place::Place;
use super::story::Story;
use super::work::Work;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "a-name-of-some-length.wav", "ü"];
const DEEPEST: usize = 4;

/// A path below the worker's folder.
type Path = Vec<&'static str>;

#[derive(Debug, Clone)]
enum Op {
    Create(Path),
    MakeDirectory(Path),
    Symlink(Path),
    Link { from: Path, to: Path },
    Unlink(Path),
    RemoveDirectory(Path),
    Rename { from: Path, to: Path, how: RenameFlags },
    Mode(Path, u32),
    SyncDirectory,
    Look(Path),
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: Kind,
    mode: u32,
    children: BTreeMap<&'static str, usize>,
}

/// Nodes by number, the root being 0; what has no name any more stays, unseen.
#[derive(Debug, Clone)]
struct Tree(Vec<Node>);

/// What `stat` and `readdir` show of a name; numbers stand for inodes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown<N> {
    node: N,
    kind: Kind,
    mode: u32,
    links: u64,
}

/// What an operation ended with; whether an errno is right, the model knows.
enum Said {
    Errno(Errno),
    Wrong(String),
}

impl From<Fault> for Said {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost(errno) => Self::Errno(errno),
            Fault::Wrong(what) => Self::Wrong(what),
        }
    }
}

type Listing<N> = BTreeMap<String, Shown<N>>;

pub(super) struct Names {
    place: Place,
    folder: OwnedFd,
    tree: Tree,
    /// The inode of each node that was seen: it is one for ever, on every machine.
    inodes: BTreeMap<usize, u64>,
    random: StdRng,
    story: Story,
}

impl Names {
    pub(super) fn new(place: &Place, seed: u64) -> anyhow::Result<Self> {
        let root = Node {
            kind: Kind::Directory,
            mode: 0,
            children: BTreeMap::new(),
        };
        Ok(Self {
            place: place.clone(),
            folder: place.open()?,
            tree: Tree(vec![root]),
            inodes: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            story: Story::default(),
        })
    }

    fn draw(&mut self) -> Op {
        let mut path = || self.random_path();
        let (one, other) = (path(), path());
        match self.random.random_range(0..100) {
            0..16 => Op::Create(one),
            16..28 => Op::MakeDirectory(one),
            28..33 => Op::Symlink(one),
            33..41 => Op::Link { from: one, to: other },
            41..53 => Op::Unlink(one),
            53..60 => Op::RemoveDirectory(one),
            60..75 => Op::Rename {
                from: one,
                to: other,
                how: RenameFlags::empty(),
            },
            75..79 => Op::Rename {
                from: one,
                to: other,
                how: RenameFlags::NOREPLACE,
            },
            79..85 => Op::Rename {
                from: one,
                to: other,
                how: RenameFlags::EXCHANGE,
            },
            85..89 => Op::Mode(one, self.random.random_range(0o500..=0o777)),
            89..91 => Op::SyncDirectory,
            91..96 => Op::Look(one),
            _ => Op::List,
        }
    }

    /// Mostly through directories that are there.
    fn random_path(&mut self) -> Path {
        let mut path = Vec::new();
        let mut at = 0;
        loop {
            let name = NAMES[self.random.random_range(0..NAMES.len())];
            path.push(name);
            let child = self.tree.0[at].children.get(name).copied();
            match child {
                Some(child) if self.tree.0[child].kind == Kind::Directory => at = child,
                _ if self.random.random_bool(0.97) => return path,
                _ => {}
            }
            if path.len() == DEEPEST || self.random.random_bool(0.5) {
                return path;
            }
        }
    }

    fn carry_out(&mut self, op: &Op) -> Result<(), Said> {
        let folder = self.folder.as_fd();
        let said = match op {
            Op::Create(path) => {
                let how = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(folder, path.join("/"), how, Mode::from_raw_mode(0o600)).map(drop)
            }
            Op::MakeDirectory(path) => mkdirat(folder, path.join("/"), Mode::from_raw_mode(0o700)),
            Op::Symlink(path) => symlinkat("somewhere", folder, path.join("/")),
            Op::Link { from, to } => linkat(folder, from.join("/"), folder, to.join("/"), AtFlags::empty()),
            Op::Unlink(path) => unlinkat(folder, path.join("/"), AtFlags::empty()),
            Op::RemoveDirectory(path) => unlinkat(folder, path.join("/"), AtFlags::REMOVEDIR),
            Op::Rename { from, to, how } => renameat_with(folder, from.join("/"), folder, to.join("/"), *how),
            Op::Mode(path, mode) => {
                rustix::fs::chmodat(folder, path.join("/"), Mode::from_raw_mode(*mode), AtFlags::empty())
            }
            Op::SyncDirectory => fsync(folder),
            Op::Look(path) => return self.look(path).map_err(Said::from),
            Op::List => return self.verify().map_err(Said::from),
        };
        said.map_err(Said::Errno)
    }

    fn look(&self, path: &Path) -> Result<(), Fault> {
        let shown = statat(&self.folder, path.join("/"), AtFlags::SYMLINK_NOFOLLOW);
        match (shown, self.tree.find(path)) {
            (Ok(shown), Ok(number)) if kind(shown.st_mode) == Some(self.tree.0[number].kind) => Ok(()),
            (Ok(shown), expected) => wrong!("stat shows mode {:o}, but {expected:?} is right", shown.st_mode),
            (Err(said), Err(right)) if said == right => Ok(()),
            (Err(said), expected) => match fault("stat", said) {
                Fault::Wrong(what) => wrong!("{what}, but {expected:?} is right"),
                lost @ Fault::Lost(_) => Err(lost),
            },
        }
    }

    fn verify(&mut self) -> Result<(), Fault> {
        let mut found = Listing::new();
        list(self.folder.as_fd(), "", &mut found)?;
        match difference(&self.tree.listing(), &found, &mut self.inodes) {
            None => Ok(()),
            Some(what) => wrong!("{what}"),
        }
    }

    /// After an error: the tree must be as before the operation or as after it.
    fn settle(&mut self, after: Tree, errno: Errno) -> Result<(), String> {
        self.story.open += 1;
        self.story.tell(&format!("lost: {errno}"));
        let found = loop {
            self.folder = self.place.open().map_err(|error| format!("{error:#}"))?;
            let mut found = Listing::new();
            match list(self.folder.as_fd(), "", &mut found) {
                Ok(()) => break found,
                Err(Fault::Lost(errno)) => self.story.tell(&format!("lost again: {errno}")),
                Err(Fault::Wrong(what)) => return Err(what),
            }
        };
        let Some(from_before) = difference(&self.tree.listing(), &found, &mut self.inodes) else {
            return Ok(());
        };
        match difference(&after.listing(), &found, &mut self.inodes) {
            None if errno == Errno::AGAIN => Err("EAGAIN was said of what has been done".into()),
            None => {
                self.tree = after;
                Ok(())
            }
            Some(from_after) => Err(format!(
                "after {errno} the tree is neither as before nor as after:\n    {from_before}\n    {from_after}"
            )),
        }
    }
}

impl Work for Names {
    fn step(&mut self) -> Result<(), String> {
        let op = self.draw();
        self.story.operation(&op);
        let mut after = self.tree.clone();
        let expected = after.apply(&op);
        match (self.carry_out(&op), expected) {
            (Ok(()), Ok(())) => {
                self.tree = after;
                Ok(())
            }
            (Err(Said::Wrong(what)), _) => Err(what),
            (Err(Said::Errno(said)), Err(right)) if said == right => Ok(()),
            (Err(Said::Errno(said)), expected) => match fault("it", said) {
                Fault::Lost(errno) if self.place.fails_over() => self.settle(after, errno),
                _ => Err(format!("says {said}, but {expected:?} is right")),
            },
            (Ok(()), Err(right)) => Err(format!("succeeds, but {right} is right")),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        match self.verify() {
            Ok(()) => Ok(()),
            Err(Fault::Lost(errno)) if self.place.fails_over() => self.settle(self.tree.clone(), errno),
            Err(fault) => Err(format!("{fault:?}")),
        }
    }

    fn story(self) -> Story {
        self.story
    }
}

impl Tree {
    fn find(&self, path: &[&'static str]) -> Result<usize, Errno> {
        path.iter().try_fold(0, |at, name| {
            if self.0[at].kind != Kind::Directory {
                // A symbolic link here leads nowhere.
                return Err(if self.0[at].kind == Kind::Link {
                    Errno::NOENT
                } else {
                    Errno::NOTDIR
                });
            }
            self.0[at].children.get(name).copied().ok_or(Errno::NOENT)
        })
    }

    /// The directory that a path's last name is in, and what it leads to.
    fn named(&self, path: &Path) -> Result<(usize, &'static str, Option<usize>), Errno> {
        let (name, above) = path.split_last().expect("a path has a name");
        let directory = self.find(above)?;
        match self.0[directory].kind {
            Kind::Directory => Ok((directory, name, self.0[directory].children.get(name).copied())),
            Kind::Link => Err(Errno::NOENT),
            Kind::File => Err(Errno::NOTDIR),
        }
    }

    fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::Create(path) => self.make(path, Kind::File, 0o600),
            Op::MakeDirectory(path) => self.make(path, Kind::Directory, 0o700),
            Op::Symlink(path) => self.make(path, Kind::Link, 0o777),
            Op::Link { from, to } => self.link(from, to),
            Op::Unlink(path) => {
                let (directory, name, child) = self.named(path)?;
                match self.0[child.ok_or(Errno::NOENT)?].kind {
                    Kind::Directory => Err(Errno::ISDIR),
                    Kind::File | Kind::Link => {
                        self.0[directory].children.remove(name);
                        Ok(())
                    }
                }
            }
            Op::RemoveDirectory(path) => {
                let (directory, name, child) = self.named(path)?;
                let child = &self.0[child.ok_or(Errno::NOENT)?];
                if child.kind != Kind::Directory {
                    return Err(Errno::NOTDIR);
                }
                if !child.children.is_empty() {
                    return Err(Errno::NOTEMPTY);
                }
                self.0[directory].children.remove(name);
                Ok(())
            }
            Op::Rename { from, to, how } => self.rename(from, to, *how),
            Op::Mode(path, mode) => {
                let number = self.find(path)?;
                // chmod follows the link, which leads nowhere.
                if self.0[number].kind == Kind::Link {
                    return Err(Errno::NOENT);
                }
                self.0[number].mode = *mode;
                Ok(())
            }
            Op::SyncDirectory | Op::Look(_) | Op::List => Ok(()),
        }
    }

    fn make(&mut self, path: &Path, kind: Kind, mode: u32) -> Result<(), Errno> {
        let (directory, name, child) = self.named(path)?;
        if child.is_some() {
            return Err(Errno::EXIST);
        }
        let number = self.0.len();
        self.0.push(Node {
            kind,
            mode,
            children: BTreeMap::new(),
        });
        self.0[directory].children.insert(name, number);
        Ok(())
    }

    fn link(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let source = self.find(from)?;
        let (directory, name, child) = self.named(to)?;
        if child.is_some() {
            return Err(Errno::EXIST);
        }
        if self.0[source].kind == Kind::Directory {
            return Err(Errno::PERM);
        }
        self.0[directory].children.insert(name, source);
        Ok(())
    }

    /// In the order in which Linux looks (`do_renameat2`, `vfs_rename`).
    fn rename(&mut self, from: &Path, to: &Path, how: RenameFlags) -> Result<(), Errno> {
        let (from_directory, from_name, source) = self.named(from)?;
        let (to_directory, to_name, target) = self.named(to)?;
        let source = source.ok_or(Errno::NOENT)?;
        if how == RenameFlags::NOREPLACE && target.is_some() {
            return Err(Errno::EXIST);
        }
        if how == RenameFlags::EXCHANGE && target.is_none() {
            return Err(Errno::NOENT);
        }
        let exchange = how == RenameFlags::EXCHANGE;
        // A directory can't go below itself, and none that holds the other can be replaced by it.
        if self.holds(source, to_directory) {
            return Err(Errno::INVAL);
        }
        if let Some(target) = target
            && self.holds(target, from_directory)
        {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if let Some(target) = target {
            if target == source {
                return Ok(());
            }
            let is_directory = |number: usize| self.0[number].kind == Kind::Directory;
            if !exchange {
                match (is_directory(source), is_directory(target)) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (true, true) if !self.0[target].children.is_empty() => return Err(Errno::NOTEMPTY),
                    _ => {}
                }
            }
        }
        self.0[from_directory].children.remove(from_name);
        self.0[to_directory].children.insert(to_name, source);
        if let Some(target) = target.filter(|_| exchange) {
            self.0[from_directory].children.insert(from_name, target);
        }
        Ok(())
    }

    fn holds(&self, above: usize, below: usize) -> bool {
        above == below || self.0[above].children.values().any(|child| self.holds(*child, below))
    }

    fn listing(&self) -> Listing<usize> {
        let mut names: BTreeMap<usize, u64> = BTreeMap::new();
        let mut out = Listing::new();
        self.list(0, "", &mut out, &mut names);
        for shown in out.values_mut() {
            let node = &self.0[shown.node];
            let below = node
                .children
                .values()
                .filter(|child| self.0[**child].kind == Kind::Directory);
            shown.links = match node.kind {
                Kind::Directory => 2 + below.count() as u64,
                Kind::File | Kind::Link => names[&shown.node],
            };
        }
        out
    }

    fn list(&self, at: usize, path: &str, out: &mut Listing<usize>, names: &mut BTreeMap<usize, u64>) {
        for (name, child) in &self.0[at].children {
            let node = &self.0[*child];
            let path = format!("{path}/{name}");
            *names.entry(*child).or_default() += 1;
            let shown = Shown {
                node: *child,
                kind: node.kind,
                mode: node.mode,
                links: 0,
            };
            self.list(*child, &path, out, names);
            out.insert(path, shown);
        }
    }
}

fn kind(mode: u32) -> Option<Kind> {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => Some(Kind::Directory),
        FileType::RegularFile => Some(Kind::File),
        FileType::Symlink => Some(Kind::Link),
        _ => None,
    }
}

fn list(folder: BorrowedFd<'_>, path: &str, out: &mut Listing<u64>) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for entry in Dir::read_from(folder).map_err(|errno| fault("opendir", errno))? {
        let entry = entry.map_err(|errno| fault("readdir", errno))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        if !seen.insert(name.clone()) {
            wrong!("readdir of {path}/ shows {name} twice");
        }
        let shown = statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| fault("stat of a name that readdir shows", errno))?;
        let below = format!("{path}/{name}");
        let Some(kind) = kind(shown.st_mode) else {
            wrong!("{below} has mode {:o}", shown.st_mode);
        };
        if entry.ino() != shown.st_ino {
            wrong!("readdir shows inode {} of {below}, stat {}", entry.ino(), shown.st_ino);
        }
        match kind {
            Kind::Directory => {
                let how = OFlags::DIRECTORY | OFlags::CLOEXEC;
                let inner =
                    openat(folder, entry.file_name(), how, Mode::empty()).map_err(|errno| fault("open", errno))?;
                list(inner.as_fd(), &below, out)?;
            }
            Kind::Link => {
                let target =
                    readlinkat(folder, entry.file_name(), Vec::new()).map_err(|errno| fault("readlink", errno))?;
                if target.to_bytes() != b"somewhere" {
                    wrong!("{below} leads to {target:?}");
                }
            }
            Kind::File => {}
        }
        out.insert(
            below,
            Shown {
                node: shown.st_ino,
                kind,
                mode: shown.st_mode & 0o7777,
                links: shown.st_nlink as u64,
            },
        );
    }
    Ok(())
}

/// None if both show the same names, and the same ones of them are the same inode, now and before.
fn difference(
    expected: &Listing<usize>,
    found: &Listing<u64>,
    known_inodes: &mut BTreeMap<usize, u64>,
) -> Option<String> {
    let mut inodes = known_inodes.clone();
    let mut nodes: BTreeMap<u64, usize> = BTreeMap::new();
    for (path, right) in expected {
        let Some(shown) = found.get(path) else {
            return Some(format!("{path} is missing"));
        };
        let known = (
            *inodes.entry(right.node).or_insert(shown.node),
            *nodes.entry(shown.node).or_insert(right.node),
        );
        let same = (shown.kind, shown.mode, shown.links) == (right.kind, right.mode, right.links);
        if !same || known != (shown.node, right.node) {
            return Some(format!("{path} is {shown:?}, but {right:?} is right"));
        }
    }
    if let Some(path) = found.keys().find(|path| !expected.contains_key(*path)) {
        return Some(format!("{path} is there, and oughtn't to be"));
    }
    // What has no name any more is forgotten.
    inodes.retain(|node, _| expected.values().any(|shown| shown.node == *node));
    *known_inodes = inodes;
    None
}
