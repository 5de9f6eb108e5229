//! Tells systemd how the daemon does, if systemd asked to be told.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// One message of the sd_notify protocol. Nobody may be listening, and that is no fault.
pub(super) fn send(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::debug!(%error, "systemd couldn't be told");
    }
}

/// Tells systemd once a second that the daemon lives, while no loop does so: between serving and being copied to, syncing
/// and opening a store may take longer than its watchdog waits. Ends when it is dropped.
pub(super) struct Alive(#[expect(dead_code, reason = "dropping it ends the thread")] std::sync::mpsc::Sender<()>);

const TELL_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

impl Alive {
    pub(super) fn tell() -> Self {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let tell = move || {
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(TELL_EVERY) {
                send("WATCHDOG=1");
            }
        };
        // Without the thread systemd may lose patience and start the daemon anew, which goes on with the copy.
        let _ = std::thread::Builder::new().name("hf-alive".into()).spawn(tell);
        Self(end)
    }
}
