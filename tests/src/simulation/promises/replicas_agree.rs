//! Replicas at the same entry have the same state: the product's own check, at entries of the log, and all keys at the end.

use crate::simulation::look;
use crate::simulation::machine::Machine;
use holdfast_storage::check::Part;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct ReplicasAgree {
    /// By the entry that asked: who found what first.
    found: BTreeMap<u64, (u64, Vec<u8>)>,
    pub compared: u64,
}

impl ReplicasAgree {
    /// A replica whose blocks are known to be rotten says so, or nothing; what redo may have taken for sound is left out.
    pub fn found(&mut self, machine: &Machine, part: Part) -> Result<(), String> {
        let Ok(found) = part.found else { return Ok(()) };
        // A digest counts the marks of damaged blocks.
        let is_digest = found.hash.len() != blake3::OUT_LEN;
        if found.is_damaged() || machine.rot.is_in_doubt() || (is_digest && !machine.rot.is_empty()) {
            return Ok(());
        }
        let (node, hash) = self
            .found
            .entry(part.index.0)
            .or_insert_with(|| (machine.id, found.hash.clone()));
        if *node != machine.id {
            self.compared += 1;
        }
        if *hash != found.hash {
            return Err(format!("n{node} and n{} differ at entry {}", machine.id, part.index));
        }
        Ok(())
    }
}

/// All replicas have applied the same.
pub fn at_the_end(machines: &[Machine]) -> Result<(), String> {
    let mut first = None;
    for machine in machines.iter().filter(|machine| machine.rot.is_empty()) {
        let Some(replica) = machine.replica() else { continue };
        let hash = look::hash(&replica.store)?;
        let (node, known) = *first.get_or_insert((machine.id, hash));
        if known != hash {
            return Err(format!("n{node} and n{} hold different keys at the end", machine.id));
        }
    }
    Ok(())
}
