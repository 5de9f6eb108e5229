//! Wall time for people, in this machine's time zone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_replicator::clock::boottime_ms;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// The present, and how far local time is from UTC.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub now_unix_ms: u64,
    pub offset_s: i32,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: the wall clock is asked once and passed down"
    )]
    pub fn read() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            now_unix_ms: now.as_millis().try_into().unwrap_or(u64::MAX),
            offset_s: offset_s(now.as_secs()),
        }
    }

    /// `12:03:07`, with the date in front unless it is today's.
    pub fn at(&self, unix_ms: u64) -> String {
        let (Some(then), Some(now)) = (self.local(unix_ms), self.local(self.now_unix_ms)) else {
            return format!("{unix_ms} ms after 1970");
        };
        let description = if then.date() == now.date() {
            format_description!("[hour]:[minute]:[second]")
        } else {
            format_description!("[year]-[month]-[day] [hour]:[minute]:[second]")
        };
        then.format(description).unwrap_or_else(|_| then.to_string())
    }

    fn local(&self, unix_ms: u64) -> Option<OffsetDateTime> {
        let offset = UtcOffset::from_whole_seconds(self.offset_s).ok()?;
        let seconds = i64::try_from(unix_ms / 1000).ok()?;
        OffsetDateTime::from_unix_timestamp(seconds)
            .ok()?
            .checked_to_offset(offset)
    }
}

/// Time that has passed, also while the machine slept.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(u64);

impl Stopwatch {
    pub fn start() -> Self {
        Self(boottime_ms())
    }

    pub fn elapsed(self) -> Duration {
        Duration::from_millis(boottime_ms().saturating_sub(self.0))
    }
}

fn offset_s(unix_s: u64) -> i32 {
    let Ok(seconds) = libc::time_t::try_from(unix_s) else {
        return 0;
    };
    // SAFETY: `tm` is plain data, for which all zeros is a valid value.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call, and nothing in this process changes TZ.
    let found = unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    if found.is_null() {
        0
    } else {
        i32::try_from(local.tm_gmtoff).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_day_is_named() {
        let noon = 1_700_000_000_000;
        let clock = Clock {
            now_unix_ms: noon,
            offset_s: 3600,
        };
        assert_eq!(clock.at(noon - 1000), "23:13:19");
        assert_eq!(clock.at(noon - 86_400_000), "2023-11-13 23:13:20");
        assert!(clock.at(u64::MAX).contains("1970"));
    }
}
