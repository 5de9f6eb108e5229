//! The machine's watchdog timer: fed every second, it does nothing; unfed for its timeout it resets the machine. That is the
//! last resort against a PBX that outlives its role and can't be killed, and against an agent that is gone for good.
//!
//! The device has a thread of its own, for some drivers wait in every call for a slow controller. The agent only says up to
//! when it may be fed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_config::Watchdog as Settings;
use tracing::{info, warn};

use crate::clock::{self, BootMs};

const FEED_EVERY: Duration = Duration::from_secs(1);
/// An agent that says nothing for so long hangs: it isn't fed in its name.
const GOOD_FOR: Duration = Duration::from_secs(3);
/// For a driver that is slow to say good-bye to.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Says that the agent ends in order; the timer stops. Drivers that never stop don't care.
const GOOD_BYE: &[u8] = b"V";
/// `_IOWR('W', 6, int)`; on every architecture that we build for.
const SET_TIMEOUT: libc::Ioctl = 0xc004_5706_u32 as libc::Ioctl;

/// The agent's end of it.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    /// Dropped without a word, nobody feeds any more.
    end: Sender<()>,
    /// Hangs up when the thread has ended.
    gone: Receiver<()>,
}

#[derive(Default)]
struct Shared {
    /// CLOCK_BOOTTIME in ms.
    good_until: AtomicU64,
    /// Why the machine has no protection now.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watchdog {
    pub(crate) fn new(settings: &Settings) -> Self {
        let shared = Arc::new(Shared::default());
        let ((end, ended), (going, gone)) = (channel(), channel());
        let feeder = Feeder {
            settings: settings.clone(),
            shared: shared.clone(),
            ended,
            _going: going,
            device: None,
        };
        let thread = thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(|| feeder.run());
        if let Err(error) = &thread {
            *shared.trouble() = Some(format!("starting a thread failed: {error}"));
        }
        Self { shared, end, gone }
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.trouble().clone()
    }

    /// All is well here: the timer may be fed for a while.
    pub(crate) fn feed(&self, now: BootMs) {
        self.shared.good_until.store(now.plus(GOOD_FOR).0, Ordering::Relaxed);
    }

    /// Nothing that must be reset is left here: the timer may stop.
    pub(crate) fn end(self) {
        if self.end.send(()).is_ok() {
            let _ = self.gone.recv_timeout(END_WITHIN);
        }
    }
}

struct Feeder {
    settings: Settings,
    shared: Arc<Shared>,
    ended: Receiver<()>,
    _going: Sender<()>,
    device: Option<File>,
}

impl Feeder {
    fn run(mut self) {
        loop {
            let good = clock::now().boot.0 < self.shared.good_until.load(Ordering::Relaxed);
            if good {
                let fed = self.feed();
                *self.shared.trouble() = fed.err();
            }
            match self.ended.recv_timeout(FEED_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) => {
                    let _ = self.device.map(|mut device| device.write_all(GOOD_BYE));
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn feed(&mut self) -> Result<(), String> {
        let path = self.settings.device.display();
        let device = match &mut self.device {
            Some(device) => device,
            None => {
                let opened = OpenOptions::new().write(true).open(&self.settings.device);
                let device = opened.map_err(|error| format!("opening {path} failed: {error}"))?;
                self.set_timeout(&device);
                info!(device = %path, "the watchdog is fed");
                self.device.insert(device)
            }
        };
        device
            .write_all(b"\0")
            .map_err(|error| format!("feeding {path} failed: {error}"))
    }

    fn set_timeout(&self, device: &File) {
        let mut seconds = i32::try_from(self.settings.timeout.as_secs()).unwrap_or(i32::MAX);
        // SAFETY: the request takes a pointer to an int, which outlives the call.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut seconds) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            warn!(%error, "the watchdog keeps its driver's own timeout");
        }
    }
}
