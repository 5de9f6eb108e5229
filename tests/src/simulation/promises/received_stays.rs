//! What was acknowledged as received stays as long as one of the nodes that had it keeps it, in memory or on its disk; so no
//! single node's loss takes it. The stated exception: after the configured wait the durable logs alone decide.

use crate::simulation::machine::Machine;
use crate::simulation::replica::Replica;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct ReceivedStays {
    /// Index to term, of what isn't committed yet.
    acknowledged: BTreeMap<u64, u64>,
    /// Acknowledged, and lost with all nodes that held it, or where the durable logs alone decided.
    pub lost: u64,
}

fn holds(machine: &Machine, index: u64, term: u64) -> bool {
    let held = match machine.replica() {
        Some(replica) => replica.memory.get(&index),
        None => machine.stored.get(&index),
    };
    held == Some(&term)
}

impl ReceivedStays {
    pub fn acknowledged(&mut self, index: u64, term: u64) {
        self.acknowledged.insert(index, term);
    }

    pub fn indexes(&self) -> impl Iterator<Item = u64> + '_ {
        self.acknowledged.keys().copied()
    }

    pub fn look(&mut self, machines: &[Machine]) {
        let alone = |machine: &Machine| {
            machine
                .replica()
                .is_some_and(|replica| replica.core.is_forgetful() && replica.core.durable_alone_ms().is_some())
        };
        if !self.acknowledged.is_empty() && machines.iter().any(alone) {
            self.lost += self.acknowledged.len() as u64;
            self.acknowledged.clear();
        }
    }

    /// A process, or its disk, is gone.
    pub fn ended(&mut self, machines: &[Machine]) {
        let before = self.acknowledged.len();
        self.acknowledged
            .retain(|index, term| machines.iter().any(|machine| holds(machine, *index, *term)));
        self.lost += (before - self.acknowledged.len()) as u64;
    }

    pub fn committed(&mut self, index: u64, term: u64) -> Result<(), String> {
        match self.acknowledged.remove(&index) {
            Some(acknowledged) if acknowledged != term => Err(format!(
                "entry {index} of term {acknowledged} was acknowledged as received; one of term {term} was committed there"
            )),
            _ => Ok(()),
        }
    }

    pub fn promoted(&self, replica: &Replica) -> Result<(), String> {
        for (index, term) in &self.acknowledged {
            let held = replica.memory.get(index);
            if held != Some(term) {
                return Err(format!(
                    "n{} becomes active without entry {index} of term {term}, which was acknowledged as received and isn't lost; it has {held:?} there",
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
                "entry {index} of term {term} was acknowledged as received and is nowhere at the end"
            )),
        }
    }
}
