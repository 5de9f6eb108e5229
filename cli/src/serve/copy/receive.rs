//! The receiving side: from the store that can't come back by the log to one that can. Whatever ends the connection, it
//! begins again and asks for what still differs.

use super::super::listen;
use super::super::live::Live;
use super::super::peers::{Peers, channel};
use super::super::repair::forget_scrub;
use super::super::shared::Shared;
use super::super::{STOP_WITHIN, notify};
use super::control::ReceiverControl;
use super::progress::Shown;
use crate::words;
use anyhow::Context as _;
use bytes::Bytes;
use holdfast_config::Config;
use holdfast_fuse_mount::Mounted;
use holdfast_proto::control::agent_server::AgentServer;
use holdfast_proto::control::control_server::ControlServer;
use holdfast_proto::control::places_server::PlacesServer;
use holdfast_proto::copy::copy_client::CopyClient;
use holdfast_proto::copy::{BeginRequest, Begun, BlocksRequest, EndRequest, KeysRequest, PiecesRequest, Range};
use holdfast_replicator::Options;
use holdfast_replicator::clock::unix_ms;
use holdfast_replicator::copy::Receiver;
use holdfast_replicator::net::PROTOCOL;
use holdfast_storage::copy::{self, Blocks, Joint, Piece, Wanted, is_copied};
use holdfast_storage::error::StoreError;
use holdfast_storage::types::{Ino, LogIndex, Term};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle as Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Channel;

/// An answer that takes longer counts as none.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const OFFER_WITHIN: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);
/// Blocks asked for at once, at most: what is under way stays bounded.
const BLOCKS_AT_ONCE: u64 = 64 << 10;

/// No index and no term comes near it.
const NUMBER_MAX: u64 = 1 << 62;

type Client = CopyClient<Channel>;

/// Why receiving ended without an error.
pub(in super::super) enum Outcome {
    /// The store is whole; it can be started.
    Whole,
    /// The operator stops the daemon; the next start goes on.
    Stopped,
}

enum Failure {
    /// Of the network or the source: tried again.
    Passing(String),
    /// Of the own disk.
    Store(StoreError),
    Stopped,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Garbled { .. } => Self::Passing(error.to_string()),
            error => Self::Store(error),
        }
    }
}

fn passing(status: &tonic::Status) -> Failure {
    Failure::Passing(status.message().to_owned())
}

/// The active node says that this one can't come back by the log, and agrees to a copy.
pub(in super::super) async fn offered(shared: &Shared) -> bool {
    let view = shared.view();
    let mut refusal = None;
    for peer in shared.offers_of_copies() {
        let node = &shared.config.cluster.nodes[peer as usize - 1];
        if view.peers.get(&peer).is_some_and(|peer| peer.strange) {
            // This node knows that one with another store: whose data is right isn't for them to decide. Status says so.
            continue;
        }
        let begun = match channel(&shared.live.now(), node) {
            Ok(channel) => {
                let mut client = CopyClient::new(channel);
                // The loop that waits for it also hears SIGTERM, and systemd waits for it.
                let asked = begin(&mut client, &shared.config, false);
                tokio::time::timeout(OFFER_WITHIN, asked)
                    .await
                    .unwrap_or_else(|_| Err(silent()))
            }
            Err(error) => Err(Failure::Passing(format!("{error:#}"))),
        };
        let own = copy::history(&shared.handle.store().meta).map_err(Failure::from);
        let accepted = begun.and_then(|begun| same_history(&begun, own?));
        match accepted {
            Ok(()) => return true,
            Err(Failure::Passing(why)) => refusal = Some(format!("{}: {why}", node.name)),
            Err(_) => {}
        }
    }
    shared.set_no_copy(refusal);
    false
}

