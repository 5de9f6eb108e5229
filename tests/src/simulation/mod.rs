//! The whole product in one thread, under a virtual clock: for each of three machines the real consensus core over the real log,
//! recovery, planner, overlay, sequencer, applier, checkpoint and copy, and vip-agent's real core. Simulated are the network,
//! the disks, the kernels, the processes' lives and the clients. A seed is a whole run: the same seed gives the same run to the
//! byte.
//!
//! A run is a time full of faults, drawn beforehand (`plan`), in which the `promises` are looked at after each event, and then
//! one without, in which all must become well again within a bound.

#![allow(unreachable_pub, reason = "these modules are private, and so is what they share")]

mod agent;
mod agents;
mod choice;
mod client;
mod clock;
mod copying;
mod disk;
mod figures;
mod harm;
mod look;
mod machine;
mod mending;
mod model;
mod net;
mod plan;
mod processes;
mod promises;
mod random;
mod receiver;
mod replica;
mod run;
mod shrink;
mod strike;
mod timers;
mod trace;
mod world;

pub use figures::Figures;
pub use promises::Broken;
pub use run::{Outcome, run};
pub use shrink::shrink;
pub use world::Options;

fn promises_late_ms() -> u64 {
    promises::LATE_MS
}

/// The store as it is simulated.
type Store = holdfast_storage::store::Store<disk::FaultyDisk, holdfast_storage::meta::sim::SimMeta>;
