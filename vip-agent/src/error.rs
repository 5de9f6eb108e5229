//! The crate's one error type; each variant names what was attempted.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening a netlink socket; vip-agent needs CAP_NET_ADMIN")]
    NetlinkSocket(#[source] io::Error),
    #[error("netlink: {doing}")]
    Netlink {
        doing: String,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("netlink: {doing}: the kernel did not answer within {after:?}")]
    NetlinkSlow { doing: &'static str, after: Duration },
    #[error("there is no interface {name}; set vip.interface to one that `ip link` shows")]
    NoSuchInterface { name: String },
    #[error("no interface has a static address in the network of {address}/{prefix}; add one, or set vip.interface")]
    NoInterfaceInNetwork { address: IpAddr, prefix: u8 },
    #[error("interface {name} has no Ethernet address, so the move of the VIP can't be announced on it")]
    NotEthernet { name: String },
    #[error("announcing {address} on interface {index}")]
    Announce {
        address: IpAddr,
        index: u32,
        #[source]
        source: io::Error,
    },
    #[error("asking the network who has {address}")]
    Ask {
        address: IpAddr,
        #[source]
        source: io::Error,
    },
    #[error("starting `{command}`")]
    Spawn {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("an empty command has no program to run; write it as [\"program\", \"argument\", ...]")]
    EmptyCommand,
    #[error("`{command}` ended with {status}{said}")]
    CommandFailed {
        command: String,
        status: String,
        said: String,
    },
    #[error("`{command}` did not end within {after:?}")]
    CommandSlow { command: String, after: Duration },
    #[error("systemd: {doing}")]
    Systemd {
        doing: String,
        #[source]
        source: Box<zbus::Error>,
    },
    #[error("systemd: {doing}: no answer within {after:?}")]
    SystemdSlow { doing: String, after: Duration },
    #[error("systemd unit {unit} went to state {state} instead of active; see `systemctl status {unit}`")]
    SystemdNotActive { unit: String, state: String },
    #[error("{what}")]
    Unhealthy { what: String },
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The whole chain in one line, for a status sentence.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

pub type Result<T> = std::result::Result<T, Error>;