async fn begin(client: &mut Client, config: &Config, begun: bool) -> Result<Begun, Failure> {
    let request = BeginRequest {
        node: config.cluster.nodes[config.this].name.clone(),
        begun,
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    within(client.begin(request)).await
}

/// The source has the file system that this node has, or this node has none.
fn same_history(begun: &Begun, own: u64) -> Result<(), Failure> {
    if begun.history != 0 && (own == 0 || own == begun.history) {
        return Ok(());
    }
    Err(Failure::Passing(format!(
        "the file system of {} isn't the one that this node has: they were made at different times. Nothing is copied over this node's; see `A new replica` in the runbook",
        begun.source
    )))
}

async fn within<T>(asked: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(answer) => answer
            .map(tonic::Response::into_inner)
            .map_err(|status| passing(&status)),
        Err(_) => Err(silent()),
    }
}

async fn next<T>(stream: &mut tonic::Streaming<T>) -> Result<Option<T>, Failure> {
    match tokio::time::timeout(ANSWER_WITHIN, stream.message()).await {
        Ok(message) => message.map_err(|status| passing(&status)),
        Err(_) => Err(silent()),
    }
}

fn silent() -> Failure {
    Failure::Passing(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))
}

/// Until the store is whole, or SIGTERM or SIGINT. `sound`: see `Receiver::open`.
pub(in super::super) async fn receive(live: Arc<Live>, options: Options, sound: bool) -> anyhow::Result<Outcome> {
    let config = Arc::new(live.now().config.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let progress = Arc::new(Shown::new());
    let peers = Arc::new(Peers::open(live.clone())?);
    let control = ReceiverControl {
        config: config.clone(),
        live: live.clone(),
        peers: peers.clone(),
        progress: progress.clone(),
        started_ms: unix_ms(),
    };
    let remote = Routes::new(ControlServer::new(control.clone()));
    let local = remote
        .clone()
        .add_service(AgentServer::new(control.clone()))
        .add_service(PlacesServer::new(control));
    let servers = listen::start(live.clone(), local, remote).await?;
    tokio::spawn(live.clone().follow());
    tokio::spawn(peers.follow());
    let mount = standby_mount(&config, &progress);
    notify::send("READY=1");
    tracing::info!("the store is to be copied from the active node");
    let (stop, stopped) = watch::channel(false);
    let mut work = {
        let (config, progress, runtime) = (config.clone(), progress.clone(), Runtime::current());
        tokio::task::spawn_blocking(move || {
            Work {
                config: &config,
                live: &live,
                progress: &progress,
                stop: stopped,
                runtime: &runtime,
                reserve: options.log_bytes,
            }
            .run(&options, sound)
        })
    };
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let outcome = loop {
        tokio::select! {
            done = &mut work => break done.context("copying the store panicked")?,
            _ = terminate.recv() => drop(stop.send_replace(true)),
            _ = interrupt.recv() => drop(stop.send_replace(true)),
            _ = tick.tick() => notify::send("WATCHDOG=1"),
        }
        if *stop.borrow() {
            break match tokio::time::timeout(STOP_WITHIN, &mut work).await {
                Ok(done) => done.context("copying the store panicked")?,
                Err(_) => Ok(Outcome::Stopped),
            };
        }
    };
    servers.stop();
    if let Some(mount) = mount {
        let _ = tokio::task::spawn_blocking(move || mount.end()).await;
    }
    outcome
}

/// As on any standby: nobody writes into the bare directory meanwhile. Without it copying goes on all the same.
fn standby_mount(config: &Config, progress: &Arc<Shown>) -> Option<Mounted> {
    let (here, shown) = (config.cluster.nodes[config.this].name.clone(), progress.clone());
    let notice = move || format!("not active here ({here}): {}\n", shown.get().notice().what);
    match Mounted::standby(&config.mount.path, Arc::new(notice)) {
        Ok(mount) => Some(mount),
        Err(error) => {
            tracing::error!(error = holdfast_storage::error::chain(&error), "mounting failed");
            progress.unmounted();
            None
        }
    }
}

/// On a thread that may block: its own disk is its pace.
struct Work<'a> {
    config: &'a Config,
    live: &'a Live,
    progress: &'a Shown,
    stop: watch::Receiver<bool>,
    runtime: &'a Runtime,
    /// Bytes that stay free, as on any node.
    reserve: u64,
}

