//! A replica's files are, at each index of the log, what the committed operations up to there made of them.

use super::{OneOrder, Rot};
use crate::simulation::look;
use crate::simulation::model::Files;
use crate::simulation::replica::Replica;
use crate::simulation::world::World;

/// The model beside one machine's store, at one index.
#[derive(Clone)]
pub struct Shadow {
    pub index: u64,
    pub files: Files,
}

impl Default for Shadow {
    fn default() -> Self {
        Self {
            index: 0,
            files: Files::new(),
        }
    }
}

impl Shadow {
    pub fn advance(&mut self, to: u64, order: &OneOrder) {
        while self.index < to {
            self.index += 1;
            if let Some(change) = &order.truth[self.index as usize - 1].change {
                self.files.apply(change);
            }
        }
    }
}

/// Only what is applied is compared, and only where nothing is pending over it.
fn compare(replica: &Replica, shadow: &mut Shadow, order: &OneOrder, rot: &Rot) -> Option<Result<(), String>> {
    let applied = replica.store.applied().0;
    let comparable = replica.is_redone() && applied >= shadow.index && replica.store.overlay.pending_bytes() == 0;
    if !comparable || order.last() == 0 || applied == 0 {
        return None;
    }
    shadow.advance(applied, order);
    let same = look::tree(&replica.store, &shadow.files, rot);
    Some(same.map_err(|what| format!("n{} at entry {applied}: {what}", replica.id)))
}

impl World {
    pub(in crate::simulation) fn compare_with_history(&mut self, id: u64) -> bool {
        let machine = &mut self.machines[id as usize - 1];
        let Some(replica) = machine.daemon.as_ref().and_then(|daemon| daemon.replica()) else {
            return false;
        };
        if machine.has_faulty_reads {
            return false;
        }
        let verdict = compare(replica, &mut machine.shadow, &self.judge.order, &machine.rot);
        let Some(verdict) = verdict else { return false };
        self.figures.looks += 1;
        self.judge.judge(self.now_us, "files have their history", verdict);
        true
    }
}
