//! The daemon: composes store, replicator, mount, control and the agent's view. Decides nothing itself.

mod agent;
mod alike;
mod check;
mod classes;
mod control;
mod copy;
mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod listen;
mod live;
mod mounts;
mod notices;
mod notify;
mod peers;
mod places;
mod repair;
mod shared;
mod status;

use agent::AgentService;
use anyhow::Context as _;
use control::ControlService;
use copy::{CopyService, Outcome};
use holdfast_config::Config;
use holdfast_proto::control::agent_server::AgentServer;
use holdfast_proto::control::control_server::ControlServer;
use holdfast_proto::control::places_server::PlacesServer;
use holdfast_proto::copy::copy_server::CopyServer;
use holdfast_proto::repair::repair_server::RepairServer;
use holdfast_replicator::copy::Receiver;
use holdfast_replicator::net::PROTOCOL;
use holdfast_replicator::net::reach::Reach;
use holdfast_replicator::roles::Role;
use holdfast_replicator::{Options, Replica, clock};
use holdfast_storage::RealStore;
use live::Live;
use places::PlacesService;
use repair::{Healer, RepairService};
use shared::Shared;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::service::Routes;

/// What is logged unless RUST_LOG says otherwise. The FUSE library calls it an error when a killed program no longer waits
/// for its answer; what matters of it comes back as errors.
const LOG: &str = "info,fuser=off";
/// How long what is still under way may take at the end of a life.
const LEAVE: std::time::Duration = std::time::Duration::from_secs(2);
/// How long an orderly stop may take, after the role was given away.
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
/// How long giving the role away may take, besides stopping the PBX's units.
const HAND_OVER_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
    run_as(config, PROTOCOL)
}

/// As a node whose software is of another release: for tests, with the version of the stream that it says to speak.
pub fn run_as(config: Config, protocol: u32) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| LOG.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    tracing::info!(
        cluster = config.cluster.name,
        node = config.cluster.nodes[config.this].name,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    // A thread that panicked has left its part undone: half a daemon would hold the role and answer nothing.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    mounts::check_path(&config.mount.path)?;
    // Whether the store's checksums surely fit its files.
    let mut copy = Receiver::is_needed(&options(&config, protocol))?.then_some(false);
    let live = Arc::new(Live::new(config)?);
    // From the first copy on: before, systemd waits for the start.
    let mut between = None;
    loop {
        // A runtime a life: what one has left running ends with it, and lets go of the store.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("hf-control")
            .enable_all()
            .build()?;
        let config = Arc::new(live.now().config.clone());
        let options = options(&config, protocol);
        if let Some(sound) = copy.take() {
            drop(between.take());
            let outcome = runtime.block_on(copy::receive(live.clone(), options, sound));
            runtime.shutdown_timeout(LEAVE);
            if matches!(outcome?, Outcome::Stopped) {
                notify::send("STOPPING=1");
                tracing::info!("stopped; the next start goes on with the copy");
                return Ok(());
            }
            between.get_or_insert_with(notify::Alive::tell);
            continue;
        }
        let replica = Replica::start(&options)?;
        drop(between.take());
        let store = Arc::downgrade(replica.handle.store());
        let shared = Arc::new(Shared::new(config, live.clone(), replica.handle.clone()));
        let ended = runtime.block_on(serve(shared.clone(), &replica));
        if matches!(ended, Ok(Ended::NeedsCopy)) {
            between = Some(notify::Alive::tell());
        } else {
            notify::send("STOPPING=1");
        }
        runtime.shutdown_timeout(LEAVE);
        stop(replica)?;
        if matches!(ended?, Ended::Stopped) {
            tracing::info!("stopped; everything is on disk");
            return Ok(());
        }
        copy = Some(shared.handle.is_sound());
        drop(shared);
        let_go(&store)?;
    }
}

