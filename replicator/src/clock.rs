//! The only place in this crate that asks the machine for the time.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME in ms: goes on during suspend, is never set.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Wall time in ms since 1970, for people and for files.
pub fn unix_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Wall time as files carry it.
pub fn wall() -> holdfast_storage::types::Time {
    let now = clock_gettime(ClockId::Realtime);
    holdfast_storage::types::Time {
        secs: now.tv_sec,
        nanos: now.tv_nsec as u32,
    }
}
