//! Puts a replica together: opens (or formats) its store, starts its threads and the loop.

use crate::clock::boottime_ms;
use crate::copy::Kept;
use crate::core::{Core, CoreConfig, CoreStart, Sizes};
use crate::disk_health::DiskHealth;
use crate::dropped::Drops;
use crate::error::ReplicaError;
use crate::gate::Gate;
use crate::gather::Gather;
use crate::handle::Handle;
use crate::lag::Lag;
use crate::last_changed::last_changed;
use crate::lease::Timing;
use crate::net::reach::{Reach, Reachable};
use crate::net::tls::Tls;
use crate::net::{self, Local, Outgoing};
use crate::own_store;
use crate::pins::Pins;
use crate::roles::Role;
use crate::sequencer::Sequencer;
use crate::task::{Channels, Ended, Settings, State, Task};
use crate::threads::apply::ApplyThread;
use crate::threads::checkpoint::CheckpointThread;
use crate::threads::fetch::FetchThread;
use crate::threads::log::{LogThread, LogWork};
use crate::threads::spawn;
use crate::unapplied::Unapplied;
use crate::view::{View, Watch};
use holdfast_storage::apply::Applier;
use holdfast_storage::checkpoint;
use holdfast_storage::copy::history;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::error::StoreError;
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::open::{self, Opened};
use holdfast_storage::recover;
use holdfast_storage::types::LogIndex;
use rand::RngExt as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// One node's settings, already checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// `net::PROTOCOL`, but for tests of other versions.
    pub protocol: u32,
    pub store: PathBuf,
    /// Folder of the configuration, which lies on a volume that is always there.
    pub beside: PathBuf,
    pub log_bytes: u64,
    pub cluster_id: String,
    pub node: String,
    /// All three, with their Raft ids; this node's own among them.
    pub nodes: Vec<(u64, String, SocketAddr)>,
    /// Raft ids of those that were removed.
    pub removed: Vec<u64>,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub tick: Duration,
    pub heartbeat_ticks: u32,
    pub election_ticks: u32,
    pub lease: Duration,
    pub grace: Duration,
    pub forgetful_wait: Duration,
    pub vip_wait: Duration,
    /// How long the PBX's units may take to stop, one after the other.
    pub units_stop: Duration,
    pub needs_agent: bool,
    /// A write that the store's disk hasn't done after this long counts as never answered.
    pub disk_stall: Duration,
}

/// A running replica. `stop` ends it in order.
pub struct Replica {
    pub handle: Handle,
    pub store_id: String,
    /// For what changes while it runs.
    pub reach: watch::Sender<Arc<Reach>>,
    running: Running,
}

struct Running {
    /// None: this node's disk has failed.
    task: JoinHandle<Option<Ended>>,
    log: JoinHandle<()>,
    apply: JoinHandle<()>,
    fetch: Vec<JoinHandle<()>>,
    checkpoint: JoinHandle<()>,
    ask_checkpoint: SyncSender<()>,
    to_log: Sender<LogWork>,
    disk: RealDisk,
    /// Of the store, held until the end.
    _lock: std::fs::File,
    /// Dropped at the end of an orderly stop.
    watchdog: SyncSender<()>,
}

impl Replica {
    pub fn start(options: &Options) -> Result<Self, ReplicaError> {
        let tls = Tls::load(&options.ca, &options.cert, &options.key)?;
        let lock = own_store::lock(&options.store)?;
        let own = options
            .nodes
            .iter()
            .find(|(_, name, _)| *name == options.node)
            .expect("the configuration names this node");
        let (id, listen) = (own.0, own.2);
        // Before the store, which takes the mark of a clean stop away: a start that fails for want of the address must not.
        let listener = bind(listen)?;
        let opened = own_store::open(options)?;
        tracing::info!(
            last = %opened.recovered.last, checkpoint = %opened.checkpoint, clean = opened.clean, "the store is open"
        );
        if let Some(torn) = &opened.recovered.torn {
            tracing::warn!(torn, "the end of the log was cut");
        }
        let store_id = holdfast_storage::identity::hex(&opened.identity.store);
        let is_peer = |peer: u64| peer != id && !options.removed.contains(&peer);
        let places = options.nodes.iter().filter(|(peer, ..)| is_peer(*peer));
        let places = places.map(|(peer, _, place)| (*peer, *place)).collect();
        let (reach, reachable) = watch::channel(Arc::new(Reach { places, tls }));
        let local = Arc::new(Local {
            protocol: options.protocol,
            cluster_id: options.cluster_id.clone(),
            node: options.node.clone(),
            id,
            store_id: store_id.clone(),
            joined: opened.identity.joined.0,
            history: Arc::new(AtomicU64::new(history(&opened.store.meta)?)),
            timing: Timing {
                lease_ms: options.lease.as_millis() as u64,
                after_lease_ms: options.vip_wait.as_millis() as u64,
            },
            bind: listen.ip(),
            peers: options
                .nodes
                .iter()
                .filter(|(peer, _, _)| *peer != id)
                .map(|(peer, name, _)| net::Remote {
                    name: name.clone(),
                    id: *peer,
                })
                .collect(),
            reach: Reachable(reachable),
        });
        Self::run(options, opened, local, reach, listener, lock)
    }

