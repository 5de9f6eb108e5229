//! What the daemon does about damaged blocks. In the midst of everything: one is met, looked at, and mended by the applier with bytes
//! that another machine's store gave a while before. And at the end, when all have applied the same: each is found by the product's scrub.

use super::Store;
use super::world::{What, Whom, World};
use bytes::Bytes;
use holdfast_storage::data::sums::{self, Sum};
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::mend::{self, Block, Mended, Since, State};
use holdfast_storage::scrub;
use holdfast_storage::types::{Ino, LogIndex};
use std::sync::Arc;

/// All that may be damaged, by a walk through the whole store.
fn suspects(store: &Store) -> Result<Vec<(Ino, u64)>, String> {
    let (mut found, mut from) = (store.take_rotten(), Bytes::new());
    loop {
        let step = scrub::step(store, &from, &mut AlignedBuf::default()).map_err(|error| error.to_string())?;
        found.extend(step.suspects);
        found.extend(step.damaged);
        match step.next {
            Some(next) => from = next,
            None => break,
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// What another store has there, if it has it sound.
fn given(store: &Store, ino: Ino, number: u64, wanted: Option<Sum>) -> Option<Block> {
    let stored = sums::read(&store.meta, ino, number..number + 1).ok()?[0];
    let is = wanted.unwrap_or(stored);
    if is == sums::DAMAGED {
        return None;
    }
    let data = if is == sums::HOLE {
        Bytes::new()
    } else {
        mend::block(store, ino, number, is).ok()??
    };
    Some(Block {
        ino,
        number,
        is,
        data,
        by_one: false,
    })
}

/// What another machine gave for a damaged block, and the entry up to which it had applied; none: the very bytes that were missed.
pub struct Given {
    block: Block,
    as_of: Option<LogIndex>,
}

impl World {
    /// The bytes are asked for now, of those that can be reached, and put in place later.
    pub(super) fn look_at(&mut self, id: u64, (ino, number): (Ino, u64), takes_us: u64) {
        let now_us = self.now_us;
        let Some(applier) = self.machines[id as usize - 1]
            .replica_mut()
            .filter(|replica| !replica.out && replica.halted.is_none())
            .and_then(|replica| replica.threads.applier.as_mut())
        else {
            return;
        };
        let wanted = match applier.look(ino, number) {
            Ok(State::Rotten(sum)) => Some(sum),
            Ok(State::Damaged) => None,
            _ => return,
        };
        let others = self
            .machines
            .iter()
            .filter(|other| self.net.reaches(id, other.id, now_us));
        let found = others.filter(|other| other.id != id).find_map(|other| {
            let store = &other.replica()?.store;
            let as_of = wanted.is_none().then(|| store.applied());
            let block = given(store, ino, number, wanted)?;
            Some(Given { block, as_of })
        });
        if let Some(given) = found {
            let whom = Whom::Daemon(id, self.machines[id as usize - 1].start);
            self.schedule(takes_us, whom, What::Mend(given));
        }
    }

    /// As the apply thread does it.
    pub(super) fn mend_one(&mut self, id: u64, given: &Given) {
        let Some(replica) = self.machines[id as usize - 1].replica_mut() else {
            return;
        };
        if replica.out || replica.halted.is_some() {
            return;
        }
        let applied = replica.store.applied();
        let since = match given.as_of {
            None => Ok(Some(Since::anything())),
            Some(as_of) => Since::read(&replica.reader, as_of, applied),
        };
        let (Ok(Some(since)), Some(applier)) = (since, replica.threads.applier.as_mut()) else {
            return;
        };
        match applier.mend_blocks(std::slice::from_ref(&given.block), &since) {
            Ok(mended) => {
                let Block { ino, number, .. } = given.block;
                if mended == [Mended::Done] {
                    self.figures.mended += 1;
                    self.machines[id as usize - 1].rot.mended_one(ino);
                }
                self.tell(&format!(
                    "n{id}: block {number} of inode {ino} is to be mended: {mended:?}"
                ));
            }
            Err(error) => drop(replica.halted.get_or_insert(error.to_string())),
        }
    }

    /// Whether every damaged block of every machine could be mended.
    pub(in crate::simulation) fn mend(&mut self) -> Result<(), String> {
        for at in 0..self.machines.len() {
            let stores: Vec<Arc<Store>> = self
                .machines
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at)
                .filter_map(|(_, machine)| Some(machine.replica()?.store.clone()))
                .collect();
            let machine = &mut self.machines[at];
            let id = machine.id;
            let Some(replica) = machine.replica_mut() else { continue };
            let suspects = suspects(&replica.store)?;
            let Some(applier) = replica.threads.applier.as_mut() else {
                return Err(format!("n{id} still applies"));
            };
            for (ino, number) in suspects {
                let wanted = match applier.look(ino, number).map_err(|error| error.to_string())? {
                    State::Sound => continue,
                    State::Rotten(sum) => Some(sum),
                    State::Damaged => None,
                    State::Redoing => return Err(format!("n{id} still does again what it had done")),
                };
                // As the daemon does: those very bytes, or else what the others have at this index.
                let very = stores.iter().find_map(|store| given(store, ino, number, wanted));
                let found = very.or_else(|| stores.iter().find_map(|store| given(store, ino, number, None)));
                let Some(block) = found else {
                    return Err(format!("n{id}: nobody has block {number} of inode {ino} sound"));
                };
                let mended = applier.mend_blocks(&[block], &Since::default());
                let mended = mended.map_err(|error| error.to_string())?;
                if mended != [Mended::Done] {
                    return Err(format!("n{id}: block {number} of inode {ino} was {mended:?}"));
                }
            }
            machine.rot.mended();
        }
        Ok(())
    }
}
