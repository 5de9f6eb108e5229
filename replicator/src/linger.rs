//! Holds the core's output back for a moment while nobody waits for what was sequenced: the peers, the own log and
//! the apply thread hear of ten changes together. One write to a peer, and one wake-up there, cost little more for ten
//! than for one.

/// Far less than what may be acknowledged ahead of the peers anyway (`sequencer::ALONE_MAX`).
const LONGEST_MS: u64 = 1;
const BYTES: u64 = 128 << 10;

/// What is sequenced and not yet handed out.
#[derive(Default)]
pub struct Linger {
    bytes: u64,
    since_ms: u64,
}

impl Linger {
    pub fn push(&mut self, bytes: u64, now_ms: u64) {
        if self.bytes == 0 {
            self.since_ms = now_ms;
        }
        self.bytes += bytes;
    }

    /// Whether there is something that may stay.
    pub fn may_stay(&self, now_ms: u64) -> bool {
        self.left_ms(now_ms).is_some_and(|left| left > 0) && self.bytes < BYTES
    }

    /// How long what is here may stay, if anything is.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        (self.bytes > 0).then(|| (self.since_ms + LONGEST_MS).saturating_sub(now_ms))
    }

    pub fn handed_out(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_little_and_not_for_long() {
        let mut linger = Linger::default();
        assert!(!linger.may_stay(100), "nothing is there");
        linger.push(10, 100);
        assert!(linger.may_stay(100));
        linger.push(10, 100 + LONGEST_MS);
        assert!(!linger.may_stay(100 + LONGEST_MS), "the first one's time is over");
        linger.handed_out();
        assert_eq!(linger.left_ms(200), None);
        linger.push(BYTES, 200);
        assert!(!linger.may_stay(200));
    }
}
