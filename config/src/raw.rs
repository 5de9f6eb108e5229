//! The file as it is written: every key optional, so that a missing one is reported like any other mistake.
//! Nothing outside this crate sees these types.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) version: Option<u64>,
    pub(crate) node: Option<String>,
    pub(crate) socket: Option<String>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) tls: Option<Tls>,
    #[serde(default)]
    pub(crate) store: Store,
    #[serde(default)]
    pub(crate) mount: Mount,
    #[serde(default)]
    pub(crate) scrub: Scrub,
    #[serde(default)]
    pub(crate) classes: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) timers: Timers,
    pub(crate) vip: Option<Vip>,
    pub(crate) watchdog: Option<Watchdog>,
    #[serde(default)]
    pub(crate) unit: Vec<Unit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) revision: Option<u64>,
    #[serde(default)]
    pub(crate) nodes: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) name: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) replication_port: Option<u64>,
    pub(crate) control_port: Option<u64>,
    pub(crate) removed: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) ca: Option<String>,
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) path: Option<String>,
    pub(crate) log_mib: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mount {
    pub(crate) path: Option<String>,
    pub(crate) request_deadline_ms: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scrub {
    pub(crate) every_h: Option<u64>,
    pub(crate) mib_s: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timers {
    pub(crate) tick_ms: Option<u64>,
    pub(crate) heartbeat_ticks: Option<u64>,
    pub(crate) election_ticks: Option<u64>,
    pub(crate) drift_permille: Option<u64>,
    pub(crate) grace_ms: Option<u64>,
    pub(crate) forgetful_wait_ms: Option<u64>,
    pub(crate) disk_stall_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vip {
    pub(crate) address: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) valid_s: Option<u64>,
    pub(crate) renew_every_ms: Option<u64>,
    pub(crate) renew_min_lease_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watchdog {
    pub(crate) device: Option<String>,
    pub(crate) timeout_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unit {
    pub(crate) name: Option<String>,
    pub(crate) systemd: Option<String>,
    pub(crate) start: Option<Vec<String>>,
    pub(crate) stop: Option<Vec<String>>,
    pub(crate) status: Option<Vec<String>>,
    pub(crate) kill: Option<Vec<String>>,
    pub(crate) health_command: Option<Vec<String>>,
    pub(crate) health_tcp: Option<String>,
    pub(crate) health_http: Option<String>,
    pub(crate) health_every_ms: Option<u64>,
    pub(crate) health_failures: Option<u64>,
    pub(crate) start_timeout_ms: Option<u64>,
    pub(crate) stop_timeout_ms: Option<u64>,
}
