//! Formatting, opening and recovering a replica's store.

use crate::apply::stored_index;
use crate::checkpoint;
use crate::copy;
use crate::data::DataFiles;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::StoreError;
use crate::identity::Identity;
use crate::log::{self, Geometry, Log, Recovered};
use crate::meta::Meta;
use crate::recover;
use crate::store::Store;
use crate::types::LogIndex;
use std::io::ErrorKind;
use std::sync::Arc;

/// Says that the daemon stopped after syncing all it had; removed at the next start.
const CLEAN: &str = "clean-stop";

/// A store that is open, and what its log says. Nothing has been redone yet: entries behind `checkpoint`
/// are applied again as the cluster confirms that they are committed.
pub struct Opened<D: Disk, M: Meta> {
    pub store: Arc<Store<D, M>>,
    pub log: Log<D>,
    pub recovered: Recovered,
    pub identity: Identity,
    /// Redo starts behind it.
    pub checkpoint: LogIndex,
    /// The daemon stopped in order, so nothing that it had received is missing.
    pub clean: bool,
    /// Entries up to here may have been applied before; until they are again nothing may be served.
    pub redo_until: LogIndex,
}

/// Makes an empty store in an empty folder. Until the identity stands, at the very end, it can be done again.
pub fn format<D: Disk>(disk: &D, identity: &Identity, log_bytes: u64) -> Result<(), StoreError> {
    format_as(disk, identity, Geometry::of_total(log_bytes))
}

/// `format` with the log's sizes chosen by the caller.
pub fn format_as<D: Disk>(disk: &D, identity: &Identity, log: Geometry) -> Result<(), StoreError> {
    DataFiles::format(disk)?;
    // An interrupted formatting may have made a log, of another id; nothing was ever stored in it.
    remove(disk, log::DESCRIPTION)?;
    Log::format_as(disk.clone(), log, identity.store)?;
    checkpoint::publish(disk, LogIndex::ZERO)?;
    mark_clean(disk, LogIndex::ZERO)?;
    identity.write(disk)
}

/// Opens a formatted store to go on with it; `meta` is the metadata store beside it.
pub fn open<D: Disk, M: Meta>(disk: D, meta: M, identity: Identity) -> Result<Opened<D, M>, StoreError> {
    open_with_log(disk, meta, identity, 0)
}

/// As `open`; a log of fewer bytes than these is made longer, if the last stop was in order and there is room for it.
pub fn open_with_log<D: Disk, M: Meta>(
    disk: D,
    meta: M,
    identity: Identity,
    log_bytes: u64,
) -> Result<Opened<D, M>, StoreError> {
    // The process before may have been killed between a write and its sync. What it left, a batch at the end of the log or
    // the name of a new data file, looks like what is on disk, is taken for durable from here on, and is never synced again.
    disk.sync_all()
        .map_err(StoreError::disk("syncing", "the store's file system"))?;
    let mut opened = open_to_read(disk, meta, identity)?;
    // After a crash others wait for this node.
    if opened.clean {
        grow(&mut opened.log, opened.store.data.disk(), log_bytes);
    }
    opened.identity.upgrade(opened.store.data.disk())?;
    // So that a crash from here on is no clean stop.
    unmark_clean(opened.store.data.disk())?;
    Ok(opened)
}

/// Whatever comes in its way, there is a log, as long as it was or longer.
fn grow<D: Disk>(log: &mut Log<D>, disk: &D, bytes: u64) {
    let has = log.geometry().total_bytes();
    if bytes <= has {
        return;
    }
    // As much again, and something to fill, stays free, or the store would be full from then on.
    let needed = bytes - has + bytes + bytes / 4;
    let free = disk.space().map_or(u64::MAX, |space| space.free);
    if free < needed {
        tracing::warn!(
            has_mib = has >> 20,
            wanted_mib = bytes >> 20,
            free_mib = free >> 20,
            needed_mib = needed >> 20,
            "the log isn't made longer: there is no room for it"
        );
    } else if let Err(error) = log.grow(bytes) {
        let why = crate::error::chain(&error);
        tracing::warn!(
            has_mib = has >> 20,
            wanted_mib = bytes >> 20,
            why,
            "the log isn't made longer"
        );
    } else {
        let now = log.geometry().total_bytes();
        tracing::info!(from_mib = has >> 20, to_mib = now >> 20, "the log's length");
    }
}

/// What was opened to read is about to be changed.
pub fn unmark<D: Disk, M: Meta>(opened: &Opened<D, M>) -> Result<(), StoreError> {
    unmark_clean(opened.store.data.disk())
}

