//! Whose store this is, written once when it is formatted: a store of another cluster, node or version is
//! refused before anything is read from it or written to it.

use crate::disk::{Disk, DiskFile, OpenHow};
use crate::error::StoreError;
use crate::types::LogIndex;
use std::io::ErrorKind;

const FILE: &str = "identity";
const NEW: &str = "identity.new";
/// Version of everything in the store's folder.
pub const FORMAT: u32 = 2;
/// The oldest one that can be opened, and becomes the above with it: that of the release before (docs/adr/0016-versions.md).
const OLDEST: u32 = FORMAT - 1;
const HEAD: &str = "holdfast store, format ";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: String,
    pub node: String,
    /// Random, of this formatting or copying: a wiped node has another one.
    pub store: [u8; 16],
    /// Copied from a peer that led the cluster: the entry that it sequenced at the end of the copy. Until redo has passed it
    /// nothing here is as it was at one moment. 0: never copied.
    pub joined: LogIndex,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn format_of(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix(HEAD)?.parse().ok()
}

fn refusal(format: u32) -> String {
    let then = if format > FORMAT {
        "start the version of holdfast that wrote it, or a later one"
    } else {
        "upgrade one release at a time: start the version of holdfast that wrote it, or the one after that"
    };
    format!("the store has format {format}, this software reads formats {OLDEST} and {FORMAT}: {then}")
}

impl Identity {
    pub(crate) fn encode(&self) -> String {
        let joined = match self.joined {
            LogIndex::ZERO => String::new(),
            index => format!("joined {index}\n"),
        };
        let body = format!(
            "{HEAD}{FORMAT}\ncluster {}\nnode {}\nstore {}\n{joined}",
            self.cluster,
            self.node,
            hex(&self.store)
        );
        let sum = blake3::hash(body.as_bytes()).to_hex();
        format!("{body}blake3 {sum}\n")
    }

    pub(crate) fn decode(text: &str) -> Result<Self, String> {
        let (body, sum) = text.rsplit_once("blake3 ").ok_or("it isn't complete")?;
        match format_of(body) {
            None => return Err("it isn't the identity of a Holdfast store".into()),
            Some(OLDEST..=FORMAT) => {}
            Some(other) => return Err(refusal(other)),
        }
        if blake3::hash(body.as_bytes()).to_hex().as_str() != sum.trim_end() {
            return Err(
                "its checksum is wrong: the file is damaged; leave this node off, keep its store, and see `A new replica` in the runbook"
                    .into(),
            );
        }
        // Not `lines`: that takes a carriage return for a part of the end.
        let line = |name: &str| {
            body.split('\n')
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        let field = |name: &str| {
            line(name)
                .map(str::to_owned)
                .ok_or_else(|| format!("it lacks the line `{name}`"))
        };
        let joined = match line("joined").map(str::parse) {
            None => LogIndex::ZERO,
            Some(Ok(index)) => LogIndex(index),
            Some(Err(_)) => return Err("its line `joined` isn't a number".into()),
        };
        let store = unhex(&field("store")?).ok_or("its line `store` isn't 32 hexadecimal digits")?;
        Ok(Self {
            cluster: field("cluster")?,
            node: field("node")?,
            store,
            joined,
        })
    }

    /// `None`: the folder has never been formatted.
    pub fn read<D: Disk>(disk: &D) -> Result<Option<Self>, StoreError> {
        let Some(text) = Self::text(disk)? else { return Ok(None) };
        let refused = |why| StoreError::Identity { path: FILE.into(), why };
        Self::decode(&text).map(Some).map_err(refused)
    }

    /// A store of the format before is one of this format from here on: what is written to it next the release before can't read.
    pub(crate) fn upgrade<D: Disk>(&self, disk: &D) -> Result<(), StoreError> {
        let found = Self::text(disk)?.and_then(|text| format_of(&text));
        match found {
            Some(older) if older < FORMAT => {
                tracing::info!(from = older, to = FORMAT, "the store's format is raised");
                self.write(disk)
            }
            _ => Ok(()),
        }
    }

    fn text<D: Disk>(disk: &D) -> Result<Option<String>, StoreError> {
        let file = match disk.open(FILE, OpenHow::default()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(StoreError::disk("opening", FILE))?,
        };
        let mut text = vec![0; 4096];
        let len = file.read_at(&mut text, 0).map_err(StoreError::disk("reading", FILE))?;
        let refused = |why| StoreError::Identity { path: FILE.into(), why };
        text.truncate(len);
        let text = String::from_utf8(text).map_err(|_| refused("it isn't text: the file is damaged".into()))?;
        Ok(Some(text))
    }

    /// The last step of formatting: by rename, so that a crash leaves a folder that counts as never formatted.
    pub(crate) fn write<D: Disk>(&self, disk: &D) -> Result<(), StoreError> {
        let file = disk
            .open(
                NEW,
                OpenHow {
                    create: true,
                    direct: false,
                },
            )
            .map_err(StoreError::disk("making", NEW))?;
        file.set_len(0).map_err(StoreError::disk("emptying", NEW))?;
        file.write_at(self.encode().as_bytes(), 0)
            .map_err(StoreError::disk("writing", NEW))?;
        file.sync_data().map_err(StoreError::disk("syncing", NEW))?;
        disk.rename(NEW, FILE).map_err(StoreError::disk("renaming", NEW))?;
        disk.sync_dir("")
            .map_err(StoreError::disk("syncing", "the store's folder"))
    }

    /// Refuses a store that belongs elsewhere.
    pub fn must_be(&self, cluster: &str, node: &str) -> Result<(), StoreError> {
        let refused = |why| Err(StoreError::Identity { path: FILE.into(), why });
        if self.cluster != cluster {
            return refused(format!(
                "the store belongs to cluster {}, the configuration to {cluster}: point `store.path` at the right folder, or move this one away",
                self.cluster
            ));
        }
        if self.node != node {
            return refused(format!(
                "the store belongs to node {}, the configuration is node {node}'s: a replica can't be copied from node to node",
                self.node
            ));
        }
        Ok(())
    }
}
