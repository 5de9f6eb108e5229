//! The active node's side. Reading for a copy stands back behind the PBX: while changes come in, two thirds of the time
//! are theirs, and the processor is theirs first.

use super::super::peers::asking;
use super::super::shared::Shared;
use holdfast_proto::copy::copy_server::Copy;
use holdfast_proto::copy::{
    BeginRequest, Begun, BlocksAnswer, BlocksRequest, EndRequest, Ended, KeysAnswer, KeysRequest, Pair, Piece,
    PiecesRequest, Range,
};
use holdfast_replicator::clock::boottime;
use holdfast_replicator::copy::Basis;
use holdfast_replicator::net::{PROTOCOL, Speaker, agreed};
use holdfast_storage::copy::{BLOCKS_MAX, Blocks, Source};
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::types::{BLOCK, Ino, MAX_FILE};
use rand::RngExt as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Answers that wait for the network.
const AHEAD: usize = 4;
/// Threads that read, of all receivers: two nodes ask for two things each at most.
const ANSWERS_MAX: usize = 8;
/// No receiver asks for more at once.
const RANGES_MAX: usize = 1 << 16;
/// A node where nothing was changed for so long isn't busy; the view is this old at most four times over.
const BUSY_FOR: Duration = Duration::from_millis(250);
/// So many times as long as reading took it stands back on a busy one ...
const REST_TIMES: u32 = 2;
/// ... but never longer than this at once.
const REST_MAX: Duration = Duration::from_millis(100);
/// Below all other threads of the daemon.
const NICE: i32 = 10;

#[derive(Clone)]
pub(in super::super) struct CopyService {
    shared: Arc<Shared>,
    sessions: Arc<Mutex<BTreeMap<u64, Session>>>,
    answering: Arc<Semaphore>,
}

#[derive(Clone)]
struct Session {
    /// Number of the session, and the receiver's Raft id.
    number: u64,
    node: u64,
    basis: Basis,
    source: Arc<Source<RealDisk, Rocks>>,
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

impl CopyService {
    pub(in super::super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            sessions: Arc::default(),
            answering: Arc::new(Semaphore::new(ANSWERS_MAX)),
        }
    }

