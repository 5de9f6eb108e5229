//! What may change while a replica runs: where its peers are, and by which certificates the nodes know each other.

use super::tls::Tls;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct Reach {
    /// Where each peer accepts connections, by its number. A peer that isn't there was removed: it is neither called nor heard.
    pub places: BTreeMap<u64, SocketAddr>,
    pub tls: Tls,
}

impl Reach {
    /// Whether a peer is at that address.
    pub(crate) fn is_place(&self, address: IpAddr) -> bool {
        self.places.values().any(|place| place.ip() == address)
    }
}

/// As it is now, and when it changes.
#[derive(Clone, Debug)]
pub(crate) struct Reachable(pub(crate) watch::Receiver<Arc<Reach>>);

impl Reachable {
    pub(crate) fn now(&self) -> Arc<Reach> {
        self.0.borrow().clone()
    }

    pub(crate) fn place(&self, peer: u64) -> Option<SocketAddr> {
        self.0.borrow().places.get(&peer).copied()
    }

    /// The peer is somewhere else than `place`. Never, when nobody can change it any more.
    pub(crate) async fn moved(&mut self, peer: u64, place: Option<SocketAddr>) {
        let elsewhere = |reach: &Arc<Reach>| reach.places.get(&peer).copied() != place;
        self.until(elsewhere).await;
    }

    /// The peer was removed, or is another machine than the one that calls from there.
    pub(crate) async fn gone(&mut self, peer: u64, from: IpAddr) {
        let is_elsewhere = |reach: &Arc<Reach>| reach.places.get(&peer).is_none_or(|place| place.ip() != from);
        self.until(is_elsewhere).await;
    }

    async fn until(&mut self, is_so: impl FnMut(&Arc<Reach>) -> bool) {
        if self.0.wait_for(is_so).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
