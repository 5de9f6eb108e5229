//! `holdfast export`: a stopped node's store as a plain tree, with nothing but that node's disk.
//!
//! The store is left as it is but for one thing: entries of its log that are committed for sure and not applied
//! yet are applied, as its daemon would do at the next start. Nothing is appended, trimmed or checkpointed, and the
//! mark of a clean stop stays. Of a store that can't be opened so (its log is damaged, it is half a copy) comes out what was
//! applied.

mod tree;

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use holdfast_storage::RealStore;
use holdfast_storage::apply::{Applier, Committed};
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::error::chain;
use holdfast_storage::identity::Identity;
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::open::{self, Opened};
use holdfast_storage::types::{Ino, LogIndex};
use rustix::fs::FlockOperation;
use tree::Tree;

use crate::output::{complain, print};

/// Bytes of the log that are applied at once.
const BATCH_BYTES: usize = 4 << 20;

pub fn run(config: &holdfast_config::Config, out: &Path) -> anyhow::Result<()> {
    let store = &config.store.path;
    let _held_until_the_end = lock(store)?;
    let node = &config.cluster.nodes[config.this].name;
    let found = open_store(store, &config.cluster.id, node)?;
    let target = make_empty(out)?;
    let Content {
        store: content,
        at,
        last,
        unsettled,
        mut problems,
    } = match found {
        Found::Whole(opened) => settle(&opened),
        Found::AsItLies(content, at) => Content::as_it_lies(content, at),
    };
    complain(&format!(
        "exporting {} as of log entry {at} to {}",
        store.display(),
        out.display()
    ));
    if at < last && problems == 0 {
        complain(&format!(
            "log entries {} to {last} are left out: this node didn't get to know that they are committed",
            at.next()
        ));
    }
    let done = Tree::new(&content, out, unsettled).export()?;
    rustix::fs::syncfs(&target).with_context(|| format!("making what was written to {} stable", out.display()))?;
    print(&format!(
        "{} holds {} directories, {} other inodes and {} bytes of data, as of log entry {at}\n",
        out.display(),
        done.directories,
        done.others,
        done.bytes
    ))?;
    problems += done.problems;
    if problems > 0 {
        bail!("with {problems} problems, told above; the other nodes' stores may hold what is damaged here");
    }
    Ok(())
}

/// As the daemon does it: two processes on one store would destroy it.
pub(crate) fn lock(store: &Path) -> anyhow::Result<Option<File>> {
    let path = store.join("lock");
    let file = match OpenOptions::new().write(true).open(&path) {
        // No daemon ever ran on it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("opening {}", path.display()))?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(_) => bail!(
            "the store in {} is in use: stop this node's daemon first (`systemctl stop holdfast`), or copy the files \
             from the mount of the active node",
            store.display()
        ),
    }
}

enum Found {
    Whole(Box<Opened<RealDisk, Rocks>>),
    /// What the metadata store holds, which is at this entry.
    AsItLies(Arc<RealStore>, LogIndex),
}

/// What there is to write.
struct Content {
    store: Arc<RealStore>,
    at: LogIndex,
    /// Where the log ends.
    last: LogIndex,
    unsettled: HashSet<Ino>,
    problems: u64,
}

impl Content {
    fn as_it_lies(store: Arc<RealStore>, at: LogIndex) -> Self {
        Self {
            store,
            at,
            last: at,
            unsettled: HashSet::new(),
            problems: 1,
        }
    }
}

