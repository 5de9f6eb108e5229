//! The thin FUSE edge: translates the kernel's requests, hands them on, and gives the answers back.
//!
//! Nothing is decided here: what an operation changes is the planner's, when it is acknowledged is the replicator's.
//! No FUSE thread waits for replication. `docs/semantics.md` says what each system call promises.

mod attr;
pub mod backend;
mod class;
mod connection;
mod directory;
mod doubt;
mod errno;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod kernel;
mod listings;
mod mount;
mod opening;
mod opens;
mod orphans;
mod point;
mod replica;
mod request;
mod seal;
mod serve;
mod session;
mod standby;
mod table;
mod translate;
mod xattr;

pub use backend::Backend;
pub use class::ClassRule;
pub use error::MountError;
pub use mount::{Mounted, Options};
pub use point::unseal;
