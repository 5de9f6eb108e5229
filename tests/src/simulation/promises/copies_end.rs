//! A copy ends: once nothing fails any more, no node stays without its store.

use crate::simulation::world::World;

impl World {
    pub(in crate::simulation) fn copies_have_ended(&self) -> Result<(), String> {
        let copying = self.machines.iter().find(|machine| machine.is_copying());
        match copying {
            None => Ok(()),
            Some(machine) => Err(format!("n{} is still being copied to", machine.id)),
        }
    }
}
