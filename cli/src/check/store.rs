//! `holdfast check --store`: one stopped node's store, with nothing but its disk. As at the daemon's next start, what its log is known to
//! hold beyond the checkpoint is applied first; until then files and checksums may be of different moments.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use holdfast_storage::apply::Applier;
use holdfast_storage::disk::Disk as _;
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::error::StoreError;
use holdfast_storage::identity::Identity;
use holdfast_storage::meta::Meta as _;
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::open::{self, Opened};
use holdfast_storage::types::{BLOCK, Ino, LogIndex};
use holdfast_storage::verify::{self, Report};
use holdfast_storage::{checkpoint, digest, key, scrub};
use serde_json::json;

use crate::export::{left_out, lock, redo};
use crate::output::{complain, print, progress};
use crate::paths;
use crate::words::{bytes, count};

/// Where files of bytes go that belong to no inode, in the store's folder.
const ASIDE: &str = "set-aside";
/// Of each kind; more are counted.
const SHOWN: u64 = 200;

type Store = Opened<RealDisk, Rocks>;

pub(super) fn run(folder: &Path, repair: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let _held_until_the_end = lock(folder)?;
    let opened = opened(folder)?;
    let mut look = Look {
        opened: &opened,
        folder,
        repair,
        quiet: as_json,
        at: LogIndex::ZERO,
        unsettled: HashSet::new(),
        found: Vec::new(),
        wrong: 0,
        mended: 0,
        keys: 0,
        keys_total: opened.store.meta.count()?,
        bytes: 0,
    };
    look.all()?;
    progress("");
    let (text, code) = look.verdict();
    print(&text)?;
    Ok(ExitCode::from(code))
}

fn opened(folder: &Path) -> anyhow::Result<Store> {
    let disk = RealDisk::open(folder).with_context(|| format!("opening the store's folder {}", folder.display()))?;
    if !folder.join("meta").is_dir() {
        bail!(
            "{} has no metadata (the folder `meta`): it is no whole store",
            folder.display()
        );
    }
    let Some(identity) = Identity::read(&disk)? else {
        bail!(
            "there is no store in {}: name the folder that `store.path` names in the configuration",
            folder.display()
        );
    };
    complain(&format!(
        "store of node {} of the cluster with id {}",
        identity.node, identity.cluster
    ));
    let meta = Rocks::open(&folder.join("meta"))
        .context("the metadata can't be opened; see `A new replica` in the runbook")?;
    Ok(open::open_to_read(disk, meta, identity)?)
}

struct Look<'a> {
    opened: &'a Store,
    folder: &'a Path,
    repair: bool,
    /// One document at the end is wanted.
    quiet: bool,
    at: LogIndex,
    /// Files that entries which aren't known to be committed may have changed: what they should hold isn't known.
    unsettled: HashSet<Ino>,
    found: Vec<String>,
    wrong: u64,
    mended: u64,
    keys: u64,
    keys_total: u64,
    bytes: u64,
}

impl Report for Look<'_> {
    fn wrong(&mut self, what: String) {
        self.wrong += 1;
        if self.wrong > SHOWN {
            return;
        }
        progress("");
        if !self.quiet {
            complain(&what);
        }
        self.found.push(what);
    }

    fn keys(&mut self, count: u64) {
        self.keys += count;
        if self.keys.is_multiple_of(4096) {
            self.show("metadata");
        }
    }
}

