//! What a run, or many, came to.

use super::plan::Kind;
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub runs: u64,
    pub simulated_us: u64,
    pub events: u64,
    pub faults: BTreeMap<Kind, u64>,
    pub received: u64,
    pub durable: u64,
    pub sequenced: u64,
    pub reads: u64,
    /// Whole trees compared with the model, and parts of the state between replicas.
    pub looks: u64,
    pub checks: u64,
    pub roles: u64,
    pub copies: u64,
    /// Bytes of files that rotted, where there was one to rot.
    pub rotted: u64,
    /// Damaged blocks that got their bytes back in the midst of everything.
    pub mended: u64,
    /// Starts whose recovery was cut short by another crash.
    pub broken_starts: u64,
    /// Received by two and lost with both, as it may be.
    pub lost: u64,
    /// Of the runs' ends: the longest until all was well again.
    pub well_after_us: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.simulated_us += other.simulated_us;
        self.events += other.events;
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        self.received += other.received;
        self.durable += other.durable;
        self.sequenced += other.sequenced;
        self.reads += other.reads;
        self.looks += other.looks;
        self.checks += other.checks;
        self.roles += other.roles;
        self.copies += other.copies;
        self.rotted += other.rotted;
        self.mended += other.mended;
        self.broken_starts += other.broken_starts;
        self.lost += other.lost;
        self.well_after_us = self.well_after_us.max(other.well_after_us);
    }

    pub fn acknowledged(&self) -> u64 {
        self.received + self.durable + self.sequenced
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: u64 = self.faults.values().sum();
        let kinds: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind:?} {count}"))
            .collect();
        write!(
            out,
            "acknowledged {} (durable {}, received {}, sequenced {}), reads {}, trees compared {}, parts compared {}, roles {}, copies {}, bytes rotted {}, mended at once {}, starts cut short {}, well again after at most {} s, faults {faults} ({})",
            self.acknowledged(),
            self.durable,
            self.received,
            self.sequenced,
            self.reads,
            self.looks,
            self.checks,
            self.roles,
            self.copies,
            self.rotted,
            self.mended,
            self.broken_starts,
            self.well_after_us / 1_000_000,
            kinds.join(", ")
        )
    }
}
