//! The only place in this crate that asks the machine for the time.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// CLOCK_BOOTTIME: goes on during suspend, is never set.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The same in ms.
pub fn boottime_ms() -> u64 {
    let now = boottime();
    now.as_secs() * 1000 + u64::from(now.subsec_millis())
}

/// Since 1970. A clock that shows a time before was never set.
#[expect(clippy::disallowed_methods, reason = "this is where wall time enters")]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall time in ms since 1970, for people and for files.
pub fn unix_ms() -> u64 {
    let now = since_1970();
    now.as_secs() * 1000 + u64::from(now.subsec_millis())
}

/// Wall time as files carry it.
pub fn wall() -> holdfast_storage::types::Time {
    let now = since_1970();
    holdfast_storage::types::Time {
        secs: now.as_secs().cast_signed(),
        nanos: now.subsec_nanos(),
    }
}