impl Look<'_> {
    fn show(&self, what: &str) {
        let total = self.keys_total.max(self.keys);
        progress(&format!(
            "{what}: {} of about {total} keys, {} of data",
            self.keys,
            bytes(self.bytes)
        ));
    }

    fn all(&mut self) -> anyhow::Result<()> {
        let Opened {
            log, recovered, clean, ..
        } = self.opened;
        complain(&format!(
            "log entries {} to {}, {}{}",
            log.reader().first_index(),
            recovered.last,
            if *clean {
                "stopped in order"
            } else {
                "not stopped in order"
            },
            recovered
                .torn
                .as_ref()
                .map_or_else(String::new, |torn| format!("; its end was cut off: {torn}"))
        ));
        if let Some(passed) = &recovered.passed {
            complain(&format!(
                "the log is damaged: {passed}. Nothing is missing; look at the disk's health (`smartctl`)"
            ));
        }
        if self.repair {
            // What a killed process wrote and never synced is about to be taken for durable.
            let disk = self.opened.store.data.disk();
            disk.sync_all().context("syncing the store's file system")?;
        }
        self.at = redo(self.opened)?;
        let whole = self.opened.identity.joined;
        if self.at < whole {
            bail!(
                "this store is a copy that fits together only with log entry {whole}, and its log is known to be committed up to {}: it can't be judged before its daemon has caught up",
                self.at
            );
        }
        self.unsettled = left_out(self.opened, self.at)?;
        if self.at < recovered.last {
            complain(&format!(
                "looked at as of log entry {}: it isn't known here whether the later ones are committed, so {} that they change may hold other bytes",
                self.at,
                count(self.unsettled.len() as u64, "file")
            ));
        }
        let meta = &self.opened.store.meta;
        verify::metadata(meta, self).context("reading the metadata")?;
        self.digest()?;
        self.blocks()?;
        self.strays()?;
        if self.repair {
            checkpoint::run(&self.opened.store)?;
            meta.flush()?;
        }
        Ok(())
    }

    /// The store was changed beside what was applied.
    fn digest(&mut self) -> Result<(), StoreError> {
        let Some(mismatch) = digest::verify(&self.opened.store.meta)? else {
            return Ok(());
        };
        self.wrong("the metadata and checksums aren't those that were applied: something else than the daemon changed the store, or it is damaged. A comparison of the running nodes (`holdfast check`) says where".into());
        if self.repair {
            let mut applier = Applier::new(self.opened.store.clone(), self.opened.redo_until)?;
            applier.correct_digest(mismatch)?;
            self.note("its digest says what the store holds now, so that the other nodes see where it differs");
        }
        Ok(())
    }

    fn note(&self, what: &str) {
        if !self.quiet {
            complain(&format!("  {what}"));
        }
    }

    fn blocks(&mut self) -> Result<(), StoreError> {
        let mut buffer = AlignedBuf::zeroed(0);
        let mut from = Some(bytes::Bytes::new());
        self.keys = 0;
        while let Some(at) = from {
            // Attributes that can't be read were told with the metadata.
            let step = scrub::step(&self.opened.store, &at, &mut buffer)?;
            self.keys += step.keys;
            self.bytes += step.bytes;
            self.show("data");
            for (ino, number) in step.suspects.into_iter().chain(step.damaged) {
                if !self.unsettled.contains(&ino) {
                    let path = paths::path(&self.opened.store, ino)
                        .map_or_else(|_| String::new(), |path| format!(" (/{path})"));
                    self.wrong(format!(
                        "inode {ino}{path}: the block at {} doesn't fit its checksum",
                        number * BLOCK
                    ));
                }
            }
            from = step.next;
        }
        Ok(())
    }

    /// Files of bytes that belong to no inode take room and nothing else; unless what belonged to them is what's lost.
    fn strays(&mut self) -> anyhow::Result<()> {
        let is_sound = self.wrong == 0;
        let folders = fs::read_dir(self.folder.join("data")).context("listing the data files")?;
        for folder in folders {
            let folder = folder.context("listing the data files")?.path();
            if !folder.is_dir() {
                self.wrong(format!("{} is no folder of the store", folder.display()));
                continue;
            }
            for file in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
                let file = file.with_context(|| format!("listing {}", folder.display()))?.path();
                self.stray(&file, is_sound)?;
            }
        }
        Ok(())
    }

    fn stray(&mut self, file: &PathBuf, is_sound: bool) -> anyhow::Result<()> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ino = u64::from_str_radix(name, 16).ok().map(Ino).filter(|_| name.len() == 16);
        let Some(ino) = ino else {
            self.wrong(format!("{} is no file of the store", file.display()));
            return Ok(());
        };
        if self.unsettled.contains(&ino) || self.opened.store.meta.get(&key::inode(ino))?.is_some() {
            return Ok(());
        }
        self.wrong(format!("{} belongs to inode {ino}, which isn't there", file.display()));
        if self.repair && is_sound {
            let aside = self.folder.join(ASIDE);
            fs::create_dir_all(&aside).with_context(|| format!("making {}", aside.display()))?;
            fs::rename(file, aside.join(name)).with_context(|| format!("moving {}", file.display()))?;
            self.mended += 1;
            self.note(&format!(
                "mended: it is in {} now; remove it when nobody misses it",
                aside.display()
            ));
        } else if self.repair {
            self.note("left where it is: what isn't sound may be what belonged to it");
        }
        Ok(())
    }

    fn verdict(&self) -> (String, u8) {
        let left = self.wrong - self.mended;
        let code = u8::from(left > 0);
        if self.quiet {
            let document = json!({
                "sound": left == 0,
                "at_index": self.at.0,
                "keys": self.keys,
                "bytes": self.bytes,
                "wrong": self.wrong,
                "mended": self.mended,
                "found": self.found,
            });
            return (format!("{document:#}\n"), code);
        }
        let looked = format!(
            "{} of metadata and {} of data, as of log entry {}",
            count(self.keys, "key"),
            bytes(self.bytes),
            self.at
        );
        if self.wrong > SHOWN {
            complain(&format!("and {} more", self.wrong - SHOWN));
        }
        let text = match (left, self.mended) {
            (0, 0) => format!("sound: {looked}\n"),
            (0, mended) => format!("sound now: {mended} mended; {looked}\n"),
            (left, mended) => format!(
                "not sound: {} wrong, {mended} mended; {looked}\n  What is left takes the peers. Start the daemon: blocks get their bytes from them (`holdfast scrub` does it at once), and \
                 `holdfast check --repair` puts right what two nodes have alike. If it doesn't start: `A new replica` in the runbook.\n",
                count(left, "thing")
            ),
        };
        (text, code)
    }
}
