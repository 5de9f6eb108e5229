//! What time it is on a machine: its own BOOTTIME, at its own rate, and a wall clock that may jump.

use super::random::Random;
use holdfast_storage::types::Time;

pub const SECOND: u64 = 1_000_000;

pub struct Clock {
    offset_ms: u64,
    /// Parts in a million faster (or slower) than true time.
    drift_ppm: i64,
    wall_offset_s: i64,
}

impl Clock {
    /// Two of them differ in rate by at most `drift_permille`.
    pub fn drawn(drift_permille: u64, random: &mut Random) -> Self {
        let most = drift_permille * 1000 / 2;
        Self {
            offset_ms: random.between(1, 1 << 40),
            drift_ppm: random.between(0, 2 * most + 1) as i64 - most as i64,
            wall_offset_s: 1_700_000_000 + random.between(0, 3) as i64,
        }
    }

    pub fn at_ms(&self, true_us: u64) -> u64 {
        self.offset_ms + (true_us * (1_000_000 + self.drift_ppm) as u64 / 1_000_000) / 1000
    }

    /// True time that passes while this clock counts `ms`; rounded up: a timer never fires early.
    pub fn true_us(&self, ms: u64) -> u64 {
        (ms * 1000 * 1_000_000).div_ceil((1_000_000 + self.drift_ppm) as u64)
    }

    pub fn wall(&self, true_us: u64) -> Time {
        Time {
            secs: self.wall_offset_s + (true_us / SECOND) as i64,
            nanos: (true_us % SECOND) as u32 * 1000,
        }
    }

    pub fn jump(&mut self, seconds: i64) {
        self.wall_offset_s += seconds;
    }
}
