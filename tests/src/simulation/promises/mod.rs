//! What must hold whatever happens; one file a promise. The first that is broken ends the run.

mod copies_end;
mod durable_stays;
mod every_request_ends;
mod files_have_their_history;
mod it_recovers;
mod memory_is_bounded;
mod no_stale_read;
mod one_address;
mod one_order;
mod one_writer;
mod received_stays;
mod replicas_agree;
mod rot_is_not_served;

pub use durable_stays::DurableStays;
pub use every_request_ends::LATE_MS;
pub use files_have_their_history::Shadow;
pub use one_order::OneOrder;
pub use received_stays::ReceivedStays;
pub use replicas_agree::ReplicasAgree;
pub use rot_is_not_served::Rot;

use super::world::World;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub promise: &'static str,
    pub facts: String,
    pub at_us: u64,
}

#[derive(Default)]
pub struct Judge {
    pub order: OneOrder,
    pub durable: DurableStays,
    pub received: ReceivedStays,
    pub agree: ReplicasAgree,
    pub broken: Option<Broken>,
}

impl Judge {
    pub fn blame(&mut self, at_us: u64, promise: &'static str, facts: impl Into<String>) {
        let facts = facts.into();
        self.broken.get_or_insert(Broken { promise, facts, at_us });
    }

    pub fn judge(&mut self, at_us: u64, promise: &'static str, verdict: Result<(), String>) {
        if let Err(facts) = verdict {
            self.blame(at_us, promise, facts);
        }
    }
}

impl World {
    /// After each event.
    pub(in crate::simulation) fn suspect(&mut self) {
        let now_us = self.now_us;
        let writer = one_writer::check(&self.machines, now_us);
        self.judge.judge(now_us, "one writer", writer);
        let address = one_address::check(&self.machines, now_us);
        self.judge.judge(now_us, "one address", address);
        let bounded = memory_is_bounded::check(&self.machines);
        self.judge.judge(now_us, "memory is bounded", bounded);
        self.judge.received.look(&self.machines);
    }
}
