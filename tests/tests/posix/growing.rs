//! A file that one program writes to its end, and that others read and have mapped meanwhile: whatever is read is what
//! was written, and what a write has returned for is there. On new kernels such writes go around the page cache, unless
//! somebody has the file open already.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::fs::{XattrFlags, setxattr};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const LENGTH: usize = 1 << 20;
/// Their seeds, and whether they look at a mapping.
const READERS: [(u64, bool); 3] = [(1, false), (2, true), (3, true)];
/// How far from the end readers look.
const TAIL: usize = 3 * 4096;

/// Never zero, and not the same on two pages.
fn byte(at: usize) -> u8 {
    (at % 251) as u8 + 1
}

fn check(bytes: &[u8], start: usize, how: &str) {
    for (at, found) in (start..).zip(bytes) {
        assert_eq!(*found, byte(at), "at {at}, {how}");
    }
}

fn write(file: &File, path: &Path, acknowledged: &AtomicUsize) {
    let mut random = StdRng::seed_from_u64(4);
    let mut written = 0;
    while written < LENGTH {
        let piece: Vec<_> = (written..LENGTH).map(byte).take(random.random_range(1..6000)).collect();
        file.write_all_at(&piece, written as u64).unwrap();
        written += piece.len();
        acknowledged.store(written, Ordering::Release);
        assert_eq!(fs::metadata(path).unwrap().len(), written as u64);
    }
}

fn read(file: &File, start: usize, end: usize) {
    // As far as the file goes: a write may be under way.
    let mut bytes = vec![0; end + TAIL - start];
    let len = file.read_at(&mut bytes, start as u64).unwrap();
    assert!(start + len >= end, "{len} bytes read at {start}, written up to {end}");
    check(
        &bytes[..len],
        start,
        &format!("of {len} bytes read at {start}, written up to {end}"),
    );
}

fn look(mapped: *const u8, start: usize, end: usize) {
    for at in start..end {
        // SAFETY: within the mapping and the file, which never gets shorter; volatile, for somebody else changes it.
        let found = unsafe { mapped.add(at).read_volatile() };
        assert_eq!(found, byte(at), "at {at} of {end}, in the mapping");
    }
}

fn observe(path: &Path, is_mapped: bool, seed: u64, ready: &Barrier, acknowledged: &AtomicUsize) {
    let file = File::open(path).unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    // SAFETY: a new mapping at an address of the kernel's choice; ended below.
    let mapped = unsafe {
        mmap(
            std::ptr::null_mut(),
            LENGTH,
            ProtFlags::READ,
            MapFlags::SHARED,
            &file,
            0,
        )
    }
    .unwrap();
    ready.wait();
    loop {
        let end = acknowledged.load(Ordering::Acquire);
        if end >= LENGTH {
            break;
        }
        thread::yield_now();
        let start = end.saturating_sub(random.random_range(0..TAIL));
        if is_mapped {
            look(mapped.cast(), start, end);
        } else {
            read(&file, start, end);
        }
    }
    // SAFETY: made above, and nothing uses it after this.
    unsafe { munmap(mapped, LENGTH) }.unwrap();
}

/// `readers_first`: they have it open before the writer.
fn run(path: &Path, flags: i32, readers_first: bool) {
    fs::write(path, "").unwrap();
    let writer = || {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(flags).open(path).unwrap()
    };
    let early = (!readers_first).then(writer);
    let (acknowledged, ready) = (AtomicUsize::new(0), Barrier::new(READERS.len() + 1));
    thread::scope(|scope| {
        let (acknowledged, ready) = (&acknowledged, &ready);
        for (seed, is_mapped) in READERS {
            scope.spawn(move || observe(path, is_mapped, seed, ready, acknowledged));
        }
        ready.wait();
        let file = early.unwrap_or_else(writer);
        let outcome = catch_unwind(|| write(&file, path, acknowledged));
        // Readers end, whatever happened.
        acknowledged.store(LENGTH, Ordering::Release);
        outcome.unwrap();
    });
    check(&fs::read(path).unwrap(), 0, "at the end");
}

pub(crate) fn growing(folder: &Path) {
    run(&folder.join("appended"), libc::O_APPEND, false);
    run(&folder.join("read and appended"), libc::O_APPEND, true);
    setxattr(folder, "holdfast.class", b"recordings", XattrFlags::empty()).unwrap();
    run(&folder.join("recorded"), 0, false);
    run(&folder.join("read and recorded"), 0, true);
}
