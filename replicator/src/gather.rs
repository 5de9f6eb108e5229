//! Holds back what the log thread is to write until somebody waits for it, or until enough has come together to be
//! worth a sync. One hand-over wakes the log thread once and costs the disk one write.

use crate::core::Persist;
use holdfast_storage::log::HardState;

/// Nothing is held back longer here, so no crash of all three nodes loses more than this of what two had received and
/// nobody synced.
const LONGEST_MS: u64 = 5;
const BYTES: usize = 1 << 20;

#[derive(Default)]
pub struct Gather {
    persists: Vec<Persist>,
    bytes: usize,
    since_ms: u64,
    urgent: bool,
    /// Term and vote as handed over last.
    elected: (u64, u64),
}

impl Gather {
    pub fn new(stable: &HardState) -> Self {
        Self {
            elected: (stable.term.0, stable.vote),
            ..Self::default()
        }
    }

    pub fn push(&mut self, persist: Persist, now_ms: u64) {
        // A vote or a term that others wait for, or the first entry of a term, for which a promotion waits.
        if let Some(state) = &persist.hard_state {
            self.urgent |= self.elected != (state.term.0, state.vote);
            self.elected = (state.term.0, state.vote);
        }
        self.urgent |= persist.entries.iter().any(|entry| entry.data.is_empty());
        self.bytes += persist.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        if self.persists.is_empty() {
            self.since_ms = now_ms;
        }
        self.persists.push(persist);
    }

    /// Somebody waits for what is here, and for nothing else.
    pub fn hurry(&mut self) {
        self.urgent |= !self.persists.is_empty();
    }

    /// What is to be written now, in order.
    pub fn due(&mut self, now_ms: u64) -> Option<Vec<Persist>> {
        if self.persists.is_empty() || !(self.urgent || self.bytes >= BYTES || now_ms >= self.since_ms + LONGEST_MS) {
            return None;
        }
        (self.urgent, self.bytes) = (false, 0);
        Some(std::mem::take(&mut self.persists))
    }

    /// All of it, whoever waits.
    pub fn rest(&mut self) -> Vec<Persist> {
        self.bytes = 0;
        std::mem::take(&mut self.persists)
    }

    /// How long what is here may stay, if anything is.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        (!self.persists.is_empty()).then(|| (self.since_ms + LONGEST_MS).saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_storage::log::LogEntry;
    use holdfast_storage::types::{LogIndex, Term};

    fn entry(number: u64, len: usize) -> Persist {
        Persist {
            number,
            hard_state: None,
            entries: vec![LogEntry {
                index: LogIndex(number),
                term: Term(1),
                kind: 0,
                data: vec![1; len].into(),
            }],
        }
    }

    fn numbers(due: Option<Vec<Persist>>) -> Vec<u64> {
        due.unwrap_or_default().iter().map(|persist| persist.number).collect()
    }

    #[test]
    fn what_nobody_waits_for_is_written_together_after_a_while() {
        let mut gather = Gather::default();
        gather.push(entry(1, 10), 100);
        gather.push(entry(2, 10), 103);
        assert_eq!(gather.left_ms(103), Some(2));
        assert!(gather.due(104).is_none());
        assert_eq!(numbers(gather.due(105)), [1, 2]);
        assert_eq!(gather.left_ms(105), None);
    }

    #[test]
    fn whoever_waits_has_all_of_it_written_and_only_that() {
        let mut gather = Gather::default();
        gather.hurry();
        gather.push(entry(1, 10), 100);
        assert!(gather.due(100).is_none(), "nobody waits for what came later");
        gather.push(entry(2, 10), 100);
        gather.hurry();
        assert_eq!(numbers(gather.due(100)), [1, 2]);
        gather.push(entry(3, 10), 100);
        assert!(gather.due(100).is_none());
    }

    #[test]
    fn votes_first_entries_and_much_data_wait_for_nothing() {
        let mut gather = Gather::default();
        gather.push(entry(1, 0), 100);
        assert_eq!(numbers(gather.due(100)), [1]);
        gather.push(entry(2, BYTES), 100);
        assert_eq!(numbers(gather.due(100)), [2]);
        let state = HardState {
            term: Term(2),
            vote: 3,
            ..HardState::default()
        };
        let vote = |number, commit| Persist {
            number,
            hard_state: Some(HardState { commit, ..state }),
            entries: entry(number, 1).entries,
        };
        gather.push(vote(3, LogIndex(1)), 100);
        assert_eq!(numbers(gather.due(100)), [3]);
        gather.push(vote(4, LogIndex(2)), 100);
        assert!(gather.due(100).is_none(), "the commit alone hurries nobody");
    }
}
