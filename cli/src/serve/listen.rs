//! Opens the two doors of control: the Unix socket for this machine, the control port for the peers.

use anyhow::Context as _;
use holdfast_config::Config;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

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

pub(super) async fn start(config: &Config, local_doors: Routes, remote_doors: Routes) -> anyhow::Result<Servers> {
    let socket = config.socket.clone();
    let local = unix(&socket).with_context(|| format!("opening the control socket {}", socket.display()))?;
    let address = config.cluster.nodes[config.this].control();
    let remote = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listening for control on {address}"))?;
    let tls = &config.tls;
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?))
        .client_ca_root(Certificate::from_pem(read(&tls.ca)?));
    let local = Server::builder()
        .add_routes(local_doors)
        .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(local));
    let remote = Server::builder()
        .tls_config(tls)?
        .add_routes(remote_doors)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(remote));
    let run = |what: &'static str, ended: Result<(), tonic::transport::Error>| {
        if let Err(error) = ended {
            tracing::error!(%error, what, "a control server ended");
        }
    };
    let tasks = vec![
        tokio::spawn(async move { run("Unix socket", local.await) }),
        tokio::spawn(async move { run("control port", remote.await) }),
    ];
    Ok(Servers { tasks, socket })
}

/// Replaces a socket that a dead daemon left; the store's lock has made sure that none is alive.
fn unix(path: &Path) -> std::io::Result<UnixListener> {
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
