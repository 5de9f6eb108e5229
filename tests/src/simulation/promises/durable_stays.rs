//! What was acknowledged as durable stays, whatever crashes: every later active node has it, and it is in the log for good.

use super::OneOrder;
use crate::simulation::replica::Replica;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct DurableStays {
    /// Index to term.
    acknowledged: BTreeMap<u64, u64>,
}

impl DurableStays {
    pub fn acknowledged(&mut self, index: u64, term: u64, order: &OneOrder) -> Result<(), String> {
        match order.term(index) {
            Some(committed) if committed == term => Ok(()),
            Some(committed) => Err(format!(
                "entry {index} of term {term} is acknowledged as durable; one of term {committed} is committed there"
            )),
            None => {
                self.acknowledged.insert(index, term);
                Ok(())
            }
        }
    }

    /// This entry is the log's next committed one.
    pub fn committed(&mut self, index: u64, term: u64) -> Result<(), String> {
        match self.acknowledged.remove(&index) {
            Some(acknowledged) if acknowledged != term => Err(format!(
                "entry {index} of term {acknowledged} was acknowledged as durable; one of term {term} was committed there"
            )),
            _ => Ok(()),
        }
    }

    /// A node becomes active: it has all that was committed, and all that was acknowledged.
    pub fn promoted(&self, replica: &Replica, order: &OneOrder) -> Result<(), String> {
        let last = replica.core.last();
        if last < order.last() {
            return Err(format!(
                "n{} becomes active with a log that ends at {last}, {} is committed",
                replica.id,
                order.last()
            ));
        }
        for (index, term) in &self.acknowledged {
            let held = replica.memory.get(index);
            if held != Some(term) {
                return Err(format!(
                    "n{} becomes active without entry {index} of term {term}, which was acknowledged as durable; it has {held:?} there",
                    replica.id
                ));
            }
        }
        Ok(())
    }

    pub fn at_the_end(&self) -> Result<(), String> {
        match self.acknowledged.first_key_value() {
            None => Ok(()),
            Some((index, term)) => Err(format!(
                "entry {index} of term {term} was acknowledged as durable and is nowhere at the end"
            )),
        }
    }
}
