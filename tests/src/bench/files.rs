//! Loads of plain files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt as _;

use super::figures::{Figure, Laps, megabytes, rate};
use crate::clock::{Deadline, now, pause};

pub const APPEND: usize = 4 << 10;
pub const PAGE: usize = 8 << 10;
const PAGES: u64 = 32 << 10;
const STREAM_MIB: usize = 768;
const SMALL_FILES: usize = 1500;
/// As PBX recorders do: 200 ms of a call at a time.
const RECORDINGS: usize = 200;
const PIECE: usize = 3200;
const PIECE_EVERY: Duration = Duration::from_millis(200);
const RECORDERS: usize = 4;

pub const APPEND_ROW: &str = "4 KiB append + fdatasync";
pub const OVERWRITE_ROW: &str = "8 KiB overwrite + fdatasync";

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::rng().fill(&mut bytes[..]);
    bytes
}

fn create(path: &Path) -> Result<File> {
    File::create_new(path).with_context(|| format!("making {}", path.display()))
}

/// Whatever was read or written comes from the disk the next time.
pub(super) fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3\n").context("dropping the page cache")
}

/// A log: each record is appended and made durable before the next one.
pub fn append_and_sync(dir: &Path, length: Duration) -> Result<Vec<Figure>> {
    let (mut file, record) = (create(&dir.join("log"))?, noise(APPEND));
    let (deadline, mut laps) = (Deadline::after(length), Laps::default());
    laps.begin();
    while !deadline.passed() {
        file.write_all(&record)?;
        file.sync_data()?;
        laps.lap();
    }
    Ok(vec![Figure::less(APPEND_ROW, "µs", laps.mean())])
}

/// A database's table: pages at random places, each durable before the next.
pub fn overwrite_and_sync(dir: &Path, length: Duration) -> Result<Vec<Figure>> {
    let mut file = create(&dir.join("table"))?;
    let block = noise(1 << 20);
    for _ in 0..PAGES * PAGE as u64 / block.len() as u64 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let (deadline, mut laps) = (Deadline::after(length), Laps::default());
    laps.begin();
    while !deadline.passed() {
        let page = rand::rng().random_range(0..PAGES);
        file.write_all_at(&block[..PAGE], page * PAGE as u64)?;
        file.sync_data()?;
        laps.lap();
    }
    Ok(vec![Figure::less(OVERWRITE_ROW, "µs", laps.mean())])
}

