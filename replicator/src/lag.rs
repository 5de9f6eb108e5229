//! How far this node is behind the active one, since when, whether that becomes less, and when it will be nothing.

/// Nothing has come for so long: that is worth a word.
const STILL_MS: u64 = 5_000;

/// For people; all in bytes of the log and ms of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    pub bytes: u64,
    /// None: it isn't behind.
    pub since_ms: Option<u64>,
    /// The most that it was behind since then, and when that was.
    most: (u64, u64),
    /// The least since that, and when it last became less.
    least: (u64, u64),
}

impl Lag {
    pub(crate) fn look(&mut self, now_ms: u64, bytes: u64) {
        if bytes == 0 {
            *self = Self::default();
            return;
        }
        if self.since_ms.is_none() {
            (self.since_ms, self.least.1) = (Some(now_ms), now_ms);
        }
        self.bytes = bytes;
        if bytes >= self.most.0 {
            (self.most, self.least.0) = ((bytes, now_ms), bytes);
        } else if bytes < self.least.0 {
            self.least = (bytes, now_ms);
        } else if bytes > self.least.0.saturating_mul(2) {
            // Much has been written meanwhile: it begins anew from there.
            (self.most, self.least.0) = ((bytes, now_ms), bytes);
        }
    }

    /// About how long until it is nothing; 0: nobody knows yet.
    pub fn left_ms(&self, now_ms: u64) -> u64 {
        let (most, since_ms) = self.most;
        let (came, took) = (most.saturating_sub(self.bytes), now_ms.saturating_sub(since_ms));
        if came == 0 {
            return 0;
        }
        let left = u128::from(self.bytes) * u128::from(took) / u128::from(came);
        u64::try_from(left).unwrap_or(u64::MAX).max(1)
    }

    /// How long it hasn't become less; 0: it does.
    pub fn still_ms(&self, now_ms: u64) -> u64 {
        let still = now_ms.saturating_sub(self.least.1);
        if self.since_ms.is_some() && still >= STILL_MS {
            still
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_long_the_rest_takes() {
        let mut lag = Lag::default();
        assert_eq!((lag.left_ms(5), lag.still_ms(50_000)), (0, 0));
        lag.look(1000, 400);
        assert_eq!((lag.since_ms, lag.left_ms(1500)), (Some(1000), 0));
        lag.look(2000, 300);
        assert_eq!((lag.left_ms(2000), lag.still_ms(2000)), (3000, 0));
        lag.look(3000, 0);
        assert_eq!(lag, Lag::default());
    }

    #[test]
    fn it_says_that_nothing_comes() {
        let mut lag = Lag::default();
        lag.look(1000, 400);
        lag.look(2000, 300);
        lag.look(9000, 300);
        assert_eq!(lag.still_ms(9000), 7000);
        // More is written than comes: that isn't less either.
        for second in 10..20 {
            lag.look(second * 1000, 300 + second);
        }
        assert_eq!(lag.still_ms(19_000), 17_000);
        lag.look(20_000, 299);
        assert_eq!(lag.still_ms(20_000), 0);
        lag.look(21_000, 50);
        lag.look(22_000, 300);
        lag.look(23_000, 200);
        assert_eq!((lag.still_ms(29_000), lag.left_ms(23_000)), (6000, 2000));
        lag.look(23_000, 0);
        lag.look(20_000, 299);
        for second in 21..30 {
            lag.look(second * 1000, 100 * second);
        }
        assert_eq!((lag.still_ms(29_000), lag.left_ms(29_000)), (9000, 0));
    }
}
