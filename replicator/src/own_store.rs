//! This node's own store: opened, made where there is none, or refused.

use crate::error::ReplicaError;
use crate::start::Options;
use crate::volume;
use holdfast_storage::disk::Disk as _;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::error::StoreError;
use holdfast_storage::fit::refuse_unfit;
use holdfast_storage::identity::Identity;
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::open::{self as storage, Opened};
use holdfast_storage::types::LogIndex;
use rand::RngExt as _;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::path::Path;

pub(crate) fn open_disk(options: &Options) -> Result<RealDisk, ReplicaError> {
    let path = options.store.display().to_string();
    let wrap = |what: &'static str| {
        let path = path.clone();
        move |source| StoreError::Disk { what, path, source }
    };
    std::fs::create_dir_all(&options.store).map_err(wrap("making the store's folder"))?;
    Ok(RealDisk::open(&options.store).map_err(wrap("opening the store's folder"))?)
}

/// Opens the store, formatting an empty folder, and refuses one that belongs elsewhere.
pub(crate) fn open(options: &Options) -> Result<Opened<RealDisk, Rocks>, ReplicaError> {
    let disk = open_disk(options)?;
    let identity = match Identity::read(&disk)? {
        Some(identity) => identity,
        None => {
            refuse_foreign_files(&options.store)?;
            volume::refuse_unmounted(&options.store, &options.beside)?;
            refuse_unfit(&disk, &options.store)?;
            refuse_without_room(&disk, options)?;
            // Before the identity: a store that has one has metadata, and where they are gone none are made.
            drop(Rocks::create(&options.store.join("meta"))?);
            let identity = Identity {
                cluster: options.cluster_id.clone(),
                node: options.node.clone(),
                store: rand::rng().random(),
                joined: LogIndex::ZERO,
            };
            tracing::info!(
                store = %options.store.display(),
                log_mib = options.log_bytes >> 20,
                "formatting a new store; the log is written once with zeros"
            );
            storage::format(&disk, &identity, options.log_bytes)?;
            identity
        }
    };
    identity.must_be(&options.cluster_id, &options.node)?;
    volume::remember(&options.store, &options.beside);
    let meta = options.store.join("meta");
    if !meta.exists() {
        // A release before this one made it after the identity; where it was lost, the checkpoint refuses an empty one.
        drop(Rocks::create(&meta)?);
    }
    let meta = Rocks::open(&meta)?;
    // One of a release that left it open to all.
    Rocks::close_to_others(&options.store.join("meta"))?;
    Ok(storage::open_with_log(disk, meta, identity, options.log_bytes)?)
}

/// The log is written with zeros to its end; without room for it, and as much again, nothing could be done afterwards either.
fn refuse_without_room(disk: &RealDisk, options: &Options) -> Result<(), ReplicaError> {
    // What an interrupted formatting left is used again.
    let has_begun = options.store.join("log").exists();
    let Some(space) = disk.space().ok().filter(|_| !has_begun) else {
        return Ok(());
    };
    let needed = 2 * options.log_bytes;
    if space.free >= needed {
        return Ok(());
    }
    let why = format!(
        "{} MiB are free there, and a store with a log of {} MiB takes {} MiB at least: make room, or choose a smaller `store.log_mib`",
        space.free >> 20,
        options.log_bytes >> 20,
        needed >> 20
    );
    Err(StoreError::Identity {
        path: options.store.display().to_string(),
        why,
    }
    .into())
}

/// A folder that is no store and isn't empty was probably named by mistake. What an interrupted formatting left is made anew.
fn refuse_foreign_files(store: &Path) -> Result<(), ReplicaError> {
    const OURS: [&str; 9] = [
        "data",
        "log",
        "meta",
        "checkpoint.a",
        "checkpoint.b",
        "clean-stop",
        "identity.new",
        "lost+found",
        "lock",
    ];
    let entries = std::fs::read_dir(store).map_err(|source| StoreError::Disk {
        what: "listing",
        path: store.display().to_string(),
        source,
    })?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !OURS.contains(&name.as_str()) {
            let why = format!(
                "{name} is in it, and it isn't a Holdfast store: `store.path` must name an empty folder or a store"
            );
            return Err(StoreError::Identity {
                path: store.display().to_string(),
                why,
            }
            .into());
        }
    }
    Ok(())
}

/// Two daemons on one store would destroy it.
pub(crate) fn lock(store: &Path) -> Result<File, ReplicaError> {
    let path = store.join("lock");
    let failed = |source| StoreError::Disk {
        what: "locking",
        path: path.display().to_string(),
        source,
    };
    std::fs::create_dir_all(store).map_err(failed)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| StoreError::Identity {
        path: path.display().to_string(),
        why: "another holdfast process has this store open: stop it first".into(),
    })?;
    Ok(file)
}
