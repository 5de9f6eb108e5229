//! What can go wrong between replicas; each says what was attempted.

use std::io;
use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    #[error(transparent)]
    Store(#[from] holdfast_storage::error::StoreError),
    #[error("consensus")]
    Raft(#[from] raft::Error),
    #[error(
        "listening for peers on {0}, which this machine hasn't: give it that address, or put `address` of this node in the configuration right"
    )]
    NotHere(SocketAddr),
    #[error("{what} {address}")]
    Net {
        what: &'static str,
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("reading the certificate files: {0}")]
    Tls(String),
    #[error(transparent)]
    Frame(#[from] crate::wire::BadFrame),
    #[error(
        "this node's disk has failed, so nothing more is written to it; the next start recovers with the peers' help"
    )]
    DiskFailed,
    #[error("starting the thread {0}")]
    Thread(&'static str, #[source] io::Error),
}