    fn run(
        options: &Options,
        opened: Opened<RealDisk, Rocks>,
        local: Arc<Local>,
        reach: watch::Sender<Arc<Reach>>,
        listener: std::net::TcpListener,
        lock: std::fs::File,
    ) -> Result<Self, ReplicaError> {
        let Opened {
            store,
            log,
            recovered,
            identity,
            checkpoint,
            clean,
            redo_until,
        } = opened;
        let reader = log.reader();
        let (log_total, log_segment) = (log.geometry().total_bytes(), log.geometry().segment_bytes);
        let store_id = local.store_id.clone();
        let history = local.history.clone();
        let (commands, command_queue) = mpsc::unbounded_channel();
        let (to_loop, thread_events) = mpsc::unbounded_channel();
        let (to_log, log_work) = channel();
        let (to_apply, apply_work) = channel();
        let (to_fetch, fetch_work) = crossbeam_channel::unbounded();
        let (ask_checkpoint, asked) = sync_channel(1);
        let ask_in_loop = ask_checkpoint.clone();
        let apply_queued = Arc::new(AtomicU64::new(0));
        let apply_awaited = Arc::new(AtomicBool::new(false));
        let log_used = Arc::new(AtomicU64::new(log.used()));
        let health = Arc::new(DiskHealth::default());
        let kept = Arc::new(Kept::default());
        let drops = Arc::new(Drops::default());
        let core_config = CoreConfig {
            id: local.id,
            peers: local.peers.iter().map(|peer| peer.id).collect(),
            election_ticks: options.election_ticks,
            heartbeat_ticks: options.heartbeat_ticks,
            lease_ms: options.lease.as_millis() as u64,
            forgetful_wait_ms: options.forgetful_wait.as_millis() as u64,
            seed: rand::rng().random(),
            sizes: Sizes::of_log(log_total),
        };
        let stored = open::stored(&store)?;
        let start = CoreStart {
            hard_state: recovered.hard_state,
            last: recovered.last,
            checkpoint,
            committed: stored,
            clean,
        };
        let disk = store.data.disk().clone();
        let log_thread = LogThread {
            log,
            work: log_work,
            to_loop: to_loop.clone(),
            need_checkpoint: ask_checkpoint.clone(),
            used: log_used.clone(),
            health: health.clone(),
            drops: drops.clone(),
            ended: false,
        };
        let apply_thread = ApplyThread {
            store: store.clone(),
            applier: Applier::new(store.clone(), redo_until)?,
            reader: reader.clone(),
            work: apply_work,
            to_loop: to_loop.clone(),
            queued: apply_queued.clone(),
            awaited: apply_awaited.clone(),
            health: health.clone(),
            floor: log_total / 4,
        };
        let checkpoint_thread = CheckpointThread {
            store: store.clone(),
            asked,
            log: to_log.clone(),
            to_loop: to_loop.clone(),
            health: health.clone(),
            kept: kept.clone(),
            log_used: log_used.clone(),
            log_total,
        };
        let fetch_thread = || FetchThread {
            store: store.clone(),
            reader: reader.clone(),
            work: fetch_work.clone(),
            to_loop: to_loop.clone(),
            health: health.clone(),
        };
        let recovering = Arc::new(AtomicBool::new(recover::is_recovering(store.data.disk())?));
        let gate = Arc::new(Gate::default());
        let stable = recovered.hard_state;
        let (view, shown) = watch::channel(Arc::new(first_view(&recovered, checkpoint)));
        let alive = Arc::new(AtomicU64::new(0));
        let last_changed = if clean {
            Vec::new()
        } else {
            last_changed(&reader, recovered.last)
        };
        let handle = Handle {
            commands,
            gate: gate.clone(),
            store: store.clone(),
            view: Watch::new(shown),
            last_changed: last_changed.into(),
            drops,
            last_before: recovered.last.max(identity.joined),
            log: reader.clone(),
            kept,
            menders: Arc::default(),
            recovering: recovering.clone(),
            health: health.clone(),
            log_bytes: log_total,
        };
        let settings = Settings {
            id: local.id,
            names: options.nodes.iter().map(|(id, name, _)| (*id, name.clone())).collect(),
            tick: options.tick,
            grace_ms: options.grace.as_millis() as u64,
            vip_wait_ms: options.vip_wait.as_millis() as u64,
            reserve: log_total,
            log_most: log_total - log_segment,
            needs_agent: options.needs_agent,
            disk_stall_ms: options.disk_stall.as_millis() as u64,
            units_stop_ms: options.units_stop.as_millis() as u64,
        };
        let pins = Pins::load(&options.store).map_err(|source| StoreError::Disk {
            what: "reading",
            path: "peers".into(),
            source,
        })?;
        let fetch = vec![
            spawn("hf-fetch-0", {
                let thread = fetch_thread();
                move || thread.run()
            })?,
            spawn("hf-fetch-1", {
                let thread = fetch_thread();
                move || thread.run()
            })?,
        ];
        let (stop_watchdog, stopped) = sync_channel(0);
        let alive_in_loop = alive.clone();
        spawn("hf-watchdog", move || watchdog(&alive, &stopped))?;
        let running = Running {
            watchdog: stop_watchdog,
            log: spawn("hf-log", move || log_thread.run())?,
            apply: spawn("hf-apply", move || apply_thread.run())?,
            fetch,
            checkpoint: spawn("hf-checkpoint", move || checkpoint_thread.run())?,
            ask_checkpoint,
            to_log: to_log.clone(),
            disk,
            _lock: lock,
            task: spawn_loop(move |net_events, to_net| {
                let core = Core::new(core_config, start, reader, boottime_ms())?;
                let outgoing: BTreeMap<u64, Outgoing> = local
                    .peers
                    .iter()
                    .map(|peer| (peer.id, Outgoing::start(peer.clone(), local.clone(), to_net.clone())))
                    .collect();
                tokio::task::spawn_local(net::listen(
                    tokio::net::TcpListener::from_std(listener).map_err(|source| ReplicaError::Net {
                        what: "listening on",
                        address: local.bind.to_string(),
                        source,
                    })?,
                    local,
                    to_net,
                ));
                let channels = Channels {
                    commands: command_queue,
                    threads: thread_events,
                    net: net_events,
                    log: to_log,
                    apply: to_apply,
                    fetch: to_fetch,
                    apply_queued,
                    apply_awaited,
                    view,
                    alive: alive_in_loop,
                    health,
                    log_used,
                    ask_checkpoint: ask_in_loop,
                };
                Ok(Task {
                    recovering,
                    history,
                    settings,
                    core,
                    sequencer: Sequencer::new(store.clone()),
                    store,
                    channels,
                    outgoing,
                    gate,
                    pins,
                    gather: Gather::new(&stable),
                    unapplied: Unapplied::default(),
                    state: State::default(),
                })
            })?,
        };
        Ok(Self {
            handle,
            store_id,
            reach,
            running,
        })
    }

