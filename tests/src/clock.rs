//! The only place of this crate that asks for the time or sleeps: everything that waits here waits with a limit.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// Between two looks at something that has no event to wait for.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

#[allow(clippy::disallowed_methods, reason = "the edge at which this crate's time enters")]
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the edge at which this crate's time enters")]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[allow(
    clippy::disallowed_methods,
    reason = "other machines' processes have no event that a test could wait for"
)]
pub fn pause(how_long: Duration) {
    std::thread::sleep(how_long);
}

/// A moment after which nobody waits any more.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(limit: Duration) -> Self {
        Self(now() + limit)
    }

    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Looks until `probe` gives a value. At the limit the error says `what` was awaited and why it wasn't there
/// at the last look.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if deadline.passed() {
            match last {
                Some(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                None => bail!("waited {limit:?} for {what}"),
            }
        }
        pause(LOOK_EVERY.min(deadline.left()));
    }
}
