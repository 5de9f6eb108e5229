//! The connection to one peer: opened again and again, fed from two bounded queues. What doesn't fit is dropped,
//! as a network would; Raft sends again what matters.
//!
//! Heartbeats, votes and all else that is small and doesn't follow entries pass those that wait: a node that catches up over a slow
//! link has tens of MiB on their way to it, behind which no lease would outlast an answer.

use super::frames::Batch;
use super::reach::Reachable;
use super::{Local, NetEvent, Remote, ToLoop, greeting};
use crate::lease::Timing;
use crate::wire::{self, PeerMessage};
use raft::eraftpb::MessageType;
use rustls::pki_types::ServerName;
use socket2::TcpKeepalive;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsConnector, client::TlsStream};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Sent and unacknowledged data older than this closes the connection.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// A connection on which nothing came for so long is tried, and again, until that time is over.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Bytes of messages that wait for the socket.
const QUEUE_BYTES: usize = 48 << 20;
const QUEUE_MESSAGES: usize = 8192;
/// Encrypted before the socket gets it: large writes wake the peer less often.
const WRITE_BYTES: usize = 256 << 10;
/// Half of it sent wakes whoever writes.
const UNSENT_MAX: libc::c_int = 512 << 10;

/// The loop's end of it.
pub(crate) struct Outgoing {
    queue: mpsc::Sender<PeerMessage>,
    urgent: mpsc::Sender<PeerMessage>,
    bytes: Rc<Cell<usize>>,
    up: Rc<Cell<bool>>,
}

impl Outgoing {
    pub(crate) fn start(remote: Remote, local: Arc<Local>, to_loop: ToLoop) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE_MESSAGES);
        let (urgent, urgent_messages) = mpsc::channel(QUEUE_MESSAGES);
        let (bytes, up) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let link = Link {
            remote,
            reach: local.reach.clone(),
            local,
            to_loop,
            messages,
            urgent_messages,
            bytes: bytes.clone(),
            up: up.clone(),
            batch: Batch::default(),
            term: 0,
        };
        tokio::task::spawn_local(link.run());
        Self {
            queue,
            urgent,
            bytes,
            up,
        }
    }

    /// False: dropped.
    pub(crate) fn send(&self, message: PeerMessage) -> bool {
        if !self.up.get() {
            return false;
        }
        if is_urgent(&message) {
            return self.urgent.try_send(message).is_ok();
        }
        let size = size(&message);
        if self.bytes.get() + size > QUEUE_BYTES {
            return false;
        }
        let sent = self.queue.try_send(message).is_ok();
        if sent {
            self.bytes.set(self.bytes.get() + size);
        }
        sent
    }
}

/// Means the same, whatever entries of this node come before or after it. A follower that is asked for a sync is to have what the
/// sync is for; and commits are told behind the entries that they commit.
fn is_urgent(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Raft(raft) => raft.message.msg_type != MessageType::MsgAppend,
        PeerMessage::Received(_) | PeerMessage::State(_) | PeerMessage::Handover(_) => true,
        PeerMessage::CheckPart(_) | PeerMessage::SyncNow => false,
    }
}

fn size(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Raft(raft) => {
            raft.message
                .entries
                .iter()
                .map(|entry| entry.data.len() + 64)
                .sum::<usize>()
                + 128
        }
        _ => 128,
    }
}

/// No waiting for more to send, and an end for connections into silence.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    // The other end of a connection only listens: without probes it would wait for a machine that lost its power for ever.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY))?;
    socket.set_tcp_user_timeout(Some(SILENT_MAX))?;
    keep_unsent_short(stream)
}

