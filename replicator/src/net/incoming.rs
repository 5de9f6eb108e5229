//! Accepts peers' connections and reads what they send.

use super::tls::node_name;
use super::{Local, NetEvent, ToLoop, frames, greeting};
use crate::lease::Timing;
use crate::wire;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Connections that are still greeting, from where the peers are; more are closed unheard.
const GREETING_MAX: usize = 32;
/// From anywhere else. They are refused with a sentence, so that somebody who set a wrong address learns of it, but can't keep the
/// peers out.
const STRANGERS_MAX: usize = 4;
/// Read from the socket, and decrypted, at once. rustls by itself asks the socket for 4 KiB at a time.
const READ_BYTES: usize = 256 << 10;

/// Serves until the loop is gone.
pub(crate) async fn listen(listener: TcpListener, local: Arc<Local>, to_loop: ToLoop) {
    let places = |count| Arc::new(tokio::sync::Semaphore::new(count));
    let (greeting, strangers) = (places(GREETING_MAX), places(STRANGERS_MAX));
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely; trying again at once would only burn the processor.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = to_loop.closed() => return,
        };
        let is_peers = local.reach.now().is_place(address.ip().to_canonical());
        let places = if is_peers { &greeting } else { &strangers };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let (acceptor, local, to_loop) = (
            TlsAcceptor::from(local.reach.now().tls.server.clone()),
            local.clone(),
            to_loop.clone(),
        );
        tokio::task::spawn_local(async move {
            if let Err(error) = serve(stream, acceptor, &local, to_loop, place).await {
                tracing::warn!(%address, %error, "a connection on the replication port was closed");
            }
        });
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    local: &Local,
    to_loop: ToLoop,
    place: tokio::sync::OwnedSemaphorePermit,
) -> io::Result<()> {
    super::outgoing::tune(&stream)?;
    let place_of_peer = stream.peer_addr()?.ip().to_canonical();
    let greet = async {
        let mut stream = acceptor.accept(BufReader::with_capacity(READ_BYTES, stream)).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let name = certificates.and_then(|all| all.first()).and_then(node_name);
        let hello = greeting::accept(
            &mut stream,
            local,
            Some(name.as_deref().unwrap_or("nobody")),
            place_of_peer,
        )
        .await?;
        io::Result::Ok((stream, hello))
    };
    let (stream, hello) = tokio::time::timeout(greeting::LONGEST, greet).await??;
    drop(place);
    let from = hello.id;
    if to_loop
        .send(NetEvent::HasStore {
            peer: from,
            store_id: hello.store_id,
            joined: hello.joined,
            has_data: hello.history != 0,
            timing: Timing {
                lease_ms: hello.lease_ms,
                after_lease_ms: hello.after_lease_ms,
            },
        })
        .await
        .is_err()
    {
        return Ok(());
    }
    let mut reach = local.reach.clone();
    tokio::select! {
        ended = read_all(stream, from, to_loop) => ended,
        () = reach.gone(from, place_of_peer) => Ok(()),
    }
}

async fn read_all(stream: impl AsyncRead + Unpin, from: u64, to_loop: ToLoop) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    loop {
        let (frame, payload) = match frames::read(&mut stream).await {
            Ok(read) => read,
            // The peer ends or restarts; the outgoing connection tells of it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let message = wire::decode(frame, payload).map_err(frames::invalid)?;
        if to_loop.send(NetEvent::Message { from, message }).await.is_err() {
            return Ok(());
        }
    }
}
