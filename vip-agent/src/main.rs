//! `vip-agent --config FILE`: reads the node's configuration and runs the agent until SIGTERM or SIGINT.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Holds Holdfast's virtual address and runs the PBX where, and only while, the lease says so.
#[derive(Parser)]
#[command(name = "vip-agent", version)]
struct Arguments {
    /// The node's configuration: the same file that `holdfast serve` reads.
    #[arg(long, default_value = "/etc/holdfast/holdfast.toml")]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // This agent only talks to its own machine: a certificate that has expired must not take the address down.
    let config = holdfast_config::load_without_keys(&arguments.config)?;
    // A supervisor must hold nothing open on the mount, its working directory included.
    std::env::set_current_dir("/").context("changing to /")?;
    vip_agent::lock_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.context("starting a runtime")?.block_on(serve(config))
}

async fn serve(config: holdfast_config::Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping in order"),
            _ = interrupt.recv() => info!("SIGINT: stopping in order"),
        }
        // The agent may have ended by itself already.
        let _ = stop.send(());
    });
    vip_agent::run(config, stopped).await.context("running the agent")
}
