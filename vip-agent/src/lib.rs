//! Holds the virtual address and runs the PBX where, and only while, the replicator's lease says so.
//!
//! `core` decides, from the facts that `follow` hears; `netlink`, `announce`, `units` and `probes` do what it says, and
//! `agent` is the one loop between them. See the modules for the rules.
//!
//! # Beginning and end
//! * An agent that starts adopts what it finds if the daemon says that this node is active: address and healthy units
//!   go on untouched. Otherwise everything found is removed or killed, and reported.
//! * An agent that is stopped (SIGTERM) on the active node stops the PBX in order, then drops the address, then ends. That is
//!   what `systemctl stop vip-agent` should do; the daemon sees an ineligible node meanwhile. Where there is no
//!   file system to stop the PBX on, it is killed.
//! * An agent that dies leaves the PBX running and the address to its lifetime: about a second.

mod agent;
mod announce;
mod clock;
pub mod core;
mod error;
mod follow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod lease;
mod link;
pub mod netlink;
mod notify;
mod probes;
mod question;
mod realtime;
mod report;
mod units;
mod watchdog;

pub use agent::{Shutdown, run};
pub use clock::{BootMs, Now, UnixMs};
pub use error::{Error, Result};
pub use lease::{Facts, Role, Standing};
pub use realtime::lock_memory;
pub use units::units_cgroup;
