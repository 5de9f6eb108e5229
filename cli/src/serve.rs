//! The daemon: composes store, replicator, mount, control and the agent's view. Decides nothing itself.

mod agent;
mod check;
mod classes;
mod control;
mod listen;
mod mounts;
mod notices;
mod notify;
mod peers;
mod shared;
mod status;

use anyhow::Context as _;
use holdfast_config::Config;
use holdfast_replicator::{Options, Replica};
use shared::Shared;
use std::io::IsTerminal as _;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// What is logged unless RUST_LOG says otherwise. The FUSE library calls it an error when a killed program no longer waits
/// for its answer; what matters of it comes back as errors.
const LOG: &str = "info,fuser=off";
/// How long an orderly stop may take.
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("hf-control")
        .enable_all()
        .build()?;
    mounts::check_path(&config.mount.path)?;
    let replica = Replica::start(&options(&config))?;
    let shared = Arc::new(Shared::new(config, replica.handle.clone()));
    let outcome = runtime.block_on(serve(shared.clone(), &replica));
    notify::send("STOPPING=1");
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    stop(replica)?;
    outcome
}

async fn serve(shared: Arc<Shared>, replica: &Replica) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let peers = Arc::new(peers::Peers::open(&shared)?);
    let servers = listen::start(&shared, peers.clone()).await?;
    peers.watch(&shared);
    let mounts = tokio::spawn(mounts::follow(shared.clone()));
    notify::send("READY=1");
    let mut watchdog = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = watchdog.tick() => {
                anyhow::ensure!(replica.is_running(), "the replicator's loop has ended; see the log above");
                notify::send("WATCHDOG=1");
            }
        }
    }
    tracing::info!("stopping");
    // An active node gives the role away first, so that a planned restart costs a second and not a failover.
    if shared.is_active() {
        match tokio::time::timeout(STOP_WITHIN, shared.handle.hand_over(None)).await {
            Ok(Ok(to)) => tracing::info!(to, "handed the active role over"),
            Ok(Err(why)) => tracing::warn!(why, "stopping without a hand-over"),
            Err(_) => tracing::warn!("the hand-over didn't end in time; stopping without it"),
        }
    }
    mounts.abort();
    shared.end_mount().await;
    servers.stop();
    Ok(())
}

/// Syncs and marks the stop as clean; a stop that hangs ends as a crash, which recovery knows how to mend.
fn stop(replica: Replica) -> anyhow::Result<()> {
    let (done, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(replica.stop()));
    let outcome = stopped
        .recv_timeout(STOP_WITHIN)
        .context("syncing the store took too long; the next start will catch up from the peers")?;
    outcome.context("syncing the store at the end")?;
    tracing::info!("stopped; everything is on disk");
    Ok(())
}

fn options(config: &Config) -> Options {
    let timers = &config.timers;
    Options {
        store: config.store.path.clone(),
        log_bytes: config.store.log_bytes,
        cluster_id: config.cluster.id.clone(),
        node: config.cluster.nodes[config.this].name.clone(),
        nodes: (1..)
            .zip(&config.cluster.nodes)
            .map(|(id, node)| (id, node.name.clone(), node.replication()))
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
        needs_agent: config.vip.is_some() || !config.units.is_empty(),
    }
}
