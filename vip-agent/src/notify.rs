//! The few words of sd_notify(3): ready, alive, stopping. Nothing happens where systemd isn't the parent.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    pub watchdog_every: Option<Duration>,
}

impl Notify {
    pub(crate) fn from_environment() -> Self {
        let address = env::var("NOTIFY_SOCKET")
            .ok()
            .and_then(|name| match name.strip_prefix('@') {
                Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name).ok(),
                None => SocketAddr::from_pathname(&name).ok(),
            });
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let micros = env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|value| value.parse::<u64>().ok());
        Self {
            socket,
            watchdog_every: micros.map(|micros| Duration::from_micros(micros) / 3),
        }
    }

    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    fn say(&self, word: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(word.as_bytes(), address) {
            warn!(%error, word, "telling systemd");
        }
    }
}
