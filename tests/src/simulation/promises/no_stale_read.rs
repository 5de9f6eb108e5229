//! A read on the active node shows every change that was sequenced there before it, so every acknowledged one.

use crate::simulation::look;
use crate::simulation::world::World;
use holdfast_storage::types::Ino;

impl World {
    /// One file, or all that there is.
    pub(in crate::simulation) fn read(&mut self, id: u64, ino: Option<Ino>) {
        let machine = &self.machines[id as usize - 1];
        let (Some(replica), Some(sequenced)) = (machine.replica(), &machine.sequenced) else {
            return;
        };
        if machine.has_faulty_reads {
            return;
        }
        let verdict = match ino {
            None => look::tree(&replica.store, sequenced, &machine.rot),
            Some(ino) => match sequenced.files.get(&ino) {
                Some(bytes) => look::file(&replica.store, ino, bytes, &machine.rot),
                None => Ok(()),
            },
        };
        self.figures.reads += 1;
        let verdict = verdict.map_err(|what| format!("on the active n{id}: {what}"));
        self.judge.judge(self.now_us, "no stale read", verdict);
    }
}