    /// Whether the loop still runs.
    pub fn is_running(&self) -> bool {
        !self.running.task.is_finished()
    }

    /// Ends the loop, syncs the log, applies and checkpoints what is committed, and leaves the clean-stop mark, unless this node
    /// may still lack what it had confirmed.
    pub fn stop(self) -> Result<(), ReplicaError> {
        self.handle.stop();
        let Running {
            task,
            log,
            apply,
            fetch,
            checkpoint: checkpoints,
            ask_checkpoint,
            to_log,
            disk,
            _lock,
            watchdog,
        } = self.running;
        // The loop is about to end; syncing what it leaves may take its time.
        drop(watchdog);
        let failed = |name| move |_| ReplicaError::Thread(name, std::io::Error::other("it panicked"));
        // A disk that has failed gets nothing more, and nothing on it is called clean.
        let ended = task
            .join()
            .map_err(failed("hf-loop"))?
            .ok_or(ReplicaError::DiskFailed)?;
        self.handle.health.end_waiting();
        let _ = to_log.send(LogWork::End);
        log.join().map_err(failed("hf-log"))?;
        apply.join().map_err(failed("hf-apply"))?;
        for thread in fetch {
            thread.join().map_err(failed("hf-fetch"))?;
        }
        drop(ask_checkpoint);
        checkpoints.join().map_err(failed("hf-checkpoint"))?;
        if self.handle.health.has_failed() {
            return Err(ReplicaError::DiskFailed);
        }
        checkpoint::run(self.handle.store())?;
        match ended.clean {
            Some(last) => open::mark_clean(&disk, last)?,
            None => tracing::warn!(
                "stopped without the mark of a clean stop: this node isn't sure yet to hold all that it had received"
            ),
        }
        Ok(())
    }
}