pub fn stream(dir: &Path) -> Result<Vec<Figure>> {
    let path = dir.join("stream");
    let (mut file, mut block) = (create(&path)?, noise(1 << 20));
    let bytes = (STREAM_MIB * block.len()) as u64;
    let began = now();
    for _ in 0..STREAM_MIB {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut figures = vec![Figure::more(
        "stream: write + fsync",
        "MB/s",
        megabytes(bytes, began.elapsed()),
    )];
    drop(file);
    drop_caches()?;
    for row in ["stream: read, cold", "stream: read, warm"] {
        let (mut file, began) = (File::open(&path)?, now());
        while file.read(&mut block)? > 0 {}
        figures.push(Figure::more(row, "MB/s", megabytes(bytes, began.elapsed())));
    }
    Ok(figures)
}

pub fn small_files(dir: &Path) -> Result<Vec<Figure>> {
    let paths: Vec<PathBuf> = (0..SMALL_FILES)
        .map(|number| dir.join(format!("f{number:06}")))
        .collect();
    let content = noise(4096);
    let each = |row, what: &dyn Fn(&Path) -> Result<()>| {
        let began = now();
        for path in &paths {
            what(path).with_context(|| format!("{row}: {}", path.display()))?;
        }
        anyhow::Ok(Figure::more(row, "/s", rate(SMALL_FILES as f64, began.elapsed())))
    };
    let made = each("4 KiB files: create + fsync", &|path| {
        let mut file = create(path)?;
        file.write_all(&content)?;
        Ok(file.sync_all()?)
    })?;
    let stat = |path: &Path| {
        let len = fs::metadata(path)?.len();
        anyhow::ensure!(len == content.len() as u64, "{len} bytes long");
        Ok(())
    };
    let warm = each("4 KiB files: stat, warm", &stat)?;
    drop_caches()?;
    let cold = each("4 KiB files: stat, cold", &stat)?;
    let gone = each("4 KiB files: unlink", &|path| Ok(fs::remove_file(path)?))?;
    Ok(vec![made, warm, cold, gone])
}

/// Many calls are recorded at once; nothing is synced before the end.
pub fn record(dir: &Path, length: Duration) -> Result<Vec<Figure>> {
    let (bytes, start) = (AtomicU64::new(0), Barrier::new(RECORDERS + 1));
    let piece = noise(PIECE);
    let recorder = |number: usize| -> Result<Laps> {
        let open = |call| {
            OpenOptions::new()
                .create_new(true)
                .append(true)
                .mode(0o644)
                .open(dir.join(format!("call{call:05}")))
        };
        let calls: Result<Vec<File>, _> = (number..RECORDINGS).step_by(RECORDERS).map(open).collect();
        start.wait();
        let (calls, mut laps) = (calls.context("making recordings")?, Laps::default());
        let deadline = Deadline::after(length);
        laps.begin();
        for mut call in calls.iter().cycle() {
            if deadline.passed() {
                break;
            }
            call.write_all(&piece)?;
            bytes.fetch_add(PIECE as u64, Ordering::Relaxed);
            laps.lap();
        }
        for call in &calls {
            call.sync_all()?;
        }
        Ok(laps)
    };
    let recorder = &recorder;
    let (all, took) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RECORDERS)
            .map(|number| scope.spawn(move || recorder(number)))
            .collect();
        start.wait();
        let began = now();
        let mut all = Laps::default();
        for thread in threads {
            all.add(&thread.join().expect("a recorder doesn't panic")?);
        }
        anyhow::Ok((all, began.elapsed()))
    })?;
    Ok(vec![
        Figure::more(
            "200 recordings, 3200-byte writes",
            "MB/s",
            megabytes(bytes.into_inner(), took),
        ),
        Figure::less("200 recordings, p99 of a write", "µs", all.quantile(0.99)),
    ])
}

/// Calls that are recorded at their own pace, for as long as one likes.
pub struct Recorders {
    calls: Vec<File>,
}

impl Recorders {
    pub fn new(dir: &Path) -> Result<Self> {
        let open = |call| create(&dir.join(format!("call{call:05}")));
        let calls = (0..RECORDINGS).map(open).collect::<Result<_>>()?;
        Ok(Self { calls })
    }

    /// How long each write took, by what `phase` was when it began.
    ///
    /// # Errors
    /// A write fails.
    pub fn run<const PHASES: usize>(&self, phase: &AtomicUsize, stop: &AtomicBool) -> Result<[Laps; PHASES]> {
        let (piece, began) = (noise(PIECE), now());
        let recorder = |calls: &[File]| -> Result<[Laps; PHASES]> {
            let mut laps = std::array::from_fn(|_| Laps::default());
            let (mut due, every) = (Duration::ZERO, PIECE_EVERY / u32::try_from(calls.len())?);
            for mut call in calls.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                pause(due.saturating_sub(began.elapsed()));
                due += every;
                let laps = &mut laps[phase.load(Ordering::Relaxed)];
                laps.begin();
                call.write_all(&piece)?;
                laps.lap();
            }
            Ok(laps)
        };
        std::thread::scope(|scope| {
            let parts = self.calls.chunks(RECORDINGS / RECORDERS);
            let threads: Vec<_> = parts.map(|calls| scope.spawn(|| recorder(calls))).collect();
            let mut all: [Laps; PHASES] = std::array::from_fn(|_| Laps::default());
            for thread in threads {
                let laps = thread.join().expect("a recorder doesn't panic")?;
                all.iter_mut().zip(&laps).for_each(|(all, laps)| all.add(laps));
            }
            Ok(all)
        })
    }
}
