//! The only place that asks the machine what time it is. Everything else is told.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// An instant on CLOCK_BOOTTIME in milliseconds: it goes on while the machine sleeps, and nobody can set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BootMs(pub u64);

impl BootMs {
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Zero if `earlier` is in fact later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Wall time in milliseconds since 1970: for people only, never compared with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UnixMs(pub u64);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    pub boot: BootMs,
    pub unix: UnixMs,
}

pub(crate) fn now() -> Now {
    Now {
        boot: BootMs(read(ClockId::Boottime)),
        unix: UnixMs(read(ClockId::Realtime)),
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
