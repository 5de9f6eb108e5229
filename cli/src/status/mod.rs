//! `holdfast status`: the cluster as this machine's daemon knows it.

mod explain;
mod json;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod view;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdfast_proto::control::{ClusterStatus, ClusterStatusRequest};

use crate::clock::Clock;
use crate::error::Result;
use crate::local::{ANSWER_WITHIN, Daemon, Target, block_on};
use crate::output;
pub use json::json;
pub use text::text;
use view::Cluster;

#[derive(Debug, Args)]
pub struct Status {
    /// JSON instead of text; with --watch, one document a line
    #[arg(long)]
    json: bool,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub fn run(self) -> Result<ExitCode> {
        let socket = self.target.resolve()?;
        block_on(async {
            if self.watch {
                return watch::run(&socket, self.json).await;
            }
            let status = ask(socket).await?;
            let text = if self.json {
                format!("{:#}\n", json(&status))
            } else {
                text(&status, &Clock::read())
            };
            output::print(&text)?;
            Ok(exit_code(&status))
        })
    }
}

async fn ask(socket: PathBuf) -> Result<ClusterStatus> {
    let ask = async {
        let daemon = Daemon::connect(socket.clone()).await?;
        let mut client = daemon.client();
        daemon
            .answer(ANSWER_WITHIN, client.get_cluster_status(ClusterStatusRequest {}))
            .await
    };
    // Connecting and answering together have that long.
    let silent = crate::error::Error::Silent {
        socket: socket.clone(),
        after: ANSWER_WITHIN,
    };
    tokio::time::timeout(ANSWER_WITHIN, ask).await.unwrap_or(Err(silent))
}

/// 0: a node is active and reachable. 1: none is.
fn exit_code(status: &ClusterStatus) -> ExitCode {
    ExitCode::from(u8::from(Cluster::of(status).active().is_none()))
}
