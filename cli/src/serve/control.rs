//! The operator's questions and orders.

use super::peers::{Peers, admit, asking};
use super::repair::Healer;
use super::shared::Shared;
use super::{check, classes, status};
use holdfast_proto::control::control_client::ControlClient;
use holdfast_proto::control::control_server::Control;
use holdfast_proto::control::{
    CheckEvent, CheckRequest, Classes, ClusterStatus, ClusterStatusRequest, Configuration, ConfigurationRequest,
    ListClassesRequest, NodeStatus, NodeStatusRequest, ScrubEvent, ScrubRequest, SwitchoverEvent, SwitchoverRequest,
};
use holdfast_replicator::clock::boottime_ms;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub(super) struct ControlService {
    pub(super) shared: Arc<Shared>,
    pub(super) peers: Arc<Peers>,
    pub(super) healer: Arc<Healer>,
}

/// How long a new active node may take until it serves.
const SERVING_MS_MAX: u64 = 30_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Events<T> = ReceiverStream<Result<T, Status>>;

impl ControlService {
    /// A client of the active node, if that is another one.
    fn elsewhere(&self) -> Result<Option<ControlClient<tonic::transport::Channel>>, Status> {
        let active = self
            .shared
            .active()
            .ok_or_else(|| Status::unavailable("no node is active: `holdfast status` says why"))?;
        if active == self.shared.node().name {
            return Ok(None);
        }
        let client = self.peers.client(&active);
        let client = client.ok_or_else(|| Status::internal("the active node isn't in this node's configuration"))?;
        Ok(Some(client))
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type CheckStream = Events<CheckEvent>;
    type ScrubStream = Events<ScrubEvent>;
    type SwitchoverStream = Events<SwitchoverEvent>;

    async fn get_node_status(&self, _: Request<NodeStatusRequest>) -> Result<Response<NodeStatus>, Status> {
        Ok(Response::new(status::node(&self.shared)))
    }

    async fn get_cluster_status(&self, _: Request<ClusterStatusRequest>) -> Result<Response<ClusterStatus>, Status> {
        self.peers.refresh(&self.shared).await;
        Ok(Response::new(status::cluster(&self.shared)))
    }

    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        admit(&self.shared.live, &request)?;
        let (events, stream) = mpsc::channel(64);
        match self.elsewhere()? {
            None => {
                tokio::spawn(check::run(self.healer.clone(), request.into_inner(), events));
            }
            Some(mut active) => forward(active.check(request.into_inner()).await?.into_inner(), events),
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    /// As the active node has it; without one, as this node has it.
    async fn list_classes(&self, request: Request<ListClassesRequest>) -> Result<Response<Classes>, Status> {
        admit(&self.shared.live, &request)?;
        if let Ok(Some(mut active)) = self.elsewhere() {
            let answer = active.list_classes(request.into_inner()).await?.into_inner();
            return Ok(Response::new(Classes {
                mount_path: self.shared.config.mount.path.display().to_string(),
                ..answer
            }));
        }
        let shared = self.shared.clone();
        let listed = tokio::task::spawn_blocking(move || classes::list(&shared)).await;
        let listed = listed.map_err(|panic| Status::internal(panic.to_string()))?;
        listed
            .map(Response::new)
            .map_err(|error| Status::data_loss(holdfast_storage::error::chain(&error)))
    }

    async fn get_configuration(
        &self,
        request: Request<ConfigurationRequest>,
    ) -> Result<Response<Configuration>, Status> {
        asking(&self.shared, &request, None)?;
        let file = self.shared.config.file.clone();
        let text = tokio::fs::read_to_string(&file).await;
        let text = text.map_err(|error| Status::internal(format!("reading {}: {error}", file.display())))?;
        let revision = self.shared.live.now().cluster.revision;
        Ok(Response::new(Configuration { text, revision }))
    }

    /// This node's own disk, whoever is active.
    async fn scrub(&self, request: Request<ScrubRequest>) -> Result<Response<Self::ScrubStream>, Status> {
        admit(&self.shared.live, &request)?;
        let (events, stream) = mpsc::channel(4);
        let healer = self.healer.clone();
        tokio::spawn(async move { healer.shared().scrubber.run_now(&healer, events).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn switchover(
        &self,
        request: Request<SwitchoverRequest>,
    ) -> Result<Response<Self::SwitchoverStream>, Status> {
        admit(&self.shared.live, &request)?;
        let (events, stream) = mpsc::channel(64);
        match self.elsewhere()? {
            None => {
                let (shared, peers) = (self.shared.clone(), self.peers.clone());
                tokio::spawn(switchover(shared, peers, request.into_inner().to, events));
            }
            Some(mut active) => forward(active.switchover(request.into_inner()).await?.into_inner(), events),
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Passes on what the active node says.
fn forward<T: Send + 'static>(mut from: tonic::Streaming<T>, to: mpsc::Sender<Result<T, Status>>) {
    tokio::spawn(async move {
        loop {
            let event = match from.message().await {
                Ok(Some(event)) => Ok(event),
                Ok(None) => return,
                Err(status) => Err(status),
            };
            let last = event.is_err();
            if to.send(event).await.is_err() || last {
                return;
            }
        }
    });
}

async fn switchover(
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    to: String,
    events: mpsc::Sender<Result<SwitchoverEvent, Status>>,
) {
    let step = |step: String| {
        Ok(SwitchoverEvent {
            step,
            done: false,
            active: String::new(),
        })
    };
    let from = shared.node().name.clone();
    let _ = events
        .send(step(format!(
            "{from}: stopping the PBX in order and releasing the address"
        )))
        .await;
    let to = Some(to).filter(|to| !to.is_empty());
    let last = match shared.handle.hand_over(to).await {
        Ok(active) => {
            let _ = events.send(step(format!("{active} has taken the active role"))).await;
            serving(&shared, &peers, active).await
        }
        Err(why) => Err(Status::failed_precondition(why)),
    };
    let _ = events.send(last).await;
}

/// Says so when the new active node serves the files and has the address: who asked for it would go there now. The PBX's units
/// may take longer.
async fn serving(shared: &Shared, peers: &Peers, active: String) -> Result<SwitchoverEvent, Status> {
    let until_ms = boottime_ms() + SERVING_MS_MAX;
    let is_serving = |status: &NodeStatus| {
        status.writable && (shared.config.vip.is_none() || status.agent.as_ref().is_some_and(|report| report.vip_held))
    };
    while boottime_ms() < until_ms {
        if let Some(mut client) = peers.client(&active) {
            let answer = tokio::time::timeout(LOOK_EVERY * 20, client.get_node_status(NodeStatusRequest {})).await;
            if let Ok(Ok(status)) = answer
                && is_serving(status.get_ref())
            {
                return Ok(SwitchoverEvent {
                    step: String::new(),
                    done: true,
                    active,
                });
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Status::deadline_exceeded(format!(
        "{active} has the active role, but after {} s it doesn't serve the files, or hasn't the address: `holdfast status` says why",
        SERVING_MS_MAX / 1000
    )))
}
