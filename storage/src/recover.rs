//! The only replica that is left becomes the beginning of a new history: all that its log holds counts from now on, and
//! whoever has another history, the lost nodes' old stores too, is refused by it and by all that are copied from it.

use crate::apply::{Applier, Committed};
use crate::checkpoint;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::effects::{Effect, Entry};
use crate::error::StoreError;
use crate::identity::{Identity, hex, unhex};
use crate::key;
use crate::log::{HardState, Log, LogReader};
use crate::mend::{Key, Since};
use crate::meta::Meta;
use crate::open::{self, Opened};
use crate::record::Inode;
use crate::store::Store;
use crate::types::{LogIndex, Term, Time};
use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::Arc;

/// Says that this replica waits for the first of its new peers.
const MARK: &str = "recovering";
const REST: &str = "recovering.rest";
const NEW: &str = "recovering.new";
/// Which stores the peers had; they are gone.
const PEERS: &str = "peers";
/// Bytes of the log that are applied at once.
const BATCH: usize = 4 << 20;
/// Entries in which the last change is looked for.
const LAST: u64 = 64;

pub fn is_recovering<D: Disk>(disk: &D) -> Result<bool, StoreError> {
    match disk.open(MARK, OpenHow::default()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::disk("opening", MARK)(error)),
    }
}

/// A majority works with it.
pub fn end<D: Disk>(disk: &D) -> Result<(), StoreError> {
    open::remove(disk, MARK)
}

/// Whether it can be that: not while a copy that it is isn't whole.
pub fn check<D: Disk, M: Meta>(opened: &Opened<D, M>) -> Result<(), StoreError> {
    if opened.identity.joined <= opened.recovered.last {
        return Ok(());
    }
    Err(StoreError::Identity {
        path: "identity".into(),
        why: format!(
            "this store is a copy that is whole only with log entry {}, and its log ends at {}: files and names in it are of different moments. Another node's store, or a backup, is needed; `holdfast export` gets out of it what there is",
            opened.identity.joined, opened.recovered.last
        ),
    })
}

/// When the active node changed something last, by its clock, as far as this log knows.
pub fn last_change<D: Disk>(log: &LogReader<D>, last: LogIndex) -> Option<Time> {
    let first = log.first_index().0.max(last.0.saturating_sub(LAST));
    let entries = log.read(LogIndex(first), last.next(), usize::MAX).ok()?;
    let effects = entries
        .iter()
        .filter_map(|entry| Entry::decode(entry.index, &entry.data).ok())
        .flat_map(|entry| entry.effects);
    let times = effects.filter_map(|effect| match effect {
        Effect::Put { key, value } if key.first() == Some(&b'i') => Some(Inode::decode(&value).ok()?.ctime),
        _ => None,
    });
    times.max()
}

/// What is still to be done when all is applied: the log begins anew behind that, for a node that took its entries from
/// before the recovery one by one would be of the old history on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) last: LogIndex,
    pub(crate) last_term: Term,
    pub(crate) state: HardState,
    pub(crate) store: [u8; 16],
    /// Of the new history; 0: that has begun already.
    pub(crate) epoch: u64,
}

impl Rest {
    pub(crate) fn encode(&self) -> String {
        let Self {
            last,
            last_term,
            state,
            store,
            epoch,
        } = self;
        format!(
            "{last} {last_term} {} {} {} {epoch}\n",
            state.term,
            state.vote,
            hex(store)
        )
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let mut number = || words.next()?.parse().ok();
        let (last, last_term) = (LogIndex(number()?), Term(number()?));
        let state = HardState {
            term: Term(number()?),
            vote: number()?,
            commit: last,
        };
        let store = unhex(words.next()?)?;
        // A release before this one began the history before it wrote this.
        let epoch = words.next().map_or(Some(0), |word| word.parse().ok())?;
        Some(Self {
            last,
            last_term,
            state,
            store,
            epoch,
        })
    }
}

/// A recovery was interrupted after all had been applied: nothing but `go_on` may open this store.
pub fn is_under_way<D: Disk>(disk: &D) -> Result<bool, StoreError> {
    Ok(read_rest(disk)?.is_some())
}