/// The metadata store can be opened again only when nobody has it any more.
fn let_go(store: &std::sync::Weak<RealStore>) -> anyhow::Result<()> {
    let until = clock::boottime_ms() + STOP_WITHIN.as_millis() as u64;
    while store.strong_count() > 0 {
        anyhow::ensure!(
            clock::boottime_ms() < until,
            "something still has the store open; this node asks for a copy again at its next start"
        );
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    Ok(())
}

/// Why serving ended.
enum Ended {
    Stopped,
    /// This node can't come back by the log; the active node agrees to a copy.
    NeedsCopy,
}

async fn serve(shared: Arc<Shared>, replica: &Replica) -> anyhow::Result<Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let peers = Arc::new(peers::Peers::open(shared.live.clone())?);
    let healer = Arc::new(Healer::new(shared.clone(), peers.clone()));
    let control = ControlServer::new(ControlService {
        shared: shared.clone(),
        peers: peers.clone(),
        healer: healer.clone(),
    });
    let local = Routes::new(control.clone())
        .add_service(AgentServer::new(AgentService(shared.clone())))
        .add_service(PlacesServer::new(PlacesService {
            shared: shared.clone(),
            peers: peers.clone(),
        }));
    let remote = Routes::new(control)
        .add_service(CopyServer::new(CopyService::new(shared.clone())))
        .add_service(RepairServer::new(RepairService(healer.clone())));
    let servers = listen::start(shared.live.clone(), local, remote).await?;
    peers.watch(&shared);
    let following = [
        tokio::spawn(repair::follow_reads(healer.clone())),
        tokio::spawn(repair::follow_scrub(healer)),
        tokio::spawn(check::follow_digests(shared.clone())),
        tokio::spawn(events::follow(shared.clone())),
        tokio::spawn(shared.live.clone().follow()),
        tokio::spawn(peers.follow()),
        tokio::spawn(move_peers(shared.live.clone(), replica.reach.clone())),
    ];
    let mounts = tokio::spawn(mounts::follow(shared.clone()));
    notify::send("READY=1");
    let mut watchdog = tokio::time::interval(std::time::Duration::from_secs(1));
    // Looks in a row at which the active node said that this one needs a copy: just after a start it may not know better.
    let mut offers = 0;
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Ended::Stopped,
            _ = interrupt.recv() => break Ended::Stopped,
            _ = watchdog.tick() => {
                anyhow::ensure!(replica.is_running(), "the replicator's loop has ended; see the log above");
                notify::send("WATCHDOG=1");
                if shared.handle.is_recovering() && shared.has_recovered() {
                    shared.handle.end_recovery()?;
                    tracing::info!("the recovery is over: two nodes hold everything again");
                }
                offers = if shared.offers_of_copies().is_empty() { 0 } else { offers + 1 };
                if offers == 0 {
                    shared.set_no_copy(None);
                }
                if offers >= 2 && copy::offered(&shared).await {
                    break Ended::NeedsCopy;
                }
            }
        }
    };
    match ended {
        Ended::Stopped => tracing::info!("stopping"),
        Ended::NeedsCopy => {
            tracing::info!("this node can't come back by the log: stopping to have its store copied");
            if let Some(dropped) = shared.handle.give_up_tail() {
                tracing::warn!(
                    changes = dropped.changed.entries,
                    files = shared.dropped_files(&dropped),
                    "the end of this node's log, of which it doesn't know whether the others have it, is given up with the copy"
                );
            }
        }
    }
    give_away(&shared).await;
    mounts.abort();
    following.iter().for_each(tokio::task::JoinHandle::abort);
    shared.end_mount().await;
    servers.stop();
    Ok(ended)
}

/// An active node gives the role away first, so that a planned restart costs a second and not a failover. A hand-over that is under
/// way already comes to its end: the PBX is saying good-bye to its files.
async fn give_away(shared: &Shared) {
    let is_leaving = || {
        let view = shared.view();
        matches!(view.role, Role::HandOver { .. }) || view.handover.is_some()
    };
    if !shared.is_active() && !is_leaving() {
        return;
    }
    let within = units_stop(&shared.config) + HAND_OVER_WITHIN;
    notify::send(&format!("EXTEND_TIMEOUT_USEC={}", (within + STOP_WITHIN).as_micros()));
    let given = async {
        while is_leaving() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // It may have come back, or have gone where it was to go.
        if shared.is_active() {
            shared.handle.hand_over(None).await.map(Some)
        } else {
            Ok(None)
        }
    };
    match tokio::time::timeout(within, given).await {
        Ok(Ok(to)) => tracing::info!(to, "handed the active role over"),
        Ok(Err(why)) => tracing::warn!(why, "stopping without a hand-over"),
        Err(_) => tracing::warn!("the hand-over didn't end in time; stopping without it"),
    }
}

/// Tells the replication stream where the peers are, and what certificates to show.
async fn move_peers(live: Arc<Live>, reach: watch::Sender<Arc<Reach>>) {
    let mut changes = live.changes();
    loop {
        let now = changes.borrow_and_update().reach();
        reach.send_replace(Arc::new(now));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Syncs and marks the stop as clean; a stop that hangs ends as a crash, which recovery knows how to mend.
fn stop(replica: Replica) -> anyhow::Result<()> {
    let (done, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(replica.stop()));
    let outcome = stopped
        .recv_timeout(STOP_WITHIN)
        .context("syncing the store took too long; the next start will catch up from the peers")?;
    outcome.context("syncing the store at the end")
}

/// One after the other.
fn units_stop(config: &Config) -> std::time::Duration {
    config.units.iter().map(|unit| unit.stop_timeout).sum()
}

fn options(config: &Config, protocol: u32) -> Options {
    let timers = &config.timers;
    Options {
        protocol,
        store: config.store.path.clone(),
        beside: config.file.parent().map_or_else(|| ".".into(), Path::to_path_buf),
        log_bytes: config.store.log_bytes,
        cluster_id: config.cluster.id.clone(),
        node: config.cluster.nodes[config.this].name.clone(),
        nodes: (1..)
            .zip(&config.cluster.nodes)
            .map(|(id, node)| (id, node.name.clone(), node.replication()))
            .collect(),
        removed: (1..)
            .zip(&config.cluster.nodes)
            .filter_map(|(id, node)| node.removed.then_some(id))
            .collect(),
        ca: config.tls.ca.clone(),
        cert: config.tls.cert.clone(),
        key: config.tls.key.clone(),
        tick: timers.tick,
        heartbeat_ticks: timers.heartbeat_ticks,
        election_ticks: timers.election_ticks,
        lease: timers.lease(),
        grace: timers.grace,
        forgetful_wait: timers.forgetful_wait,
        disk_stall: timers.disk_stall,
        vip_wait: config
            .vip
            .as_ref()
            .map_or(std::time::Duration::ZERO, holdfast_config::Vip::wait_after_lease),
        units_stop: units_stop(config),
        needs_agent: config.vip.is_some() || !config.units.is_empty(),
    }
}
