//! The one configuration file of a node, parsed once into valid types.
//!
//! `holdfast serve`, `vip-agent` and the operator's commands read the same file. Whatever leaves this
//! crate has been checked: exactly three distinct nodes, timers that keep the VIP inequality, files
//! that exist with the right modes. No I/O beyond reading the file and the certificates belongs here.

mod check;
mod classes;
pub mod defaults;
mod document;
pub mod edit;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod network;
mod paths;
mod raw;
mod render;
mod timers;
pub mod tls_files;
mod units;
mod vip;
mod watchdog;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use document::Document;
pub use error::ConfigError;
pub use render::render;
pub use vip::renew_min_lease_limit;

/// Reads and checks a node's configuration, with the certificate and the key that it names.
#[expect(
    clippy::disallowed_methods,
    reason = "an edge: the wall clock is asked once and passed down"
)]
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let document = Document::read(path)?;
    let config = check::config(&document)?;
    tls_files::check(&document, &config, SystemTime::now())?;
    Ok(config)
}

/// Like `load`, without opening the certificate and the key: for commands that stay on this machine, which
/// must work for a user who can't read the key, and after the certificate has expired.
pub fn load_without_keys(path: &Path) -> Result<Config, ConfigError> {
    check::config(&Document::read(path)?)
}

/// One node's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that it came from.
    pub file: PathBuf,
    pub cluster: Cluster,
    /// This machine: an index into `cluster.nodes`.
    pub this: usize,
    pub tls: Tls,
    pub store: Store,
    pub mount: Mount,
    pub scrub: Scrub,
    /// Directories that get a class when they are made, in the order of their paths.
    pub classes: Vec<ClassRule>,
    pub timers: Timers,
    /// Absent: no address is managed.
    pub vip: Option<Vip>,
    /// Absent: a PBX that outlives its role and can't be killed stays until somebody comes.
    pub watchdog: Option<Watchdog>,
    /// Unix socket on which the daemon answers local callers and vip-agent.
    pub socket: PathBuf,
    /// The PBX, in the order of starting.
    pub units: Vec<Unit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    /// Made by `holdfast init`; nodes of another id are refused.
    pub id: String,
    /// Counts the changes of addresses made by `holdfast node`: nodes that meet go by the highest.
    pub revision: u64,
    /// Exactly three; the Raft id of a node is its position here plus one.
    pub nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Static address of the machine. Replication binds it, so that the VIP never becomes a source address.
    pub address: IpAddr,
    pub replication_port: u16,
    pub control_port: u16,
    /// Gone for good: neither called nor heard until another one takes its place.
    pub removed: bool,
}

impl Node {
    pub fn replication(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.replication_port)
    }
    pub fn control(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.control_port)
    }
}

/// Files of the mutual TLS; the certificate's common name and only DNS name is the node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub path: PathBuf,
    /// Length of the replicated log on disk, preallocated; as much again is kept free for redo.
    pub log_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub path: PathBuf,
    /// Every request ends by then, with EIO if its outcome isn't known.
    pub request_deadline: Duration,
}

/// How everything that is stored is read from time to time, to find what has rotted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrub {
    /// From the beginning of one to that of the next.
    pub every: Duration,
    /// Bytes read in a second, at most.
    pub rate: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRule {
    /// Relative to the mount's root, without `.` and `..`.
    pub path: PathBuf,
    /// One of `CLASSES`.
    pub class: String,
}

/// Names of all classes; what they mean is the store's to know.
pub const CLASSES: [&str; 6] = ["default", "database", "recordings", "logs", "prompts", "durable"];

/// See `vip.rs` for the inequality that they must keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    pub tick: Duration,
    pub heartbeat_ticks: u32,
    pub election_ticks: u32,
    /// How far two machines' clocks may drift apart in rate, in parts per thousand.
    pub drift_permille: u32,
    /// How long a suspended active node keeps the PBX running without the address.
    pub grace: Duration,
    /// How long nodes that lost unsynced entries wait for the third before the durable logs alone decide.
    pub forgetful_wait: Duration,
    /// A write that the store's disk hasn't done after this long: an active node gives its role away.
    pub disk_stall: Duration,
}

impl Timers {
    /// Length of a lease, from the sending of the heartbeat that a majority answered: one tick less than
    /// the shortest election timeout, less the drift.
    pub fn lease(&self) -> Duration {
        let promised = self.tick * (self.election_ticks - 1);
        promised - promised * self.drift_permille / 1000
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    pub address: IpAddr,
    pub prefix: u8,
    /// Absent: the interface that has a static address in the same network.
    pub interface: Option<String>,
    /// Lifetime that each renewal gives the address; the kernel drops it by itself after that, plus `KERNEL_SLACK`.
    pub valid: Duration,
    pub renew_every: Duration,
    /// R: the address is renewed only while at least so much of the lease remains.
    pub renew_min_lease: Duration,
}

/// A kernel with nothing else to do keeps an address up to so much longer than its lifetime (measured: 1 → 1.02 s, 2 → 2.04,
/// 3 → 3.13). It may be later, so a new owner also asks the network (docs/adr/0006-lease-and-address.md).
pub const KERNEL_SLACK: Duration = Duration::from_millis(300);

impl Vip {
    /// How long after the former lease's end a new owner must wait before it adds the address.
    pub fn wait_after_lease(&self) -> Duration {
        (self.valid + KERNEL_SLACK).saturating_sub(self.renew_min_lease)
    }
}

/// A timer that resets this machine unless vip-agent feeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    pub device: PathBuf,
    pub timeout: Duration,
}

/// One part of the PBX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    pub control: UnitControl,
    pub health: Option<Health>,
    pub health_every: Duration,
    /// Consecutive failures before the unit counts as unhealthy.
    pub health_failures: u32,
    pub start_timeout: Duration,
    pub stop_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitControl {
    /// A systemd unit, by D-Bus.
    Systemd { unit: String },
    /// Commands; each a program and its arguments, no shell. `status` exits 0 while running.
    /// Started processes that stay are in a process group of their own, killed at a loss together with all
    /// that `kill` (if given) names.
    Command {
        start: Vec<String>,
        stop: Vec<String>,
        status: Vec<String>,
        kill: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Exit code 0 is healthy.
    Command(Vec<String>),
    /// A connection that succeeds is healthy.
    Tcp(SocketAddr),
    /// `http://host:port/path`: status 200 to 299 is healthy.
    Http(String),
}