/// The loop has a thread and a runtime of its own: a shared one costs more and stalls longer.
fn spawn_loop<F>(build: F) -> Result<JoinHandle<Option<Ended>>, ReplicaError>
where
    F: FnOnce(mpsc::Receiver<net::NetEvent>, net::ToLoop) -> Result<Task, ReplicaError> + Send + 'static,
{
    let (ready, started) = channel();
    let thread = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(ReplicaError::Thread("hf-loop", error)));
                return None;
            }
        };
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let (to_net, net_events) = mpsc::channel(1024);
            match build(net_events, to_net) {
                Ok(task) => {
                    let _ = ready.send(Ok(()));
                    task.run().await
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    None
                }
            }
        })
    };
    let thread = std::thread::Builder::new()
        .name("hf-loop".into())
        .spawn(thread)
        .map_err(|error| ReplicaError::Thread("hf-loop", error))?;
    started.recv().unwrap_or_else(|_| {
        Err(ReplicaError::Thread(
            "hf-loop",
            std::io::Error::other("it panicked at start"),
        ))
    })?;
    Ok(thread)
}

fn bind(address: SocketAddr) -> Result<std::net::TcpListener, ReplicaError> {
    let failed = |source| ReplicaError::Net {
        what: "listening for peers on",
        address: address.to_string(),
        source,
    };
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).map_err(failed)?;
    socket.set_reuse_address(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&address.into()).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrNotAvailable => ReplicaError::NotHere(address),
        _ => failed(source),
    })?;
    socket.listen(64).map_err(failed)?;
    Ok(socket.into())
}

/// Looks at the loop this often; it turns at every tick.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// A loop that stands still holds every request without a deadline: better dead, for the peers go on. Only this
/// process's own running time counts, so a machine that was stopped as a whole isn't killed for it.
fn watchdog(alive: &AtomicU64, stopped: &Receiver<()>) {
    let mut seen = u64::MAX;
    let mut still = 0;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(WATCH_EVERY) {
        let now = alive.load(std::sync::atomic::Ordering::Relaxed);
        still = if now == seen { still + 1 } else { 0 };
        seen = now;
        if still == 2 {
            tracing::error!(
                "the replicator's loop hasn't turned for {WATCH_EVERY:?} twice; ending the process, the other nodes go on"
            );
            std::process::abort();
        }
    }
}

fn first_view(recovered: &holdfast_storage::log::Recovered, checkpoint: LogIndex) -> View {
    View {
        at_ms: 0,
        role: Role::None,
        term: recovered.hard_state.term.0,
        leader: None,
        candidate: true,
        sequenced: recovered.last.0,
        durable: recovered.last.0,
        committed: recovered.hard_state.commit.0,
        applied: checkpoint.0,
        checkpointed: checkpoint.0,
        first: recovered.first.0,
        lease_until_ms: 0,
        vip_not_before_ms: 0,
        forgetful: false,
        durable_alone_ms: None,
        peers: BTreeMap::new(),
        lag: Lag::default(),
        left_behind: Vec::new(),
        halted: None,
        disk: None,
        full: false,
        failover: None,
        handover: None,
        waiting: 0,
        has_room: true,
        unapplied: 0,
        room: 0,
    }
}