    /// Two nodes that go by different places may count two machines of one name: each of them another one.
    fn all_go_by_these_places(&self, receiver: &str) -> Result<(), Status> {
        if self.shared.handle.is_recovering() {
            return Ok(());
        }
        let own = self.shared.live.now().members();
        for name in self.shared.members() {
            if name == self.shared.node().name || name == receiver || self.shared.goes_by(&name, &own) {
                continue;
            }
            return Err(Status::failed_precondition(format!(
                "{name} doesn't go by the addresses that {} has (revision {}), so another machine may count as {receiver} there: \
                 `holdfast status` on {name} says why it doesn't take them over",
                self.shared.node().name,
                own.revision
            )));
        }
        Ok(())
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By its receiver's Raft id and its number, while the log is kept for it.
    fn session<T>(&self, request: &Request<T>, number: u64) -> Result<Session, Status> {
        let node = asking(&self.shared, request, None)?;
        let known = self.sessions().get(&node).cloned();
        let session = known.filter(|session| session.number == number);
        let session = session.ok_or_else(|| Status::aborted("this copy isn't known here (any more): begin anew"))?;
        self.shared.handle.go_on_copy(node, &session.basis);
        Ok(session)
    }

    /// Runs on a thread of its own, that may block and goes last; each answer waits until there is room.
    fn answer<T: Send + 'static>(
        &self,
        session: &Session,
        work: impl FnOnce(&mut Giver<T>) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Answers<T>, Status> {
        let busy = |_| Status::unavailable("the source answers as many questions as it can at once");
        let turn = self.answering.clone().try_acquire_owned().map_err(busy)?;
        let (answers, stream) = mpsc::channel(AHEAD);
        let mut giver = Giver {
            answers: answers.clone(),
            shared: self.shared.clone(),
            session: session.clone(),
            runtime: Handle::current(),
            sequenced: 0,
            busy_until: Duration::ZERO,
            since: boottime(),
        };
        let read = move || {
            let _ = rustix::process::nice(NICE);
            if let Err(error) = work(&mut giver) {
                giver.shared.handle.read_failed(&error);
                let _ = answers.blocking_send(Err(failed(&error)));
            }
            drop(turn);
        };
        let thread = std::thread::Builder::new().name("hf-copy".into()).spawn(read);
        thread.map_err(|error| Status::unavailable(format!("the source can't start a thread that reads: {error}")))?;
        Ok(ReceiverStream::new(stream))
    }
}

fn failed(error: &StoreError) -> Status {
    if let StoreError::InFlux { .. } = error {
        return Status::unavailable(error.to_string());
    }
    Status::data_loss(format!("the source can't read its own store: {}", chain(error)))
}

/// Hands answers out one by one.
struct Giver<T> {
    answers: mpsc::Sender<Result<T, Status>>,
    shared: Arc<Shared>,
    session: Session,
    runtime: Handle,
    /// What was sequenced, and until when that makes this node a busy one.
    sequenced: u64,
    busy_until: Duration,
    since: Duration,
}

impl<T> Giver<T> {
    /// False: nobody listens any more.
    fn give(&mut self, answer: T) -> bool {
        let handle = &self.shared.handle;
        handle.go_on_copy(self.session.node, &self.session.basis);
        let (now, sequenced) = (boottime(), handle.view().latest().sequenced);
        if sequenced != std::mem::replace(&mut self.sequenced, sequenced) {
            self.busy_until = now + BUSY_FOR;
        }
        if now < self.busy_until {
            let rest = now.saturating_sub(self.since) * REST_TIMES;
            let gone = async { tokio::time::timeout(rest.min(REST_MAX), self.answers.closed()).await };
            let _ = self.runtime.block_on(gone);
        }
        let listens = self.answers.blocking_send(Ok(answer)).is_ok();
        // Waiting for the receiver is no work.
        self.since = boottime();
        listens
    }
}

fn pieces(source: &Source<RealDisk, Rocks>, to: &mut Giver<Piece>) -> Result<(), StoreError> {
    let mut from = bytes::Bytes::new();
    loop {
        let piece = source.piece(&from)?;
        from = piece.to.clone();
        let answer = Piece {
            from: piece.from,
            to: piece.to,
            keys: piece.keys,
            hash: bytes::Bytes::copy_from_slice(&piece.hash),
        };
        if !to.give(answer) || from.is_empty() {
            return Ok(());
        }
    }
}

fn blocks(
    source: &Source<RealDisk, Rocks>,
    ranges: Vec<Range>,
    to: &mut Giver<BlocksAnswer>,
) -> Result<(), StoreError> {
    for range in ranges {
        let mut first = range.first;
        while first < range.end {
            let end = range.end.min(first + BLOCKS_MAX);
            let Blocks {
                ino,
                first: at,
                sums,
                data,
            } = source.blocks(Ino(range.ino), first..end)?;
            let answer = BlocksAnswer {
                ino: ino.0,
                first: at,
                sums: bytes::Bytes::copy_from_slice(sums.as_flattened()),
                data,
            };
            if !to.give(answer) {
                return Ok(());
            }
            first = end;
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl Copy for CopyService {
    type PiecesStream = Answers<Piece>;
    type BlocksStream = Answers<BlocksAnswer>;

    async fn begin(&self, request: Request<BeginRequest>) -> Result<Response<Begun>, Status> {
        let node = asking(&self.shared, &request, Some(&request.get_ref().node))?;
        let name = self.shared.name_of(node);
        let BeginRequest { protocol, version, .. } = request.get_ref();
        let own = Speaker {
            node: &self.shared.node().name,
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION"),
        };
        let theirs = Speaker {
            node: &name,
            // Said from version 2 on, but not from its beginning.
            protocol: if *protocol == 0 { 2 } else { *protocol },
            version,
        };
        agreed(own, theirs).map_err(Status::failed_precondition)?;
        self.all_go_by_these_places(&name)?;
        let basis = self
            .shared
            .handle
            .begin_copy(node, request.get_ref().begun)
            .map_err(Status::failed_precondition)?;
        let source = Arc::new(Source::new(self.shared.handle.store().clone()));
        let (keys, history) = source
            .count()
            .and_then(|keys| Ok((keys, source.history()?)))
            .map_err(|error| failed(&error))?;
        let number = rand::rng().random();
        tracing::info!(to = name, checkpoint = %basis.checkpoint, keys, "a copy of this store begins");
        let session = Session {
            number,
            node,
            basis,
            source,
        };
        // A receiver that begins anew has given up what it had begun before.
        self.sessions().insert(node, session);
        Ok(Response::new(Begun {
            session: number,
            source: self.shared.node().name.clone(),
            keys,
            checkpoint: basis.checkpoint.0,
            history,
        }))
    }

    async fn pieces(&self, request: Request<PiecesRequest>) -> Result<Response<Self::PiecesStream>, Status> {
        let session = self.session(&request, request.get_ref().session)?;
        let source = session.source.clone();
        let answers = self.answer(&session, move |to| pieces(&source, to))?;
        Ok(Response::new(answers))
    }

    async fn keys(&self, request: Request<KeysRequest>) -> Result<Response<KeysAnswer>, Status> {
        let session = self.session(&request, request.get_ref().session)?;
        let KeysRequest { from, to, .. } = request.into_inner();
        let read = tokio::task::spawn_blocking(move || session.source.keys(&from, &to)).await;
        let read = read.map_err(|panic| Status::internal(panic.to_string()))?;
        let (pairs, next) = read.map_err(|error| failed(&error))?;
        Ok(Response::new(KeysAnswer {
            pairs: pairs.into_iter().map(|(key, value)| Pair { key, value }).collect(),
            more: next.is_some(),
            next: next.unwrap_or_default(),
        }))
    }

    async fn blocks(&self, request: Request<BlocksRequest>) -> Result<Response<Self::BlocksStream>, Status> {
        let session = self.session(&request, request.get_ref().session)?;
        let source = session.source.clone();
        let ranges = request.into_inner().ranges;
        let fits = |range: &Range| range.first < range.end && range.end <= MAX_FILE / BLOCK + 1;
        if ranges.len() > RANGES_MAX || !ranges.iter().all(fits) {
            return Err(Status::invalid_argument(
                "too many ranges at once, or some that no file can have",
            ));
        }
        let answers = self.answer(&session, move |to| blocks(&source, ranges, to))?;
        Ok(Response::new(answers))
    }

    async fn end(&self, request: Request<EndRequest>) -> Result<Response<Ended>, Status> {
        let session = self.session(&request, request.get_ref().session)?;
        self.all_go_by_these_places(&self.shared.name_of(session.node))?;
        let id = self.shared.config.this as u64 + 1;
        let ended = self.shared.handle.end_copy(session.node, id, &session.basis).await;
        let joint = ended.map_err(Status::failed_precondition)?;
        self.sessions().remove(&session.node);
        let to = self.shared.name_of(session.node);
        Ok(Response::new(match joint {
            None => {
                tracing::info!(
                    to,
                    "the copy took longer than the log reaches back: what has changed since is compared once more"
                );
                Ended {
                    again: true,
                    ..Ended::default()
                }
            }
            Some(joint) => {
                tracing::info!(to, joined = %joint.joined, "all of the copy has been read");
                Ended {
                    again: false,
                    checkpoint: joint.checkpoint.0,
                    checkpoint_term: joint.checkpoint_term.0,
                    joined: joint.joined.0,
                    term: joint.term.0,
                    leader: joint.leader,
                }
            }
        }))
    }
}
