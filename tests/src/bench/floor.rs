//! The least that a durable write on two of three hosts can cost here: bytes sent to two peers and written to a zeroed log
//! on all three, done when two have synced. No file system, no order, no encryption, no failures.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;

use super::figures::Laps;
use crate::clock::{Deadline, wait_for};
use crate::lab::Lab;
use crate::process::run_ok;

const PORT: u16 = 7499;
const LOG_BYTES: u64 = 64 << 20;

/// Its processes on the hosts; not for people.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// Writes all records that come, and says how many are durable.
    Peer { listen: Ipv4Addr, log: PathBuf },
    /// Sends records and waits for each; prints the mean in microseconds.
    Writer {
        log: PathBuf,
        size: usize,
        seconds: f64,
        peers: Vec<Ipv4Addr>,
    },
}

impl Part {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Peer { listen, log } => peer(*listen, log),
            Self::Writer {
                log,
                size,
                seconds,
                peers,
            } => {
                println!("{}", writer(log, *size, Duration::from_secs_f64(*seconds), peers)?);
                Ok(())
            }
        }
    }
}

/// A log written once with zeros, so that no later write changes the file's metadata.
struct Log {
    file: std::fs::File,
    at: u64,
}

impl Log {
    fn make(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..LOG_BYTES / zeros.len() as u64 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn write(&mut self, record: &[u8]) -> Result<()> {
        if self.at + record.len() as u64 > LOG_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(record, self.at)?;
        self.at += record.len() as u64;
        Ok(self.file.sync_data()?)
    }
}

/// Serves one writer.
fn peer(listen: Ipv4Addr, log: &Path) -> Result<()> {
    let listener = TcpListener::bind((listen, PORT))?;
    let mut log = Log::make(log)?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut record = vec![0; u32::from_le_bytes(size) as usize];
    let mut count = 0u64;
    while stream.read_exact(&mut record).is_ok() {
        log.write(&record)?;
        count += 1;
        stream.write_all(&count.to_le_bytes())?;
    }
    Ok(())
}

/// One writer, one record at a time; the mean in microseconds.
fn writer(log: &Path, size: usize, length: Duration, peers: &[Ipv4Addr]) -> Result<f64> {
    let record = vec![7u8; size];
    let (durable, heard) = channel();
    let mut streams = Vec::new();
    for (number, peer) in peers.iter().enumerate() {
        let mut stream = TcpStream::connect((*peer, PORT))?;
        stream.set_nodelay(true)?;
        stream.write_all(&u32::try_from(size)?.to_le_bytes())?;
        let (answers, durable) = (stream.try_clone()?, durable.clone());
        thread::spawn(move || hear(answers, number + 1, &durable));
        streams.push(stream);
    }
    let (to_log, records) = channel::<Vec<u8>>();
    let mut log = Log::make(log)?;
    let local = thread::spawn(move || write_here(&mut log, &records, &durable));
    let mut counts = vec![0u64; peers.len() + 1];
    let (deadline, mut laps, mut number) = (Deadline::after(length), Laps::default(), 0);
    laps.begin();
    while !deadline.passed() {
        number += 1;
        for stream in &mut streams {
            stream.write_all(&record)?;
        }
        to_log.send(record.clone()).context("the log's thread has ended")?;
        while counts.iter().filter(|count| **count >= number).count() < 2 {
            let (replica, count) = heard.recv().context("all replicas have gone")?;
            counts[replica] = count;
        }
        laps.lap();
    }
    drop((to_log, streams));
    local.join().expect("the log's thread doesn't panic")?;
    Ok(laps.mean())
}

fn hear(mut answers: TcpStream, replica: usize, durable: &Sender<(usize, u64)>) {
    let mut count = [0; 8];
    while answers.read_exact(&mut count).is_ok() && durable.send((replica, u64::from_le_bytes(count))).is_ok() {}
}

fn write_here(log: &mut Log, records: &Receiver<Vec<u8>>, durable: &Sender<(usize, u64)>) -> Result<()> {
    for (number, record) in records.iter().enumerate() {
        log.write(&record)?;
        if durable.send((0, number as u64 + 1)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Ends with the value.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Mean microseconds of a durable write of `size` bytes on the lab's three hosts, logs in `dir`.
pub fn measure(lab: &Lab, dir: &Path, size: usize, length: Duration) -> Result<f64> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let [host, others @ ..] = lab.nodes() else {
        anyhow::bail!("a lab has nodes")
    };
    let mut peers = Vec::new();
    for node in others {
        let address = lab.id().address(node.name());
        let log = dir.join(format!("floor-{}", node.name()));
        let mut command = node.command(&program)?;
        command.args(["floor", "peer", &address.to_string()]).arg(&log);
        let mut peer = Peer(
            command
                .stdout(Stdio::piped())
                .spawn()
                .context("starting a peer of the floor")?,
        );
        let mut ready = [0; 6];
        let output = peer.0.stdout.as_mut().context("the peer has an output")?;
        output
            .read_exact(&mut ready)
            .context("the peer of the floor has ended")?;
        peers.push((peer, address, log));
    }
    let log = dir.join("floor-own");
    let mut command = host.command(&program)?;
    command.args(["floor", "writer"]).arg(&log);
    command.args([size.to_string(), length.as_secs_f64().to_string()]);
    command.args(peers.iter().map(|(_, address, _)| address.to_string()));
    let said = run_ok(&mut command, length + Duration::from_secs(30))?;
    for (mut peer, _, log) in peers {
        wait_for("the floor's peer to end", Duration::from_secs(5), || {
            Ok(peer.0.try_wait()?)
        })?;
        std::fs::remove_file(log)?;
    }
    std::fs::remove_file(log)?;
    said.trim()
        .parse()
        .with_context(|| format!("the floor's writer said {said:?}"))
}