fn read_rest<D: Disk>(disk: &D) -> Result<Option<Rest>, StoreError> {
    let file = match disk.open(REST, OpenHow::default()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(StoreError::disk("opening", REST))?,
    };
    let mut text = [0; 256];
    let len = file.read_at(&mut text, 0).map_err(StoreError::disk("reading", REST))?;
    let rest = std::str::from_utf8(&text[..len]).ok().and_then(Rest::decode);
    rest.map(Some).ok_or_else(|| StoreError::Identity {
        path: REST.into(),
        why: "it doesn't say what is left to do of an interrupted recovery: the file is damaged. `holdfast export` gets the files out".into(),
    })
}

/// By rename: it is there as a whole or not at all.
fn write<D: Disk>(disk: &D, path: &str, text: &str) -> Result<(), StoreError> {
    let how = OpenHow {
        create: true,
        direct: false,
    };
    let file = disk.open(NEW, how).map_err(StoreError::disk("making", NEW))?;
    file.set_len(0).map_err(StoreError::disk("emptying", NEW))?;
    file.write_at(text.as_bytes(), 0)
        .map_err(StoreError::disk("writing", NEW))?;
    file.sync_data().map_err(StoreError::disk("syncing", NEW))?;
    disk.rename(NEW, path).map_err(StoreError::disk("renaming", NEW))?;
    disk.sync_dir("")
        .map_err(StoreError::disk("syncing", "the store's folder"))
}

/// Carries out all that the log holds and begins the history of this number, which nobody else may have: draw it, and the
/// store's new id as well. What the log ends at.
///
/// A crash anywhere leaves a store that is as before, or one for `go_on`.
pub fn force<D: Disk, M: Meta>(opened: Opened<D, M>, epoch: u64, store_id: [u8; 16]) -> Result<LogIndex, StoreError> {
    check(&opened)?;
    let Opened {
        store,
        log,
        recovered,
        identity,
        redo_until,
        ..
    } = opened;
    // What the process before had written and not synced looks like what is on disk.
    let disk = store.data.disk();
    disk.sync_all()
        .map_err(StoreError::disk("syncing", "the store's file system"))?;
    let last = recovered.last;
    let mut applier = Applier::new(store.clone(), redo_until)?;
    while store.applied() < last {
        let read = log.reader().read(store.applied().next(), last.next(), BATCH)?;
        let entries = read.into_iter().map(|entry| Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data,
        });
        applier.apply(&entries.collect::<Vec<_>>())?;
    }
    let last_term = log.reader().term(last).unwrap_or(recovered.hard_state.term);
    checkpoint::run(&store)?;
    // Also if nothing was to be applied.
    store.meta.flush()?;
    drop(log);
    let rest = Rest {
        last,
        last_term,
        state: HardState {
            commit: last,
            ..recovered.hard_state
        },
        store: store_id,
        epoch,
    };
    write(disk, REST, &rest.encode())?;
    steps(disk, applier, rest, &identity)
}

/// The last steps, each of which may be done again.
pub fn go_on<D: Disk, M: Meta>(disk: &D, meta: M, identity: &Identity) -> Result<LogIndex, StoreError> {
    let Some(rest) = read_rest(disk)? else {
        return Ok(LogIndex::ZERO);
    };
    let store = Arc::new(Store::new(disk.clone(), meta, rest.last));
    let applier = Applier::new(store, LogIndex::ZERO)?;
    steps(disk, applier, rest, identity)
}

fn steps<D: Disk, M: Meta>(
    disk: &D,
    mut applier: Applier<D, M>,
    rest: Rest,
    identity: &Identity,
) -> Result<LogIndex, StoreError> {
    let Rest {
        last,
        last_term,
        state,
        store,
        epoch,
    } = rest;
    if epoch != 0 {
        let key = key::own(key::EPOCH);
        let value = Some(Bytes::copy_from_slice(&epoch.to_le_bytes()));
        applier.mend_keys(&[Key { key, value }], &Since::default())?;
    }
    drop(applier);
    Log::begin_after(disk.clone(), store, (last, last_term), state)?;
    checkpoint::publish(disk, last)?;
    let identity = Identity {
        store,
        joined: last,
        ..identity.clone()
    };
    identity.write(disk)?;
    open::remove(disk, PEERS)?;
    write(disk, MARK, "\n")?;
    open::mark_clean(disk, last)?;
    // Crash here: the same once more.
    open::remove(disk, REST)?;
    Ok(last)
}
