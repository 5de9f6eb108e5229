//! What a node answers while its store is being copied: how far that is. All else is asked of the others.

use super::super::alike;
use super::super::live::Live;
use super::super::peers::Peers;
use super::super::status::resident_bytes;
use super::progress::Shown;
use holdfast_config::Config;
use holdfast_proto::control::agent_server::Agent;
use holdfast_proto::control::control_server::Control;
use holdfast_proto::control::places_server::Places;
use holdfast_proto::control::{
    AgentReport, ChangeAnswer, ChangeRequest, CheckEvent, CheckRequest, Classes, ClusterStatus, ClusterStatusRequest,
    Configuration, ConfigurationRequest, LeaseFacts, ListClassesRequest, NodeStatus, NodeStatusRequest, Role,
    ScrubEvent, ScrubRequest, SwitchoverEvent, SwitchoverRequest,
};
use holdfast_replicator::clock::unix_ms;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// How long a peer may take to tell what it knows of all nodes.
const PEER_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct ReceiverControl {
    pub(super) config: Arc<Config>,
    pub(super) live: Arc<Live>,
    pub(super) peers: Arc<Peers>,
    pub(super) progress: Arc<Shown>,
    pub(super) started_ms: u64,
}

impl ReceiverControl {
    fn own(&self) -> NodeStatus {
        let progress = self.progress.get();
        NodeStatus {
            name: self.config.cluster.nodes[self.config.this].name.clone(),
            id: self.config.this as u64 + 1,
            role: Role::CatchingUp.into(),
            leader: progress.source.clone(),
            mount_path: self.config.mount.path.display().to_string(),
            mounted: !progress.unmounted,
            notices: vec![progress.notice()],
            cannot_because: vec!["its store is being copied from the active node".into()],
            uptime_ms: unix_ms().saturating_sub(self.started_ms),
            version: env!("CARGO_PKG_VERSION").into(),
            resident_bytes: resident_bytes(),
            unix_ms: unix_ms(),
            copy: Some(progress.message()),
            members: Some(self.live.now().members()),
            settings: alike::settings(&self.config),
            ..NodeStatus::default()
        }
    }

    fn refuse<T>(&self) -> Result<T, Status> {
        let own = &self.config.cluster.nodes[self.config.this].name;
        Err(Status::unavailable(format!(
            "the store of {own} is being copied from the active node (`holdfast status` says how far it is): ask another node"
        )))
    }
}

#[tonic::async_trait]
impl Places for ReceiverControl {
    async fn change(&self, _: Request<ChangeRequest>) -> Result<Response<ChangeAnswer>, Status> {
        self.refuse()
    }
}

/// An agent that follows nobody holds nothing, which is right here.
#[tonic::async_trait]
impl Agent for ReceiverControl {
    type FollowStream = ReceiverStream<Result<LeaseFacts, Status>>;

    async fn follow(&self, _: Request<tonic::Streaming<AgentReport>>) -> Result<Response<Self::FollowStream>, Status> {
        self.refuse()
    }
}

#[tonic::async_trait]
impl Control for ReceiverControl {
    type CheckStream = ReceiverStream<Result<CheckEvent, Status>>;
    type ScrubStream = ReceiverStream<Result<ScrubEvent, Status>>;
    type SwitchoverStream = ReceiverStream<Result<SwitchoverEvent, Status>>;

    async fn get_node_status(&self, _: Request<NodeStatusRequest>) -> Result<Response<NodeStatus>, Status> {
        Ok(Response::new(self.own()))
    }

    /// As a peer knows it; this node's own part is known better here.
    async fn get_cluster_status(&self, _: Request<ClusterStatusRequest>) -> Result<Response<ClusterStatus>, Status> {
        let own = self.own();
        for mut peer in self.peers.clients() {
            let asked = peer.get_cluster_status(ClusterStatusRequest {});
            let Ok(Ok(answer)) = tokio::time::timeout(PEER_WITHIN, asked).await else {
                continue;
            };
            let mut cluster = answer.into_inner();
            cluster.asked.clone_from(&own.name);
            for view in &mut cluster.nodes {
                if view.status.as_ref().is_some_and(|status| status.name == own.name) {
                    (view.last_heard_unix_ms, view.reachable) = (own.unix_ms, true);
                    view.status = Some(own.clone());
                }
            }
            return Ok(Response::new(cluster));
        }
        Err(Status::unavailable(format!(
            "{}; no other node answers",
            self.progress.get().notice().what
        )))
    }

    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        self.refuse()
    }

    async fn list_classes(&self, _: Request<ListClassesRequest>) -> Result<Response<Classes>, Status> {
        self.refuse()
    }

    async fn get_configuration(&self, _: Request<ConfigurationRequest>) -> Result<Response<Configuration>, Status> {
        self.refuse()
    }

    async fn scrub(&self, _: Request<ScrubRequest>) -> Result<Response<Self::ScrubStream>, Status> {
        self.refuse()
    }

    async fn switchover(&self, _: Request<SwitchoverRequest>) -> Result<Response<Self::SwitchoverStream>, Status> {
        self.refuse()
    }
}
