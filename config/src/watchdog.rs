//! The machine's watchdog timer: which device, and how long it waits.

use std::path::PathBuf;
use std::time::Duration;

use crate::check::Number;
use crate::document::Document;
use crate::error::ConfigError;
use crate::paths::absolute;
use crate::{Watchdog, raw};

pub(crate) fn check(document: &Document, raw: raw::Watchdog) -> Result<Watchdog, ConfigError> {
    let default = Watchdog::new("/dev/watchdog");
    let key = "watchdog.device";
    if raw.device.is_none() {
        let right = "the path of the watchdog's device, such as \"/dev/watchdog\"";
        return Err(document.wrong(key, "is missing", right));
    }
    let device = absolute(document, key, raw.device, PathBuf::new())?;
    let number = Number {
        document,
        key: "watchdog.timeout_s",
        unit: " s",
    };
    // Shorter, and the machine would be reset before systemd could start a hung agent anew.
    let timeout = number.within(raw.timeout_s, default.timeout.as_secs(), 10..=120)?;
    Ok(Watchdog {
        device,
        timeout: Duration::from_secs(timeout),
    })
}
