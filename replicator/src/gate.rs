//! Whether this node may answer right now; read by every FUSE thread at every answer, written by the loop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Gate {
    lease_until_ms: AtomicU64,
    serving: AtomicBool,
}

impl Gate {
    /// The lease runs and the role is held: both, at this moment.
    pub fn may_answer(&self, now_ms: u64) -> bool {
        self.serving.load(Ordering::Acquire) && now_ms < self.lease_until_ms.load(Ordering::Acquire)
    }

    /// CLOCK_BOOTTIME at which the lease runs out.
    pub fn lease_until_ms(&self) -> u64 {
        self.lease_until_ms.load(Ordering::Acquire)
    }

    pub fn set_lease(&self, until_ms: u64) {
        self.lease_until_ms.store(until_ms, Ordering::Release);
    }

    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Release);
    }
}
