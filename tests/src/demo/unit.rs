//! The recorder and the log writer, as units of the PBX: each appends to files on the mount and notes, outside of it,
//! what a successful write has promised.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::pattern::Pattern;
use crate::clock::{Deadline, pause};

pub const RECORDINGS: usize = 50;
/// 200 ms of sound.
const RECORDING_CHUNK: usize = 3200;
const RECORDING_EVERY: Duration = Duration::from_millis(200);
const LOG_CHUNK: usize = 96;
const LOG_EVERY: Duration = Duration::from_millis(20);

/// One file that grows.
struct Appender {
    folder: PathBuf,
    name: String,
    chunk: usize,
    every: Duration,
    /// Before the first chunk, so that fifty calls don't all write at the same moment.
    delay: Duration,
}

/// Fifty calls under way; returns at the first error, which ends them all.
pub fn recorder(folder: &Path, acks: &Path) -> Result<()> {
    let spread =
        |call: usize| RECORDING_EVERY * u32::try_from(call).unwrap_or(0) / u32::try_from(RECORDINGS).unwrap_or(1);
    let calls = (0..RECORDINGS).map(|call| Appender {
        folder: folder.to_owned(),
        name: format!("call-{call:02}.wav"),
        chunk: RECORDING_CHUNK,
        every: RECORDING_EVERY,
        delay: spread(call),
    });
    run_all(folder, acks, calls.collect())
}

/// The PBX's log: small appends, often.
pub fn logger(folder: &Path, acks: &Path) -> Result<()> {
    let (name, delay) = ("pbx.log".to_owned(), Duration::ZERO);
    let appender = Appender {
        folder: folder.to_owned(),
        name,
        chunk: LOG_CHUNK,
        every: LOG_EVERY,
        delay,
    };
    run_all(folder, acks, vec![appender])
}

fn run_all(folder: &Path, acks: &Path, appenders: Vec<Appender>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let notes = OpenOptions::new().create(true).append(true).open(acks);
    let notes = Arc::new(notes.with_context(|| format!("opening {}", acks.display()))?);
    let (ended, wait) = std::sync::mpsc::channel();
    for appender in appenders {
        let (notes, ended) = (Arc::clone(&notes), ended.clone());
        // The receiver is gone only when another one has failed already.
        thread::spawn(move || drop(ended.send(appender.run(&notes))));
    }
    drop(ended);
    wait.recv().context("nothing to write")?
}

impl Appender {
    fn run(&self, notes: &File) -> Result<()> {
        let (path, pattern) = (self.folder.join(&self.name), Pattern::of(&self.name));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        // A former node may have got further than it could note: what counts is the file.
        let mut end = file
            .metadata()
            .with_context(|| format!("asking for the size of {}", path.display()))?
            .len();
        pause(self.delay);
        loop {
            let next = Deadline::after(self.every);
            let chunk = pattern.bytes(end, self.chunk);
            let written = (&file)
                .write(&chunk)
                .with_context(|| format!("appending to {}", path.display()))?;
            ensure!(written > 0, "a write to {} wrote nothing", path.display());
            end += written as u64;
            // One short line in one write: also fifty threads don't mix their notes.
            (&mut &*notes)
                .write_all(format!("{} {end}\n", self.name).as_bytes())
                .context("noting what was acknowledged")?;
            pause(next.left());
        }
    }
}

/// The last acknowledged end of each file, of one or more nodes' notes. A torn last line counts as not acknowledged.
pub fn read_acks(file: &Path, ends: &mut std::collections::BTreeMap<String, u64>) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let whole = text.rfind('\n').map_or("", |last| &text[..last]);
    for line in whole.lines() {
        let (name, end) = line
            .split_once(' ')
            .with_context(|| format!("odd line in {}: {line}", file.display()))?;
        let end: u64 = end
            .parse()
            .with_context(|| format!("odd line in {}: {line}", file.display()))?;
        let known = ends.entry(name.to_owned()).or_default();
        *known = end.max(*known);
    }
    Ok(())
}

/// Compares a file with what belongs into it, up to its end, which must not lie before `acknowledged`.
pub fn verify(path: &Path, name: &str, acknowledged: u64) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (pattern, mut buffer, mut at) = (Pattern::of(name), vec![0; 1 << 20], 0);
    loop {
        let length = file
            .read_at(&mut buffer, at)
            .with_context(|| format!("reading {} at {at}", path.display()))?;
        if length == 0 {
            break;
        }
        if let Some(wrong) = pattern.first_difference(at, &buffer[..length]) {
            anyhow::bail!("{name} is wrong at byte {wrong} (acknowledged were {acknowledged})");
        }
        at += length as u64;
    }
    ensure!(
        at >= acknowledged,
        "{name} has {at} bytes; {acknowledged} were acknowledged"
    );
    Ok(at)
}
