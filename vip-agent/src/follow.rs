//! The conversation with the daemon: its facts come in, our reports go out. Connects again for ever.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream;
use holdfast_proto::control::AgentReport;
use holdfast_proto::control::agent_client::AgentClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tonic::transport::{Endpoint, Uri};
use tracing::{info, warn};

use crate::clock;
use crate::core::Event;
use crate::lease::Facts;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const REPORT_AT_LEAST_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn follow(
    socket: PathBuf,
    reports: watch::Receiver<AgentReport>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut wait = FIRST_WAIT;
    let mut said = String::new();
    loop {
        let ended = converse(&socket, reports.clone(), &events, &mut wait).await;
        if events.send(Event::Disconnected).is_err() {
            return;
        }
        // The same trouble is told once, however often it is met.
        if ended != said {
            warn!(
                "not connected to the daemon at {}: {ended}; trying again",
                socket.display()
            );
            said = ended;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Until the connection ends; says why it did.
async fn converse(
    socket: &Path,
    reports: watch::Receiver<AgentReport>,
    events: &mpsc::UnboundedSender<Event>,
    wait: &mut Duration,
) -> String {
    match try_converse(socket, reports, events, wait).await {
        Ok(()) => "the daemon ended the connection".to_owned(),
        Err(error) => sentence(error.as_ref()),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn try_converse(
    socket: &Path,
    reports: watch::Receiver<AgentReport>,
    events: &mpsc::UnboundedSender<Event>,
    wait: &mut Duration,
) -> Result<(), AnyError> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The name is only there because a URI needs one.
    let channel = Endpoint::from_static("http://daemon.local")
        .connect_with_connector(connector)
        .await?;
    let mut facts = AgentClient::new(channel).follow(outgoing(reports)).await?.into_inner();
    info!("connected to the daemon at {}", socket.display());
    *wait = FIRST_WAIT;
    while let Some(heard) = facts.message().await? {
        let facts = Facts::new(&heard, clock::now().boot);
        if events.send(Event::Facts(facts)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The newest report at once, then whenever it changed and at least every 500 ms.
fn outgoing(reports: watch::Receiver<AgentReport>) -> impl futures::Stream<Item = AgentReport> {
    stream::unfold((reports, true), |(mut reports, first)| async move {
        if !first {
            // Neither outcome matters: a change and the time out both mean that it is time to report.
            let _ = tokio::time::timeout(REPORT_AT_LEAST_EVERY, reports.changed()).await;
        }
        if reports.has_changed().is_err() {
            return None;
        }
        let report = reports.borrow_and_update().clone();
        Some((report, (reports, false)))
    })
}

fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
