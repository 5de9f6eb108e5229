//! A connection that succeeds.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::error::{Error, Result};

pub(super) async fn connect(address: SocketAddr) -> Result<()> {
    let connected = TcpStream::connect(address).await;
    connected.map(drop).map_err(|source| Error::Io {
        doing: format!("connecting to {address}"),
        source,
    })
}
