//! Units of the PBX that write what a power cut must not take: calls being recorded, closed when they end; records that
//! are synced one by one; a setting that is replaced again and again. Each notes, outside of the mount, what the file
//! system has acknowledged (see `ledger::Note`).
//!
//! A file's name is used once: each start of a unit has names of its own. Its bytes follow from the name
//! (`demo::pattern`).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use rand::RngExt as _;
use toml::Table;

use super::ledger::Note;
use crate::clock::{Deadline, pause, unix_ms};
use crate::demo::pattern::Pattern;
use crate::demo::service;

/// Below the mount, as `holdfast init` gives it the class `recordings`.
pub const RECORDINGS: &str = "pbx/recordings";
pub const RECORDS: &str = "records";
/// Below `RECORDS`.
pub const SETTING: &str = "setting";
/// What the units are called, and their notes.
pub const UNITS: [&str; 2] = ["calls", "records"];

const CALLS: usize = 20;
const CALL_CHUNK: usize = 6400;
const CALL_EVERY: Duration = Duration::from_millis(80);
/// Chunks of one call.
const CALL_CHUNKS: std::ops::Range<u64> = 1..40;
const RECORD: usize = 512;
/// Then the next file begins.
const RECORDS_BYTES: u64 = 1 << 20;
const RECORD_EVERY: Duration = Duration::from_millis(5);
const SETTING_BYTES: usize = 64 << 10;
const SETTING_EVERY: Duration = Duration::from_millis(50);

/// What vip-agent calls, beside `demo::service::Service`.
#[derive(Debug, Subcommand)]
pub enum Load {
    /// Calls being recorded below the mount at ROOT.
    Calls {
        root: PathBuf,
        notes: PathBuf,
        pid_file: PathBuf,
    },
    /// Records and a setting, synced.
    Records {
        root: PathBuf,
        notes: PathBuf,
        pid_file: PathBuf,
    },
}

/// The `[[unit]]` tables; `program` has `Load` as its command `load` and `demo::service::Service` as `unit`.
pub fn units(program: &Path) -> Result<String> {
    let ours = |name: &str| -> Table {
        let notes = format!("{{dir}}/{name}.notes");
        service::unit(program, name, &["load", name, "{mnt}", &notes])
    };
    service::tables([service::database(program)?].into_iter().chain(UNITS.map(ours)))
}

impl Load {
    /// Returns at the first error, which ends the unit.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Calls { root, notes, pid_file } => {
                service::note(&pid_file)?;
                let folder = make(&root, RECORDINGS)?;
                let call = move |notes: &Notes, worker: usize| record_calls(&folder, notes, worker);
                all_at_once(&notes, (0..CALLS).map(|_| call.clone()).collect())
            }
            Self::Records { root, notes, pid_file } => {
                service::note(&pid_file)?;
                let folder = make(&root, RECORDS)?;
                let settings = folder.clone();
                let notes = Notes::open(&notes)?;
                let (ended, wait) = std::sync::mpsc::channel();
                let (other, other_ended) = (notes.clone(), ended.clone());
                thread::spawn(move || drop(ended.send(append_records(&folder, &notes))));
                thread::spawn(move || drop(other_ended.send(replace_setting(&settings, &other))));
                wait.recv().context("nothing to write")?
            }
        }
    }
}

fn make(root: &Path, folder: &str) -> Result<PathBuf> {
    let path = root.join(folder);
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// Where all threads of a unit note what was acknowledged.
#[derive(Clone)]
struct Notes(Arc<File>);

impl Notes {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(Arc::new(
            file.with_context(|| format!("opening {}", path.display()))?,
        )))
    }

    /// One short line in one write: threads don't mix their notes.
    fn add(&self, note: &Note) -> Result<()> {
        (&mut &*self.0)
            .write_all(format!("{}\n", note.line()).as_bytes())
            .context("noting what was acknowledged")
    }
}

