//! What the daemon does about damaged blocks all the time, done once at the end, when all have applied the same: each is found by the
//! product's scrub, looked at and mended by its applier, with bytes that another machine's store gives.

use super::Store;
use super::world::World;
use bytes::Bytes;
use holdfast_storage::data::sums::{self, Sum};
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::mend::{self, Block, Mended, Since, State};
use holdfast_storage::scrub;
use holdfast_storage::types::Ino;
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
    Some(Block { ino, number, is, data })
}

impl World {
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
