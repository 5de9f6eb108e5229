//! What a run of power cuts came to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cut::Cut;
use super::ledger::Totals;
use crate::lab::disk::Cache;

/// Of cuts of one kind.
#[derive(Debug, Default)]
pub struct Figures {
    kinds: BTreeMap<&'static str, Vec<Duration>>,
    caches: BTreeMap<Cache, u32>,
}

impl Figures {
    /// `first_commit`: after the cut, where a majority goes on, else after power is back.
    pub fn note(&mut self, cut: &Cut, first_commit: Duration) {
        let kind = match cut.nodes.as_slice() {
            [one] if *one == cut.active => "one node, active",
            [_] => "one node, standby",
            [_, _] => "two nodes",
            _ => "all three",
        };
        self.kinds.entry(kind).or_default().push(first_commit);
        for cache in &cut.caches {
            *self.caches.entry(*cache).or_default() += 1;
        }
    }

    fn cuts(&self) -> usize {
        self.kinds.values().map(Vec::len).sum()
    }

    /// A line a kind, then one line for all.
    pub fn summary(&self, seed: u64, transactions: usize, totals: Totals) -> String {
        let mut out = format!(
            "{:<20}{:>6}{:>26}{:>10}\n",
            "power cut of", "times", "first commit: median", "worst"
        );
        for (kind, times) in &self.kinds {
            let mut times = times.clone();
            times.sort();
            let at = |at: usize| times.get(at).map_or(0.0, Duration::as_secs_f64);
            let (median, worst) = (at(times.len() / 2), at(times.len() - 1));
            out += &format!("{kind:<20}{:>6}{:>24.1} s{:>8.1} s\n", times.len(), median, worst);
        }
        let caches: Vec<String> = self
            .caches
            .iter()
            .map(|(cache, count)| format!("{count} {}", cache.name()))
            .collect();
        out += &format!(
            "Counted from the cut where a majority goes on, else from the moment when power is back. Disks' caches: {}.\n",
            caches.join(", ")
        );
        out += &format!(
            "seed {seed}: {} power cuts; acknowledged: {transactions} transactions, {:.1} MB of recordings ({} closed), {} synced \
             records, {} replaced settings; lost: 0",
            self.cuts(),
            totals.recorded_bytes as f64 / 1e6,
            totals.recordings,
            totals.records,
            totals.settings,
        );
        out
    }
}
