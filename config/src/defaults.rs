//! What a key means when the file doesn't have it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::{ClassRule, Mount, Node, Scrub, Store, Timers, Unit, UnitControl, Vip, Watchdog};

/// Where the daemon and the operator's commands look for the configuration.
pub const CONFIG_FILE: &str = "/etc/holdfast/holdfast.toml";
/// Where the daemon answers local callers.
pub const SOCKET: &str = "/run/holdfast/holdfast.sock";
pub const REPLICATION_PORT: u16 = 7400;
pub const CONTROL_PORT: u16 = 7401;
pub const MIB: u64 = 1 << 20;

impl Default for Timers {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(50),
            heartbeat_ticks: 2,
            election_ticks: 20,
            drift_permille: 10,
            grace: Duration::from_secs(3),
            forgetful_wait: Duration::from_secs(10),
            disk_stall: Duration::from_secs(3),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/holdfast"),
            log_bytes: 1024 * MIB,
        }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(24 * 3600),
            rate: 32 * MIB,
        }
    }
}

impl Default for Mount {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/portsip"),
            request_deadline: Duration::from_secs(10),
        }
    }
}

/// What PortSIP PBX keeps where. NATS and ClickHouse acknowledge before they call fsync: they need the default class.
pub fn classes() -> Vec<ClassRule> {
    [
        ("im-postgresql", "database"),
        ("pbx/log", "logs"),
        ("pbx/prompts", "prompts"),
        ("pbx/recordings", "recordings"),
        ("postgresql", "database"),
    ]
    .map(|(path, class)| ClassRule {
        path: PathBuf::from(path),
        class: class.to_owned(),
    })
    .into()
}

impl Node {
    /// A node on the default ports.
    pub fn new(name: &str, address: IpAddr) -> Self {
        let name = name.to_owned();
        Self {
            name,
            address,
            replication_port: REPLICATION_PORT,
            control_port: CONTROL_PORT,
            removed: false,
        }
    }
}

impl Vip {
    /// An address with the default lifetimes.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        Self {
            address,
            prefix,
            interface: None,
            valid: Duration::from_secs(1),
            renew_every: Duration::from_millis(200),
            renew_min_lease: Duration::from_millis(550),
        }
    }
}

impl Watchdog {
    pub fn new(device: &str) -> Self {
        Self {
            device: PathBuf::from(device),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Unit {
    /// A unit without a health check, with the default timeouts.
    pub fn new(name: &str, control: UnitControl) -> Self {
        Self {
            name: name.to_owned(),
            control,
            health: None,
            health_every: Duration::from_secs(1),
            health_failures: 3,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(30),
        }
    }
}
