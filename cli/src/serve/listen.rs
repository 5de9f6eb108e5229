//! Opens the two doors of control: the Unix socket for this machine, the control port for the peers.

use super::live::Live;
use anyhow::Context as _;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::service::Routes;
use tonic::transport::Server;

/// Connections whose handshake isn't over; more are closed unheard.
const GREETING_MAX: usize = 32;
/// A handshake that takes longer is given up.
const GREETING_LONGEST: Duration = Duration::from_secs(2);
/// A peer is asked so often whether it is still there, and given up if it doesn't say so: a machine without power closes no
/// connection, and what is being read for it would wait for a quarter of an hour.
const ECHO_EVERY: Duration = Duration::from_secs(5);
const ECHO_WITHIN: Duration = Duration::from_secs(15);

pub(super) struct Servers {
    tasks: Vec<JoinHandle<()>>,
    socket: std::path::PathBuf,
}

impl Servers {
    pub(super) fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
        let _ = std::fs::remove_file(self.socket);
    }
}

pub(super) async fn start(live: Arc<Live>, local_doors: Routes, remote_doors: Routes) -> anyhow::Result<Servers> {
    let now = live.now();
    let socket = now.config.socket.clone();
    let local = unix(&socket).with_context(|| format!("opening the control socket {}", socket.display()))?;
    let address = now.own().control();
    let remote = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening for control on {address}"))?;
    let local = Server::builder()
        .add_routes(local_doors)
        .serve_with_incoming(UnixListenerStream::new(local));
    let (accepted, connections) = mpsc::channel(GREETING_MAX);
    let remote_server = Server::builder()
        .http2_keepalive_interval(Some(ECHO_EVERY))
        .http2_keepalive_timeout(Some(ECHO_WITHIN))
        .add_routes(remote_doors)
        .serve_with_incoming(ReceiverStream::new(connections));
    let run = |what: &'static str, ended: Result<(), tonic::transport::Error>| {
        if let Err(error) = ended {
            tracing::error!(%error, what, "a control server ended");
        }
    };
    let tasks = vec![
        tokio::spawn(async move { run("Unix socket", local.await) }),
        tokio::spawn(accept(remote, live, accepted)),
        tokio::spawn(async move { run("control port", remote_server.await) }),
    ];
    Ok(Servers { tasks, socket })
}

/// Each connection with the certificates that are in force when it begins.
async fn accept(listener: TcpListener, live: Arc<Live>, accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>) {
    let greeting = Arc::new(Semaphore::new(GREETING_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely; trying again at once would only burn the processor.
                tracing::warn!(%error, "accepting a connection for control failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = greeting.clone().try_acquire_owned() else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let acceptor = acceptor(&live);
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let _place = place;
            // Who has no certificate of this cluster's hears so from the handshake.
            if let Ok(Ok(stream)) = tokio::time::timeout(GREETING_LONGEST, acceptor.accept(stream)).await {
                let _ = accepted.send(Ok(stream)).await;
            }
        });
    }
}

fn acceptor(live: &Live) -> TlsAcceptor {
    let mut config = (*live.now().tls.server).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Replaces a socket that a dead daemon left; the store's lock has made sure that none is alive.
fn unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