/// As `open`, for a caller that appends nothing: the mark of a clean stop is left for the next start.
pub fn open_to_read<D: Disk, M: Meta>(disk: D, meta: M, identity: Identity) -> Result<Opened<D, M>, StoreError> {
    if copy::is_copying(&disk)? {
        return Err(StoreError::Identity {
            path: "copying".into(),
            why: "a copy of this store from a peer isn't complete: start `holdfast serve`, it goes on with it".into(),
        });
    }
    if recover::is_under_way(&disk)? {
        return Err(StoreError::Identity {
            path: "recovering.rest".into(),
            why: "a forced recovery was interrupted: `holdfast recover --force` brings it to its end".into(),
        });
    }
    let checkpoint = checkpoint::published(&disk)?;
    let (log, recovered) = Log::open(disk.clone(), identity.store, checkpoint)?;
    // The cut is final: whoever opens the log next would take it for the end that the mark speaks of.
    if recovered.torn.is_some() {
        unmark_clean(&disk)?;
    }
    let clean = read_clean(&disk)? == Some(recovered.last) && recovered.torn.is_none();
    let stored = stored_index(&meta)?;
    if stored > recovered.last || stored < checkpoint {
        return Err(StoreError::Identity {
            path: "meta".into(),
            why: format!(
                "the metadata store is at log entry {stored}, the checkpoint at {checkpoint}, the log ends at {}: parts of different \
                 stores were mixed, or the disk lost what it had confirmed; leave this node off, keep its store, and see `A new replica` in the runbook",
                recovered.last
            ),
        });
    }
    let store = Arc::new(Store::new(disk, meta, checkpoint));
    // A copy holds what its source had applied meanwhile; the log that brings it in order may not be here yet.
    let redo_until = recovered.last.max(identity.joined);
    Ok(Opened {
        store,
        log,
        recovered,
        identity,
        checkpoint,
        clean,
        redo_until,
    })
}

/// What was applied, and up to which entry, for a caller that gets files out of a store that can't be opened. Nothing says that
/// the files' bytes are of the moment of that entry.
pub fn as_it_lies<D: Disk, M: Meta>(disk: D, meta: M) -> Result<(Arc<Store<D, M>>, LogIndex), StoreError> {
    let stored = stored_index(&meta)?;
    Ok((Arc::new(Store::new(disk, meta, stored)), stored))
}

/// All that the log holds is synced and nothing more will be written: the next start may trust it.
pub fn mark_clean<D: Disk>(disk: &D, last: LogIndex) -> Result<(), StoreError> {
    let file = disk
        .open(
            CLEAN,
            OpenHow {
                create: true,
                direct: false,
            },
        )
        .map_err(StoreError::disk("making", CLEAN))?;
    file.set_len(0).map_err(StoreError::disk("emptying", CLEAN))?;
    file.write_at(format!("{last}\n").as_bytes(), 0)
        .map_err(StoreError::disk("writing", CLEAN))?;
    file.sync_data().map_err(StoreError::disk("syncing", CLEAN))?;
    disk.sync_dir("")
        .map_err(StoreError::disk("syncing", "the store's folder"))
}

/// The end of the log at the clean stop, if there was one.
pub(crate) fn read_clean<D: Disk>(disk: &D) -> Result<Option<LogIndex>, StoreError> {
    let file = match disk.open(CLEAN, OpenHow::default()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(StoreError::disk("opening", CLEAN))?,
    };
    let mut text = [0; 32];
    let len = file.read_at(&mut text, 0).map_err(StoreError::disk("reading", CLEAN))?;
    let last = std::str::from_utf8(&text[..len])
        .ok()
        .and_then(|text| text.trim_end().parse().ok());
    Ok(last.map(LogIndex))
}

/// What it says of the end of the log doesn't count any more.
pub(crate) fn unmark_clean<D: Disk>(disk: &D) -> Result<(), StoreError> {
    remove(disk, CLEAN)
}

/// Removes a file for good; there may be none.
pub(crate) fn remove<D: Disk>(disk: &D, path: &str) -> Result<(), StoreError> {
    match disk.remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(StoreError::disk("removing", path))?,
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    disk.sync_dir(folder)
        .map_err(StoreError::disk("syncing the folder of", path))
}

/// The index that the metadata store has come to; everything up to it is surely committed.
pub fn stored<D: Disk, M: Meta>(store: &Store<D, M>) -> Result<LogIndex, StoreError> {
    stored_index(&store.meta)
}
