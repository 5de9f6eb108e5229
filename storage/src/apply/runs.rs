//! Writes of one batch that follow or cover each other in a file, joined: a recording's hundred small writes, or the page
//! of a database's log that each commit writes anew, become one.

use crate::types::{Ino, LogIndex};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A run is complete at this length; below the one from which on data goes around the page cache, for these are read soon.
const RUN_MAX: usize = 128 << 10;
/// All runs together; beyond it they are written.
const BYTES_MAX: usize = 8 << 20;

/// Bytes of one file without a gap.
#[derive(Debug)]
pub(super) struct Run {
    /// Of the first entry in it.
    pub(super) index: LogIndex,
    pub(super) offset: u64,
    /// As it came, while nothing was joined to it.
    first: Bytes,
    joined: Vec<u8>,
}

impl Run {
    fn new(index: LogIndex, offset: u64, first: Bytes) -> Self {
        Self {
            index,
            offset,
            first,
            joined: Vec::new(),
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        if self.joined.is_empty() {
            &self.first
        } else {
            &self.joined
        }
    }

    fn len(&self) -> usize {
        self.data().len()
    }

    /// Lays newer bytes over this run or at its end; false if they would leave a gap or make it too long.
    fn join(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some(at) = offset.checked_sub(self.offset) else {
            return false;
        };
        if at > self.len() as u64 || at as usize + data.len() > RUN_MAX {
            return false;
        }
        let at = at as usize;
        if self.joined.is_empty() {
            self.joined = Vec::with_capacity((2 * self.first.len()).max(at + data.len()));
            self.joined.extend_from_slice(&self.first);
        }
        let over = (self.joined.len() - at).min(data.len());
        self.joined[at..at + over].copy_from_slice(&data[..over]);
        self.joined.extend_from_slice(&data[over..]);
        true
    }
}

/// At most one run a file.
#[derive(Default)]
pub(super) struct Runs {
    runs: BTreeMap<Ino, Run>,
    bytes: usize,
}

impl Runs {
    /// Takes a write in. What comes back must be written before it.
    pub(super) fn push(&mut self, index: LogIndex, ino: Ino, offset: u64, data: &Bytes) -> Option<Run> {
        if let Some(run) = self.runs.get_mut(&ino) {
            let before = run.len();
            if run.join(offset, data) {
                self.bytes += run.len() - before;
                return None;
            }
        }
        self.bytes += data.len();
        let former = self.runs.insert(ino, Run::new(index, offset, data.clone()));
        self.forget(former)
    }

    /// What else changes the file comes after its run.
    pub(super) fn take(&mut self, ino: Ino) -> Option<Run> {
        let run = self.runs.remove(&ino);
        self.forget(run)
    }

    fn forget(&mut self, run: Option<Run>) -> Option<Run> {
        self.bytes -= run.as_ref().map_or(0, Run::len);
        run
    }

    pub(super) fn are_many(&self) -> bool {
        self.bytes > BYTES_MAX
    }

    pub(super) fn take_all(&mut self) -> BTreeMap<Ino, Run> {
        self.bytes = 0;
        std::mem::take(&mut self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Written in the order in which they come out, runs make the file that the single writes make.
        #[test]
        fn runs_write_what_the_writes_would(writes in prop::collection::vec((0usize..400, 0usize..90, any::<u8>()), 1..60), taken in 0usize..60) {
            let mut plain = vec![0u8; 1000];
            let mut joined = vec![0u8; 1000];
            let mut runs = Runs::default();
            let mut put = |run: Run| joined[run.offset as usize..][..run.len()].copy_from_slice(run.data());
            for (number, (at, len, fill)) in writes.iter().enumerate() {
                plain[*at..at + len].fill(*fill);
                runs.push(LogIndex(number as u64), Ino(7), *at as u64, &Bytes::from(vec![*fill; *len])).map(&mut put);
                if number == taken {
                    runs.take(Ino(7)).map(&mut put);
                }
            }
            let bytes = runs.bytes;
            let rest = runs.take_all();
            prop_assert_eq!(bytes, rest.values().map(Run::len).sum::<usize>());
            rest.into_values().for_each(&mut put);
            prop_assert_eq!(plain, joined);
        }
    }

    #[test]
    fn a_run_ends_at_its_longest_and_keeps_its_first_index() {
        let mut runs = Runs::default();
        let piece = Bytes::from(vec![1; RUN_MAX / 2]);
        assert!(runs.push(LogIndex(5), Ino(2), 0, &piece).is_none());
        assert!(runs.push(LogIndex(6), Ino(2), piece.len() as u64, &piece).is_none());
        let full = runs
            .push(LogIndex(7), Ino(2), 2 * piece.len() as u64, &piece)
            .expect("the run was full");
        assert_eq!((full.index, full.offset, full.len()), (LogIndex(5), 0, RUN_MAX));
        assert_eq!(runs.take(Ino(2)).map(|run| run.index), Some(LogIndex(7)));
    }
}
