//! Programs that leave nothing behind, also when they are interrupted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

/// Whether a signal has ended the program, and what must not go on beside its cleaning up: steps that mount or start
/// something.
#[derive(Debug, Default)]
pub struct Interrupt {
    set: AtomicBool,
    step: Mutex<()>,
}

impl Interrupt {
    pub const fn new() -> Self {
        Self {
            set: AtomicBool::new(false),
            step: Mutex::new(()),
        }
    }

    /// Returns when the step that is under way is done; none begins any more.
    pub fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        drop(self.step.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// A step, as long as the guard lives.
    ///
    /// # Errors
    /// If there has been a signal.
    pub fn step(&self) -> Result<MutexGuard<'_, ()>> {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!self.is_set(), "interrupted");
        Ok(step)
    }
}

/// Ctrl-C and the like run `clean_up` and end the process. To be called before any other thread is started.
pub fn clean_up_at_signals(clean_up: impl FnOnce() + Send + 'static) -> Result<()> {
    // SAFETY: a zeroed set is filled in by sigemptyset before anyone reads it.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `signals` outlives the calls; the signals are valid. Blocked here, before any thread is started, so that
    // only the thread below receives them; the lab's daemons start with an empty mask.
    let blocked = unsafe {
        libc::sigemptyset(&raw mut signals);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut signals, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut())
    };
    anyhow::ensure!(blocked == 0, "blocking signals failed with error {blocked}");
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both point to values of this frame.
        unsafe { libc::sigwait(&raw const signals, &raw mut signal) };
        clean_up();
        std::process::exit(128 + signal);
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .map(drop)
        .context("starting a thread")
}