fn all_at_once<W>(notes: &Path, workers: Vec<W>) -> Result<()>
where
    W: FnOnce(&Notes, usize) -> Result<()> + Send + 'static,
{
    let notes = Notes::open(notes)?;
    let (ended, wait) = std::sync::mpsc::channel();
    for (number, worker) in workers.into_iter().enumerate() {
        let (notes, ended) = (notes.clone(), ended.clone());
        // The receiver is gone only when another one has failed already.
        thread::spawn(move || drop(ended.send(worker(&notes, number))));
    }
    drop(ended);
    wait.recv().context("nothing to write")?
}

fn record_calls(folder: &Path, notes: &Notes, line: usize) -> Result<()> {
    let began = unix_ms();
    // Lines don't all write at the same moment.
    pause(CALL_EVERY * u32::try_from(line)? / u32::try_from(CALLS)?);
    for number in 0_u64.. {
        let name = format!("{began}-{line:02}-{number}.wav");
        let (path, pattern) = (folder.join(&name), Pattern::of(&name));
        let name = format!("{RECORDINGS}/{name}");
        let mut file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        let mut end = 0;
        notes.add(&Note::Received(name.clone(), end))?;
        for _chunk in 0..rand::rng().random_range(CALL_CHUNKS) {
            let next = Deadline::after(CALL_EVERY);
            let written = file
                .write(&pattern.bytes(end, CALL_CHUNK))
                .with_context(|| format!("appending to {}", path.display()))?;
            ensure!(written > 0, "a write to {} wrote nothing", path.display());
            end += written as u64;
            notes.add(&Note::Received(name.clone(), end))?;
            pause(next.left());
        }
        close(file).with_context(|| format!("closing {}", path.display()))?;
        notes.add(&Note::Sealed(name, end))?;
    }
    Ok(())
}

/// Dropping a file would keep what the close says to itself.
fn close(file: File) -> std::io::Result<()> {
    // SAFETY: the descriptor was the file's own and nobody uses it any more.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn append_records(folder: &Path, notes: &Notes) -> Result<()> {
    let began = unix_ms();
    for number in 0_u64.. {
        let name = format!("{began}-{number}");
        let (path, pattern) = (folder.join(&name), Pattern::of(&name));
        let mut file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        let mut end = 0;
        while end < RECORDS_BYTES {
            let next = Deadline::after(RECORD_EVERY);
            file.write_all(&pattern.bytes(end, RECORD))
                .and_then(|()| file.sync_data())
                .with_context(|| format!("appending to {}", path.display()))?;
            end += RECORD as u64;
            notes.add(&Note::Durable(format!("{RECORDS}/{name}"), end))?;
            pause(next.left());
        }
    }
    Ok(())
}

/// As programs do it that know how: write another one, sync it, rename it over the first, sync the folder.
fn replace_setting(folder: &Path, notes: &Notes) -> Result<()> {
    let (fresh, target) = (folder.join("setting.new"), folder.join(SETTING));
    let replace = |number: u64| -> std::io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(&setting(number))?;
        file.sync_all()?;
        fs::rename(&fresh, &target)?;
        File::open(folder)?.sync_all()
    };
    // Later ones are greater, also on another node after a failover.
    let mut number = 0;
    loop {
        let next = Deadline::after(SETTING_EVERY);
        number = unix_ms().max(number + 1);
        replace(number).with_context(|| format!("replacing {}", target.display()))?;
        notes.add(&Note::Setting(number))?;
        pause(next.left());
    }
}

fn setting(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend(Pattern::of(&format!("{SETTING}-{number}")).bytes(0, SETTING_BYTES));
    bytes
}

/// Which setting these bytes are, whole and nothing else.
pub fn setting_in(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (bytes == setting(number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{setting, setting_in};

    #[test]
    fn a_mixture_of_two_settings_is_none() {
        assert_eq!(setting_in(&setting(7)), Some(7));
        let mut mixed = setting(7);
        mixed[40_000..].copy_from_slice(&setting(8)[40_000..]);
        assert_eq!(setting_in(&mixed), None);
        assert_eq!(setting_in(&setting(7)[..50_000]), None);
    }
}
