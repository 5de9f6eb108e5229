//! Speaking to this machine's daemon over its Unix socket. No call is without a limit in time.

use std::error::Error as _;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use holdfast_config::{ConfigError, defaults};
use holdfast_proto::control::control_client::ControlClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use crate::error::{Error, Result};
use crate::output;

/// Status is answered from memory: longer means that something hangs.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Which daemon is meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Target {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The configuration that names the socket; without either: $HOLDFAST_SOCKET, then the system's
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Target {
    pub fn resolve(&self) -> Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        if let Some(config) = &self.config {
            return Ok(holdfast_config::load_without_keys(config)?.socket);
        }
        if let Some(socket) = std::env::var_os("HOLDFAST_SOCKET").filter(|socket| !socket.is_empty()) {
            return Ok(socket.into());
        }
        match holdfast_config::load_without_keys(Path::new(defaults::CONFIG_FILE)) {
            Ok(config) => Ok(config.socket),
            // Not there, or not ours to read: the daemon may answer all the same.
            Err(ConfigError::Read { .. }) => Ok(defaults::SOCKET.into()),
            // One that runs goes on with what it read when the file was whole, and its status is what is needed now.
            Err(broken) => {
                output::complain(&format!(
                    "{broken}\nThe daemon is asked at {} all the same. One that runs goes on; it wouldn't start again.",
                    defaults::SOCKET
                ));
                Ok(defaults::SOCKET.into())
            }
        }
    }
}

/// A connection to the daemon.
pub struct Daemon {
    socket: PathBuf,
    channel: Channel,
    client: ControlClient<Channel>,
}

impl Daemon {
    pub async fn connect(socket: PathBuf) -> Result<Self> {
        let refuse = |why: String| Error::Refused {
            socket: socket.clone(),
            why,
        };
        let path = std::path::absolute(&socket).map_err(|error| refuse(error.to_string()))?;
        let path = path
            .to_str()
            .ok_or_else(|| refuse("the socket's path isn't UTF-8".to_owned()))?;
        let endpoint = Endpoint::from_shared(format!("unix://{path}")).map_err(|error| refuse(error.to_string()))?;
        let channel = match tokio::time::timeout(ANSWER_WITHIN, endpoint.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(no_daemon(socket, &error)),
            Err(_) => {
                return Err(Error::Silent {
                    socket,
                    after: ANSWER_WITHIN,
                });
            }
        };
        Ok(Self {
            socket,
            client: ControlClient::new(channel.clone()),
            channel,
        })
    }

    pub fn client(&self) -> ControlClient<Channel> {
        self.client.clone()
    }

    /// For the daemon's other doors.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The answer to one call, within `limit`.
    pub async fn answer<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(Error::Silent {
                socket: self.socket.clone(),
                after: limit,
            }),
        }
    }

    /// The next event of a stream, within `limit`; the stream's end is an error, for each ends with a last event.
    pub async fn next<T>(&self, limit: Duration, events: &mut Streaming<T>) -> Result<T> {
        match tokio::time::timeout(limit, events.message()).await {
            Ok(Ok(Some(event))) => Ok(event),
            Ok(Ok(None)) => Err(Error::CutShort {
                socket: self.socket.clone(),
            }),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(Error::Silent {
                socket: self.socket.clone(),
                after: limit,
            }),
        }
    }

    fn failed(&self, status: &tonic::Status) -> Error {
        let socket = self.socket.clone();
        match (status.code(), status.message()) {
            // The transport's own words for a daemon that went away in the middle.
            (Code::Unavailable | Code::Unknown | Code::Cancelled, _) if status.source().is_some() => {
                Error::CutShort { socket }
            }
            (code, "") => Error::Refused {
                socket,
                why: code.description().to_owned(),
            },
            (_, message) => Error::Refused {
                socket,
                why: message.to_owned(),
            },
        }
    }
}

fn no_daemon(socket: PathBuf, error: &tonic::transport::Error) -> Error {
    let cause = io_cause(error);
    let (why, advice) = match cause.map(io::Error::kind) {
        Some(ErrorKind::NotFound) => (
            "the socket doesn't exist".to_owned(),
            "start the daemon with `systemctl start holdfast`, or name its socket with --socket or its configuration \
             with --config",
        ),
        Some(ErrorKind::ConnectionRefused) => (
            "the socket is left over from a daemon that has ended".to_owned(),
            "see why with `journalctl -u holdfast`, start it with `systemctl start holdfast`",
        ),
        Some(ErrorKind::PermissionDenied) => ("permission denied".to_owned(), "call it as root"),
        _ => (
            cause.map_or_else(|| error.to_string(), ToString::to_string),
            "see `systemctl status holdfast`, or name another socket with --socket",
        ),
    };
    Error::NoDaemon { socket, why, advice }
}

fn io_cause(error: &tonic::transport::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

/// Runs a command's conversation with the daemon.
pub fn block_on<T>(conversation: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(conversation)
}
