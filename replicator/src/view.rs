//! What the loop shows to everyone else: status, vip-agent's facts, the mount's owner. A plain snapshot.

use crate::disk_health::DiskTrouble;
use crate::lag::Lag;
use crate::roles::Role;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct View {
    pub at_ms: u64,
    pub role: Role,
    pub term: u64,
    /// Raft id of the leader that this node follows or is.
    pub leader: Option<u64>,
    /// An election is on: no leader is known.
    pub candidate: bool,
    pub sequenced: u64,
    pub durable: u64,
    pub committed: u64,
    pub applied: u64,
    pub checkpointed: u64,
    pub first: u64,
    pub lease_until_ms: u64,
    pub vip_not_before_ms: u64,
    pub forgetful: bool,
    pub durable_alone_ms: Option<u64>,
    pub peers: BTreeMap<u64, PeerView>,
    /// Followers: log bytes behind the leader, and since when.
    pub lag: Lag,
    /// Peers that fell behind the retained log.
    pub left_behind: Vec<u64>,
    pub halted: Option<String>,
    pub disk: Option<DiskTrouble>,
    pub full: bool,
    pub failover: Option<Failover>,
    pub handover: Option<String>,
    pub waiting: usize,
    /// Its disk is above its reserve, as far as this is known.
    pub has_room: bool,
    /// Bytes of entries that this node has yet to apply.
    pub unapplied: u64,
    /// Bytes that this node and the better standby can still take before changes are refused.
    pub room: u64,
}

#[derive(Clone, Debug, Default)]
pub struct PeerView {
    pub up: bool,
    /// Why there is no connection, and since when (CLOCK_BOOTTIME).
    pub down: Option<(String, u64)>,
    pub heard_ms: u64,
    pub last_index: u64,
    pub eligible: bool,
    pub forgetful: bool,
    /// Its store isn't the one that it had before.
    pub strange: bool,
    /// It holds another file system than this node.
    pub other_history: bool,
}

/// Moments of this node's last promotion, CLOCK_BOOTTIME in ms; 0: not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failover {
    pub term: u64,
    pub began_ms: u64,
    pub detected_ms: u64,
    pub lease_ms: u64,
    pub mounted_ms: u64,
    pub vip_ms: u64,
    pub units_ms: u64,
    pub first_write_ms: u64,
    pub from: Option<u64>,
    /// Why the former active node gave the role away, in its words; `planned` if it was told to.
    pub given_away: Option<String>,
}

/// The loop's latest snapshot, to be looked at and waited for. It never lends the channel's own guard: a
/// reader that held one while asking again would stop the loop for good.
#[derive(Clone)]
pub struct Watch(watch::Receiver<Arc<View>>);

impl Watch {
    pub(crate) fn new(receiver: watch::Receiver<Arc<View>>) -> Self {
        Self(receiver)
    }

    pub fn latest(&self) -> Arc<View> {
        self.0.borrow().clone()
    }

    /// As `latest`; `changed` then waits for a newer one.
    pub fn take(&mut self) -> Arc<View> {
        self.0.borrow_and_update().clone()
    }

    /// False: the loop has ended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
