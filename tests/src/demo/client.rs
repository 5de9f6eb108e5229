//! A client outside, reaching PostgreSQL through the VIP: commits numbered transactions one by one and notes each
//! acknowledgement with its time.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::postgresql::{PORT, programs};
use crate::clock::{now, pause};
use crate::lab::netns::Netns;

/// One commit at a time, so many a second at most.
const COMMIT_EVERY: Duration = Duration::from_millis(10);
/// A commit that takes longer counts as unanswered: the client gives the connection up.
const COMMIT_LIMIT: Duration = Duration::from_secs(3);
const RECONNECT_EVERY: Duration = Duration::from_millis(30);

/// A transaction that the server has said is committed.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    pub number: u64,
    pub at: Instant,
}

/// The client, at work until it is stopped.
pub struct Client {
    acks: Arc<Mutex<Vec<Ack>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Where to reach the server and from where.
#[derive(Debug, Clone)]
pub struct Place {
    pub netns: Netns,
    pub vip: Ipv4Addr,
}

impl Client {
    pub fn start(place: Place) -> Self {
        let (acks, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (into, until) = (Arc::clone(&acks), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            if let Err(error) = work(&place, &into, &until) {
                eprintln!("the client ended: {error:#}");
            }
        });
        Self { acks, stop, thread }
    }

    pub fn acks(&self) -> Vec<Ack> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn last(&self) -> Option<Ack> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).last().copied()
    }

    /// All acknowledgements, in order.
    pub fn stop(self) -> Vec<Ack> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.join());
        std::mem::take(&mut *self.acks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn work(place: &Place, acks: &Mutex<Vec<Ack>>, stop: &AtomicBool) -> Result<()> {
    place.netns.enter_thread()?;
    // A number is used once: one whose outcome is unknown is not tried again.
    let mut number = 0;
    let mut session = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = session.as_mut() else {
            session = reachable(place).then(|| Session::open(place)).transpose()?;
            pause(if session.is_some() {
                Duration::ZERO
            } else {
                RECONNECT_EVERY
            });
            continue;
        };
        number += 1;
        let began = now();
        match Session::commit(open, number) {
            Ok(()) => acks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Ack { number, at: now() }),
            Err(_unknown_outcome) => session = None,
        }
        pause(COMMIT_EVERY.saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// A look of our own first: the client library would wait two seconds for an address that isn't there yet.
fn reachable(place: &Place) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(place.vip.into(), PORT), Duration::from_millis(250)).is_ok()
}

/// A `psql` that is fed statements one by one.
struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Session {
    fn open(place: &Place) -> Result<Self> {
        let mut child = psql(place)?
            .args(["-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting psql")?;
        let input = child.stdin.take().context("psql has no input")?;
        let output = child.stdout.take().context("psql has no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    /// Returns when the server has said that it is committed. psql ends at the first error, before it echoes.
    fn commit(&mut self, number: u64) -> Result<()> {
        writeln!(
            self.input,
            "INSERT INTO demo (number) VALUES ({number});\n\\echo committed {number}"
        )?;
        self.input.flush()?;
        let line = self.lines.recv_timeout(COMMIT_LIMIT).context("no answer")?;
        if line != format!("committed {number}") {
            bail!("psql said {line}");
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may be waiting for a server that is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A `psql` in the client's network, without its start-up file, printing bare values.
pub fn psql(place: &Place) -> Result<Command> {
    let mut command = Command::new(programs()?.join("psql"));
    let connection = format!(
        "host={} port={PORT} user=postgres dbname=postgres connect_timeout=2 tcp_user_timeout=2000 keepalives_idle=1 keepalives_interval=1 keepalives_count=2",
        place.vip
    );
    command.args(["-X", "-q", "-A", "-t", "-d", &connection]);
    place.netns.enter(&mut command)?;
    Ok(command)
}