/// What the kernel has taken and not sent can't be passed any more; what is on its way isn't limited.
fn keep_unsent_short(stream: &TcpStream) -> io::Result<()> {
    let bytes: libc::c_int = UNSENT_MAX;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the kernel reads an int of the length that it is told.
    let failed = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

struct Link {
    remote: Remote,
    reach: Reachable,
    local: Arc<Local>,
    to_loop: ToLoop,
    messages: mpsc::Receiver<PeerMessage>,
    urgent_messages: mpsc::Receiver<PeerMessage>,
    bytes: Rc<Cell<usize>>,
    up: Rc<Cell<bool>>,
    batch: Batch,
    /// Of the messages sent to it, the latest.
    term: u64,
}

impl Link {
    async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            let place = self.reach.place(self.remote.id);
            let why = match tokio::time::timeout(greeting::LONGEST, self.connect(place)).await {
                Ok(Ok(stream)) => {
                    pause = RETRY_FIRST;
                    self.up.set(true);
                    if self.to_loop.send(NetEvent::Up { peer: self.remote.id }).await.is_err() {
                        return;
                    }
                    let ended = self.serve(stream, place).await;
                    self.up.set(false);
                    match ended {
                        Ok(()) => return,
                        Err(error) => error.to_string(),
                    }
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", greeting::LONGEST.as_secs()),
            };
            // What was meant for the connection that broke is stale.
            while self.next().is_some() {}
            self.batch = Batch::default();
            self.bytes.set(0);
            if self
                .to_loop
                .send(NetEvent::Down {
                    peer: self.remote.id,
                    why,
                })
                .await
                .is_err()
            {
                return;
            }
            // It is there at once where it has moved to.
            let moved = tokio::time::timeout(pause, self.reach.moved(self.remote.id, place)).await;
            pause = if moved.is_ok() {
                RETRY_FIRST
            } else {
                (pause * 2).min(RETRY_MAX)
            };
        }
    }

    async fn connect(&self, place: Option<SocketAddr>) -> io::Result<TlsStream<TcpStream>> {
        let Some(place) = place else {
            return Err(io::Error::other("it was removed from the cluster"));
        };
        let socket = if place.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // The static address, so that the VIP's coming and going never touches the stream.
        socket.bind((self.local.bind, 0).into())?;
        let stream = socket.connect(place).await?;
        tune(&stream)?;
        let name = ServerName::try_from(self.remote.name.clone()).map_err(super::frames::invalid)?;
        let connector = TlsConnector::from(self.reach.now().tls.client.clone());
        let mut stream = connector.connect(name, stream).await?;
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
        let hello = greeting::open(&mut stream, &self.local, &self.remote.name).await?;
        let _ = self
            .to_loop
            .send(NetEvent::HasStore {
                peer: self.remote.id,
                store_id: hello.store_id,
                joined: hello.joined,
                has_data: hello.history != 0,
                timing: Timing {
                    lease_ms: hello.lease_ms,
                    after_lease_ms: hello.after_lease_ms,
                },
            })
            .await;
        Ok(stream)
    }

    /// Until the connection breaks (an error) or the loop hangs up.
    async fn serve(&mut self, stream: TlsStream<TcpStream>, place: Option<SocketAddr>) -> io::Result<()> {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut nothing = [0; 1];
        let mut reach = self.reach.clone();
        loop {
            tokio::select! {
                biased;
                () = reach.moved(self.remote.id, place) => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its address was changed"));
                }
                // The peer never writes here: this resolves when it is gone.
                ended = read.read(&mut nothing) => {
                    ended?;
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer closed the connection"));
                }
                message = self.urgent_messages.recv() => match message {
                    Some(message) => self.write(&mut write, message).await?,
                    None => return Ok(()),
                },
                message = self.messages.recv() => match message {
                    Some(message) => self.write(&mut write, message).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn next(&mut self) -> Option<PeerMessage> {
        self.urgent_messages
            .try_recv()
            .or_else(|_| self.messages.try_recv())
            .ok()
    }

    /// Entries of a term that is over. The peer has heard of a later one and refuses them, or else they count as lost on the way.
    fn is_stale(&mut self, message: &PeerMessage) -> bool {
        let PeerMessage::Raft(raft) = message else { return false };
        let message = &raft.message;
        match message.msg_type {
            // Of a term that nobody has begun.
            MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => false,
            MessageType::MsgAppend => message.term < self.term,
            _ => {
                self.term = self.term.max(message.term);
                false
            }
        }
    }

    /// Writes all that is queued, then flushes once.
    async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin), first: PeerMessage) -> io::Result<()> {
        let mut next = Some(first);
        while let Some(message) = next {
            if !is_urgent(&message) {
                self.bytes.set(self.bytes.get().saturating_sub(size(&message)));
            }
            if !self.is_stale(&message) {
                let (frame, payload) = wire::encode(&message);
                self.batch.put(stream, &frame, &payload).await?;
            }
            next = self.next();
        }
        self.batch.flush(stream).await
    }
}
