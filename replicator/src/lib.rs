//! One order for three nodes: consensus, the lease, the active role, and the replication stream.
//!
//! `core` is the sans-IO heart, `task` the one loop that owns it; everything else serves them. Nothing here
//! knows of FUSE or of addresses that move.

pub mod api;
mod behind;
pub mod clock;
pub mod copy;
pub mod core;
pub mod disk_health;
pub mod dropped;
pub mod error;
pub mod fitness;
pub mod forgetful;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod gather;
mod handle;
pub mod handover;
pub mod lag;
mod last_changed;
pub mod lease;
pub mod linger;
pub mod memory_log;
pub mod net;
mod own_store;
pub mod pins;
mod queue;
pub mod roles;
pub mod sequencer;
mod start;
mod task;
mod threads;
pub mod unapplied;
pub mod urgency;
pub mod view;
mod volume;
mod waiting;
pub mod wire;

pub use gate::Gate;
pub use handle::{AgentFacts, Handle, Rotten};
pub use last_changed::last_changed;
pub use start::{Options, Replica};
pub use task::spare_from;