/// A store that its daemon would refuse may be all that is left, so what is in the way is told, and gone past.
fn open_store(store: &Path, cluster: &str, node: &str) -> anyhow::Result<Found> {
    let disk = RealDisk::open(store).with_context(|| format!("opening the store's folder {}", store.display()))?;
    let Some(identity) = Identity::read(&disk)? else {
        bail!("there is no store in {}: nothing to export", store.display());
    };
    identity.must_be(cluster, node)?;
    let meta = || Rocks::open(&store.join("meta"));
    let why = match open::open_to_read(disk.clone(), meta()?, identity) {
        Ok(opened) => return Ok(Found::Whole(Box::new(opened))),
        Err(why) => why,
    };
    complain(&format!(
        "this store can't be opened as a whole: {}\nSo it is exported as it lies there: what its log holds and wasn't applied is missing, and files \
         that were being changed when it stopped may be of different moments; what doesn't fit its checksum is told",
        chain(&why)
    ));
    let (content, at) = open::as_it_lies(disk, meta()?)?;
    Ok(Found::AsItLies(content, at))
}

fn settle(opened: &Opened<RealDisk, Rocks>) -> Content {
    let mut problems = 0;
    let at = redo(opened).unwrap_or_else(|error| {
        problems += 1;
        let at = opened.store.applied();
        complain(&format!(
            "what the log has behind entry {at} can't be carried out, so it is left out: {error:#}"
        ));
        at
    });
    let unsettled = left_out(opened, at).unwrap_or_else(|error| {
        problems += 1;
        complain(&format!("which files that would change isn't known: {error:#}"));
        HashSet::new()
    });
    let whole = opened.identity.joined;
    if at < whole {
        problems += 1;
        complain(&format!(
            "this store is a copy that fits together only with log entry {whole}, and its log is known to be committed up to {at}: files and \
             names in it are of different moments; another node's store is better"
        ));
    }
    Content {
        store: opened.store.clone(),
        at,
        last: opened.recovered.last,
        unsettled,
        problems,
    }
}

/// Applies what this node knows to be committed; it may have been applied before the stop, in part.
pub(crate) fn redo(opened: &Opened<RealDisk, Rocks>) -> anyhow::Result<LogIndex> {
    let Opened {
        store,
        log,
        recovered,
        checkpoint,
        redo_until,
        ..
    } = opened;
    let known = recovered.hard_state.commit.max(open::stored(store)?).max(*checkpoint);
    let mut applier = Applier::new(store.clone(), *redo_until)?;
    while store.applied() < known {
        let read = log.reader().read(store.applied().next(), known.next(), BATCH_BYTES)?;
        let entries = read.into_iter().map(|entry| Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data,
        });
        applier.apply(&entries.collect::<Vec<_>>())?;
    }
    Ok(known)
}

/// Files that entries behind the known ones change. These may have been applied too before a crash, so that a block
/// that doesn't fit its checksum may hold their bytes.
pub(crate) fn left_out(opened: &Opened<RealDisk, Rocks>, at: LogIndex) -> anyhow::Result<HashSet<Ino>> {
    let mut files = HashSet::new();
    let mut next = at.next();
    while next <= opened.recovered.last {
        for entry in opened
            .log
            .reader()
            .read(next, opened.recovered.last.next(), BATCH_BYTES)?
        {
            next = entry.index.next();
            // Of an entry that can't be read nothing was applied.
            let effects = Entry::decode(entry.index, &entry.data).map_or_else(|_| Vec::new(), |entry| entry.effects);
            files.extend(effects.iter().filter_map(|effect| match effect {
                Effect::Write { ino, .. }
                | Effect::Truncate { ino, .. }
                | Effect::Zero { ino, .. }
                | Effect::Purge { ino } => Some(*ino),
                _ => None,
            }));
        }
    }
    Ok(files)
}

/// Closed to others until its root's own mode is set, at the end. Open from the beginning: whatever fails of writing back is told
/// to who syncs through it.
fn make_empty(out: &Path) -> anyhow::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(out)
        .with_context(|| format!("making {}", out.display()))?;
    let mut entries = out.read_dir().with_context(|| format!("listing {}", out.display()))?;
    if entries.next().is_some() {
        bail!(
            "{} isn't empty: name a new directory with --out, so that nothing is overwritten",
            out.display()
        );
    }
    File::open(out).with_context(|| format!("opening {}", out.display()))
}
