//! The replication stream: mutual TLS 1.3 between the static addresses, one connection a direction, frames of
//! a prost header and the entries' raw bytes. A node writes on the connections that it opened and reads on
//! those that it accepted.

mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod greeting;
mod incoming;
mod outgoing;
pub mod reach;
pub mod tls;

pub use greeting::{Speaker, agreed};
pub(crate) use incoming::listen;
pub(crate) use outgoing::Outgoing;

use crate::lease::Timing;
use crate::wire::PeerMessage;
use reach::Reachable;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What both sides of a connection must agree about.
#[derive(Clone, Debug)]
pub struct Local {
    /// `PROTOCOL`, but for tests of other versions.
    pub protocol: u32,
    pub cluster_id: String,
    pub node: String,
    pub id: u64,
    /// Of this store's formatting, as hexadecimal digits.
    pub store_id: String,
    /// As in the store's identity: log index of the end of the copy that it came from; 0: none.
    pub joined: u64,
    /// `copy::history` of the store; the loop sets it when it first knows it.
    pub history: Arc<AtomicU64>,
    pub timing: Timing,
    pub bind: IpAddr,
    pub peers: Vec<Remote>,
    pub(crate) reach: Reachable,
}

#[derive(Clone, Debug)]
pub struct Remote {
    pub name: String,
    pub id: u64,
}

/// What the network tells the loop.
pub(crate) enum NetEvent {
    Message {
        from: u64,
        message: PeerMessage,
    },
    /// A connection to or from this peer has come up or gone, with the reason.
    Up {
        peer: u64,
    },
    Down {
        peer: u64,
        why: String,
    },
    /// Which store a peer has.
    HasStore {
        peer: u64,
        store_id: String,
        joined: u64,
        /// It holds a file system.
        has_data: bool,
        timing: Timing,
    },
}

pub(crate) type ToLoop = tokio::sync::mpsc::Sender<NetEvent>;

/// Version of the frames that this software speaks. With a peer of the version before or after, one release apart, it speaks
/// the lower of both; docs/adr/0016-versions.md says what a new one may change.
pub const PROTOCOL: u32 = 2;