impl Work<'_> {
    fn run(&self, options: &Options, sound: bool) -> anyhow::Result<Outcome> {
        let mut receiver = Receiver::open(options, sound)?;
        self.progress.update(|progress| progress.preparing = false);
        loop {
            match self.once(&mut receiver) {
                Ok(joint) => {
                    let counts = receiver.target.counts;
                    receiver.finish(joint).context("ending the copy")?;
                    if counts.damaged > 0 {
                        forget_scrub(&options.store);
                    }
                    tracing::info!(
                        changed_keys = counts.changed,
                        bytes = counts.bytes,
                        damaged_blocks = counts.damaged,
                        "what differed has been copied"
                    );
                    return Ok(Outcome::Whole);
                }
                Err(Failure::Stopped) => return Ok(Outcome::Stopped),
                Err(Failure::Store(error)) => return Err(error).context("copying the store to this node's disk"),
                Err(Failure::Passing(why)) => {
                    if self.progress.get().trouble.as_ref() != Some(&why) {
                        tracing::warn!(why, "copying the store doesn't go on; it is tried again");
                    }
                    self.progress.trouble(why);
                    let mut stop = self.stop.clone();
                    let asked = async { tokio::time::timeout(RETRY, stop.wait_for(|stop| *stop)).await.is_ok() };
                    if self.runtime.block_on(asked) {
                        return Ok(Outcome::Stopped);
                    }
                }
            }
        }
    }

    fn go_on(&self) -> Result<(), Stopped> {
        if *self.stop.borrow() {
            return Err(Stopped);
        }
        Ok(())
    }

    /// Passes until one is short enough for the log.
    fn once(&self, receiver: &mut Receiver) -> Result<Joint, Failure> {
        loop {
            let (mut client, begun) = self.find_source()?;
            same_history(&begun, receiver.target.history()?)?;
            self.progress.begins(&begun.source, begun.keys);
            self.pass(receiver, &mut client, begun.session)?;
            let request = EndRequest { session: begun.session };
            let ended = self.runtime.block_on(within(client.end(request)))?;
            if !ended.again {
                let sound = [ended.checkpoint, ended.joined, ended.term]
                    .iter()
                    .all(|number| *number < NUMBER_MAX);
                if !sound || ended.checkpoint > ended.joined {
                    return Err(bad_answer());
                }
                return Ok(Joint {
                    checkpoint: LogIndex(ended.checkpoint),
                    checkpoint_term: Term(ended.checkpoint_term),
                    joined: LogIndex(ended.joined),
                    term: Term(ended.term),
                    leader: ended.leader,
                });
            }
        }
    }

    /// Whichever peer agrees; only the active node does.
    fn find_source(&self) -> Result<(Client, Begun), Failure> {
        let mut why = Vec::new();
        let current = self.live.now();
        for (at, node) in current.config.cluster.nodes.iter().enumerate() {
            if at == self.config.this || node.removed {
                continue;
            }
            self.go_on()?;
            let opened = self.runtime.block_on(async { channel(&current, node) });
            let mut client = CopyClient::new(opened.map_err(|error| Failure::Passing(format!("{error:#}")))?);
            match self.runtime.block_on(begin(&mut client, self.config, true)) {
                Ok(begun) => return Ok((client, begun)),
                Err(Failure::Passing(refused)) => why.push(format!("{}: {refused}", node.name)),
                Err(other) => return Err(other),
            }
        }
        Err(Failure::Passing(why.join("; ")))
    }

    fn pass(&self, receiver: &mut Receiver, client: &mut Client, session: u64) -> Result<(), Failure> {
        let request = PiecesRequest { session };
        let mut pieces = self.runtime.block_on(within(client.pieces(request)))?;
        let mut at_end = false;
        while let Some(piece) = self.runtime.block_on(next(&mut pieces))? {
            self.go_on()?;
            at_end = piece.to.is_empty();
            let piece = Piece {
                from: piece.from,
                to: piece.to,
                keys: piece.keys,
                hash: piece.hash.as_ref().try_into().map_err(|_| bad_answer())?,
            };
            if !receiver.target.has(&piece)? {
                self.mend(receiver, client, session, &piece)?;
            }
            self.progress
                .update(|progress| progress.keys = progress.keys.saturating_add(piece.keys));
        }
        // A stream that ends early would leave the rest as it was.
        if at_end { Ok(()) } else { Err(bad_answer()) }
    }

    fn mend(&self, receiver: &mut Receiver, client: &mut Client, session: u64, piece: &Piece) -> Result<(), Failure> {
        let mut from = Some(piece.from.clone());
        while let Some(begin) = from {
            let request = KeysRequest {
                session,
                from: begin.clone(),
                to: piece.to.clone(),
            };
            let answer = self.runtime.block_on(within(client.keys(request)))?;
            let next = answer.more.then_some(answer.next);
            if next.as_ref().is_some_and(|next| *next <= begin) {
                return Err(bad_answer());
            }
            let to = next.as_ref().unwrap_or(&piece.to);
            self.need_room(receiver)?;
            let pairs: Vec<(Bytes, Bytes)> = answer.pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
            let ordered = pairs.windows(2).all(|two| two[0].0 < two[1].0);
            let inside = pairs
                .iter()
                .all(|(key, _)| *key >= begin && (to.is_empty() || key < to) && is_copied(key));
            if !ordered || !inside {
                return Err(bad_answer());
            }
            let wanted = receiver.target.take(&begin, to, pairs)?;
            self.fetch(receiver, client, session, wanted)?;
            receiver.target.settled();
            from = next;
        }
        Ok(())
    }

    fn need_room(&self, receiver: &Receiver) -> Result<(), Failure> {
        let space = receiver.target.space()?;
        if space.above(self.reserve) > 0 {
            return Ok(());
        }
        Err(Failure::Passing(format!(
            "the disk of the store ({}) has {} left, and {} of that are kept as a reserve: is it the right one, is its volume mounted? If so, enlarge it",
            self.config.store.path.display(),
            words::bytes(space.free),
            words::bytes(self.reserve)
        )))
    }

    fn fetch(
        &self,
        receiver: &mut Receiver,
        client: &mut Client,
        session: u64,
        wanted: Vec<Wanted>,
    ) -> Result<(), Failure> {
        let mut wanted = wanted.into_iter().peekable();
        while wanted.peek().is_some() {
            let mut blocks = 0;
            let mut ranges = Vec::new();
            while let Some(next) = wanted.next_if(|_| blocks < BLOCKS_AT_ONCE) {
                blocks += next.blocks.end - next.blocks.start;
                ranges.push(Range {
                    ino: next.ino.0,
                    first: next.blocks.start,
                    end: next.blocks.end,
                });
            }
            let mut missing = Missing(ranges.iter().map(|range| (range.ino, range.first..range.end)).collect());
            let request = BlocksRequest { session, ranges };
            let mut answers = self.runtime.block_on(within(client.blocks(request)))?;
            while let Some(answer) = self.runtime.block_on(next(&mut answers))? {
                self.go_on()?;
                let (sums, rest) = answer.sums.as_chunks::<16>();
                if !rest.is_empty() || !missing.take(answer.ino, answer.first, sums.len() as u64) {
                    return Err(bad_answer());
                }
                receiver.target.put(&Blocks {
                    ino: Ino(answer.ino),
                    first: answer.first,
                    sums: sums.to_vec(),
                    data: answer.data,
                })?;
                self.progress
                    .update(|progress| progress.bytes = receiver.target.counts.bytes);
            }
            if !missing.0.is_empty() {
                return Err(bad_answer());
            }
        }
        Ok(())
    }
}

/// Blocks that were asked for and haven't come, in the order in which they come.
pub(super) struct Missing(pub(super) VecDeque<(u64, std::ops::Range<u64>)>);

impl Missing {
    /// False: that isn't what comes next.
    pub(super) fn take(&mut self, ino: u64, first: u64, count: u64) -> bool {
        let Some((of, next)) = self.0.front_mut() else {
            return false;
        };
        if *of != ino || next.start != first || count == 0 || count > next.end - next.start {
            return false;
        }
        next.start += count;
        if next.is_empty() {
            self.0.pop_front();
        }
        true
    }
}

fn bad_answer() -> Failure {
    Failure::Passing("the source's answer isn't complete, or isn't what was asked for".into())
}

/// The operator stops the daemon.
struct Stopped;

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}
