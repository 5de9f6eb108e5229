//! All changes form one log: what one node calls committed at an index, all do, for ever.

use crate::simulation::model::Change;
use holdfast_storage::apply::Committed;
use std::collections::BTreeMap;

pub struct Entry {
    pub term: u64,
    hash: blake3::Hash,
    /// What a client asked for; none of what the nodes themselves put into the log.
    pub change: Option<Change>,
}

#[derive(Default)]
pub struct OneOrder {
    /// The committed log, from index 1 on.
    pub truth: Vec<Entry>,
    /// What is proposed and not known to be committed, by index and term.
    proposed: BTreeMap<(u64, u64), Change>,
}

impl OneOrder {
    pub fn last(&self) -> u64 {
        self.truth.len() as u64
    }

    pub fn term(&self, index: u64) -> Option<u64> {
        Some(self.truth.get(index.checked_sub(1)? as usize)?.term)
    }

    pub fn propose(&mut self, index: u64, term: u64, change: Change) {
        self.proposed.insert((index, term), change);
    }

    pub fn proposed(&self, index: u64, term: u64) -> Option<&Change> {
        self.proposed.get(&(index, term))
    }

    /// True: it is the next one.
    pub fn committed(&mut self, node: u64, entry: &Committed) -> Result<bool, String> {
        let (index, term, hash) = (entry.index.0, entry.term.0, blake3::hash(&entry.data));
        if index == self.last() + 1 {
            let change = self.proposed.get(&(index, term)).cloned();
            self.proposed = self.proposed.split_off(&(index + 1, 0));
            self.truth.push(Entry { term, hash, change });
            return Ok(true);
        }
        let Some(known) = index.checked_sub(1).and_then(|at| self.truth.get(at as usize)) else {
            return Err(format!(
                "n{node} calls entry {index} committed, {} is the last one known",
                self.last()
            ));
        };
        if (known.term, known.hash) != (term, hash) {
            return Err(format!(
                "entry {index} was committed in term {}; n{node} calls another one of term {term} committed there",
                known.term
            ));
        }
        Ok(false)
    }
}
