//! The local, crash-safe store of one replica: planner, overlay, log, metadata, data, checkpoint, recovery.
//!
//! Nothing here knows of a network or of FUSE. `docs/architecture.md` has the picture.

pub mod apply;
pub mod check;
pub mod checkpoint;
pub mod class;
pub mod copy;
pub mod data;
pub mod digest;
pub mod disk;
pub mod effects;
pub mod error;
pub mod fit;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod key;
pub mod log;
pub mod mend;
pub mod meta;
pub mod op;
pub mod open;
pub mod overlay;
pub mod plan;
pub mod record;
pub mod recover;
pub mod scrub;
pub mod store;
pub mod types;
pub mod verify;
pub mod view;

/// The store as the daemon runs it.
pub type RealStore = store::Store<disk::real::RealDisk, meta::rocks::Rocks>;
