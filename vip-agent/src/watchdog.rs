//! The machine's watchdog timer: fed every second, it does nothing; unfed for its timeout it resets the machine. That is the
//! last resort against a PBX that outlives its role and can't be killed, and against an agent that is gone for good.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use holdfast_config::Watchdog as Settings;
use tracing::{info, warn};

use crate::clock::BootMs;

const FEED_EVERY: Duration = Duration::from_secs(1);
/// A device that can't be opened is tried again so often: its driver may come late.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// Says that the agent ends in order; the timer stops.
const GOOD_BYE: &[u8] = b"V";
/// `_IOWR('W', 6, int)`; on every architecture that we build for.
const SET_TIMEOUT: libc::Ioctl = 0xc004_5706_u32 as libc::Ioctl;

pub(crate) struct Watchdog {
    settings: Settings,
    device: Option<File>,
    tried: Option<BootMs>,
    fed: Option<BootMs>,
    /// Why the machine has no protection now.
    trouble: Option<String>,
}

impl Watchdog {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            device: None,
            tried: None,
            fed: None,
            trouble: None,
        }
    }

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// To be called often; opens the device at the first time.
    pub(crate) fn feed(&mut self, now: BootMs) {
        if self.device.is_none() {
            self.open(now);
        }
        if self.fed.is_some_and(|fed| now.since(fed) < FEED_EVERY) {
            return;
        }
        let Some(device) = &mut self.device else { return };
        self.fed = Some(now);
        if let Err(error) = device.write_all(b"\0") {
            self.trouble = Some(format!("feeding {} failed: {error}", self.settings.device.display()));
        } else {
            self.trouble = None;
        }
    }

    fn open(&mut self, now: BootMs) {
        if self.tried.is_some_and(|tried| now.since(tried) < OPEN_EVERY) {
            return;
        }
        self.tried = Some(now);
        let path = self.settings.device.display();
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.settings.device);
        match opened {
            Ok(device) => {
                self.set_timeout(&device);
                info!(device = %path, "the watchdog is fed");
                self.device = Some(device);
            }
            Err(error) => self.trouble = Some(format!("opening {path} failed: {error}")),
        }
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

    /// Nothing is held here any more: the timer may stop.
    pub(crate) fn end(mut self) {
        if let Some(device) = &mut self.device {
            // Refused by drivers that never stop; those reset the machine unless another agent is there in time.
            let _ = device.write_all(GOOD_BYE);
        }
    }
}
