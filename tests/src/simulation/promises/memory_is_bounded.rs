//! What is sequenced and not applied, and the requests that wait, stay below their bounds.

use crate::simulation::machine::Machine;
use crate::simulation::timers;

/// Of `sequencer::PENDING_MAX`, and one request more.
const PENDING_MAX: u64 = (64 << 20) + (2 << 20);

pub fn check(machines: &[Machine]) -> Result<(), String> {
    for machine in machines {
        let Some(replica) = machine.replica() else { continue };
        let (pending, waiting) = (replica.store.overlay.pending_bytes(), replica.sequencer.waiting());
        if pending > PENDING_MAX {
            return Err(format!("n{} holds {pending} bytes in its overlay", machine.id));
        }
        // Each client waits for one request; those whose node was given up by its client wait until their deadline.
        if waiting > timers::CLIENTS * 200 {
            return Err(format!("{waiting} requests wait on n{}", machine.id));
        }
    }
    Ok(())
}
