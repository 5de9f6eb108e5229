//! The simulated machine: what programs see, and what its disk would still have after a power cut.

use super::Dice;
use super::content::{Change, Content};
use std::collections::BTreeMap;
use std::io;

#[derive(Default)]
struct Inode {
    dir: bool,
    named: bool,
    live: Content,
    stable: Content,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum NameChange {
    Create { path: String, ino: u64 },
    Remove { path: String, ino: u64 },
    Rename { from: String, to: String, ino: u64 },
}

pub(super) struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    stable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    next_ino: u64,
    pub(super) used: u64,
    pub(super) limit: u64,
    /// Counts starts of the machine: files opened before a crash are dead.
    pub(super) boot: u64,
    /// Calls so far that change or sync something.
    pub(super) calls: u64,
    pub(super) fail_at: Option<u64>,
    pub(super) dead: bool,
    pub(super) hold: bool,
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{path}: no such file or folder on the simulated disk"),
    )
}

pub(super) fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn forget(names: &mut BTreeMap<String, u64>, path: &str, ino: u64) {
    if names.get(path) == Some(&ino) {
        names.remove(path);
    } else {
        names.retain(|_, other| *other != ino);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create { path, ino } => {
                names.insert(path.clone(), *ino);
            }
            Self::Remove { path, ino } => forget(names, path, *ino),
            // An inode has one name, also when the rename before this one was lost.
            Self::Rename { from, to, ino } => {
                forget(names, from, *ino);
                names.insert(to.clone(), *ino);
            }
        }
    }

    fn is_in(&self, dir: &str) -> bool {
        match self {
            Self::Create { path, .. } | Self::Remove { path, .. } => parent(path) == dir,
            Self::Rename { from, to, .. } => parent(from) == dir || parent(to) == dir,
        }
    }
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            stable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            next_ino: 1,
            used: 0,
            limit: 1 << 40,
            boot: 0,
            calls: 0,
            fail_at: None,
            dead: false,
            hold: false,
        }
    }

    fn find(&self, path: &str) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    fn is_dir(&self, path: &str) -> bool {
        path.is_empty() || self.names.get(path).is_some_and(|ino| self.inodes[ino].dir)
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn unname(&mut self, ino: u64) {
        let inode = self.inodes.get_mut(&ino).expect("names lead to inodes");
        inode.named = false;
        self.used -= inode.live.allocated();
    }

    fn make(&mut self, path: &str, dir: bool) -> io::Result<u64> {
        if !self.is_dir(parent(path)) {
            return Err(not_found(parent(path)));
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        self.inodes.insert(
            ino,
            Inode {
                dir,
                named: true,
                ..Inode::default()
            },
        );
        self.change_name(NameChange::Create {
            path: path.to_owned(),
            ino,
        });
        Ok(ino)
    }

    pub(super) fn open_existing(&self, path: &str) -> io::Result<u64> {
        let ino = self.find(path)?;
        if self.inodes[&ino].dir {
            Err(io::Error::from_raw_os_error(libc::EISDIR))
        } else {
            Ok(ino)
        }
    }

    pub(super) fn open_or_make(&mut self, path: &str) -> io::Result<u64> {
        if self.names.contains_key(path) {
            self.open_existing(path)
        } else {
            self.make(path, false)
        }
    }

    pub(super) fn create_dir(&mut self, path: &str) -> io::Result<()> {
        if self.is_dir(path) {
            Ok(())
        } else {
            self.make(path, true).map(drop)
        }
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let ino = self.open_existing(path)?;
        self.unname(ino);
        self.change_name(NameChange::Remove {
            path: path.to_owned(),
            ino,
        });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let ino = self.open_existing(from)?;
        if !self.is_dir(parent(to)) {
            return Err(not_found(parent(to)));
        }
        if from == to {
            return Ok(());
        }
        if let Some(&replaced) = self.names.get(to) {
            self.unname(replaced);
        }
        self.change_name(NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            ino,
        });
        Ok(())
    }

    pub(super) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        if !self.is_dir(path) {
            return Err(not_found(path));
        }
        let inside = self.names.keys().filter(|name| parent(name) == path);
        Ok(inside
            .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
            .collect())
    }

    pub(super) fn live(&self, ino: u64) -> &Content {
        &self.inodes[&ino].live
    }

    pub(super) fn change_data(&mut self, ino: u64, change: Change) -> io::Result<()> {
        let inode = self.inodes.get_mut(&ino).expect("inodes stay until a crash");
        if let Change::Write { offset, data } = &change
            && self.used + inode.live.missing(*offset, data.len() as u64) > self.limit
        {
            return Err(no_space());
        }
        if let Change::Reserve { offset, len } = &change
            && self.used + inode.live.missing(*offset, *len) > self.limit
        {
            return Err(no_space());
        }
        let before = inode.live.allocated();
        inode.live.apply(&change);
        if inode.named {
            self.used = self.used - before + inode.live.allocated();
        }
        inode.unsynced.push(change);
        Ok(())
    }

    pub(super) fn sync_data(&mut self, ino: u64) {
        let inode = self.inodes.get_mut(&ino).expect("inodes stay until a crash");
        for change in inode.unsynced.drain(..) {
            inode.stable.apply(&change);
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        if !self.is_dir(dir) {
            return Err(not_found(dir));
        }
        let (inside, others) = std::mem::take(&mut self.unsynced_names)
            .into_iter()
            .partition(|c| c.is_in(dir));
        self.unsynced_names = others;
        let inside: Vec<NameChange> = inside;
        inside.iter().for_each(|change| change.apply(&mut self.stable_names));
        Ok(())
    }

    pub(super) fn sync_all(&mut self) {
        let inos: Vec<u64> = self.inodes.keys().copied().collect();
        inos.into_iter().for_each(|ino| self.sync_data(ino));
        for change in std::mem::take(&mut self.unsynced_names) {
            change.apply(&mut self.stable_names);
        }
    }

    pub(super) fn rot(&mut self, path: &str, offset: u64) -> io::Result<()> {
        let ino = self.find(path)?;
        let inode = self.inodes.get_mut(&ino).expect("names lead to inodes");
        let before = inode.live.allocated();
        let (in_live, _) = (inode.live.flip(offset), inode.stable.flip(offset));
        self.used = self.used - before + inode.live.allocated();
        if in_live {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::UnexpectedEof))
        }
    }

    /// The machine is dead and starts again with what the dice leave on its disk.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        for change in std::mem::take(&mut self.unsynced_names) {
            if dice.below(2) == 0 {
                change.apply(&mut self.stable_names);
            }
        }
        for inode in self.inodes.values_mut() {
            for change in std::mem::take(&mut inode.unsynced) {
                inode.stable.apply_what_survives(&change, dice);
            }
            inode.live = inode.stable.clone();
        }
        self.names = BTreeMap::new();
        // Parents sort before what is inside them; what lies in a folder whose own name was lost is lost with it.
        for (path, ino) in std::mem::take(&mut self.stable_names) {
            if self.is_dir(parent(&path)) {
                self.names.insert(path, ino);
            }
        }
        self.stable_names = self.names.clone();
        let named: std::collections::BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|ino, _| named.contains(ino));
        self.used = self.inodes.values().map(|inode| inode.live.allocated()).sum();
        self.boot += 1;
        self.fail_at = None;
        self.dead = false;
        self.hold = false;
    }
}
