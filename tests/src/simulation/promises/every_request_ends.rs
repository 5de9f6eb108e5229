//! Every request ends by its deadline, as long as the daemon that has it runs.

use crate::simulation::world::World;

/// A tick looks for what is late, and ticks are a little late themselves.
pub const LATE_MS: u64 = 250;

impl World {
    pub(in crate::simulation) fn request_is_late(&mut self, id: u64, op: u64) {
        let facts = format!("operation {op} on n{id} wasn't answered by its deadline");
        self.judge.blame(self.now_us, "every request ends", facts);
    }
}
