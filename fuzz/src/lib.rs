//! What each target of `fuzz_targets/` has in common: one decode may take no more memory than its input allows.
//!
//! The decoders' own promises are kept where they are, in each crate's `fuzzing` module.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[doc(hidden)]
pub use libfuzzer_sys::fuzz_target;

/// All of it is what Rust code asks for: libFuzzer's own memory comes from elsewhere.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    let used = USED.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(used, Relaxed);
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while it is copied.
        count(size);
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Runs a target on an input; at no moment may it hold more than `times` as many bytes, and `least` besides.
pub fn within(times: usize, least: usize, data: &[u8], target: fn(&[u8])) {
    let before = USED.load(Relaxed);
    MOST.store(before, Relaxed);
    target(data);
    let most = MOST.load(Relaxed).saturating_sub(before);
    let allowed = times * data.len() + least;
    assert!(
        most <= allowed,
        "{most} bytes of memory for an input of {}, {allowed} are allowed",
        data.len()
    );
}

/// A target that only decodes: sixteen times its input and 64 KiB, or more where it says why.
#[macro_export]
macro_rules! decoder {
    ($target:path) => {
        $crate::decoder!($target, 16, 64 << 10);
    };
    ($target:path, $times:expr, $least:expr) => {
        $crate::fuzz_target!(|data: &[u8]| {
            $crate::within($times, $least, data, $target);
        });
    };
}
