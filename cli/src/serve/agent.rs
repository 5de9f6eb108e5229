//! vip-agent follows the lease here, and its reports come in.

use super::shared::Shared;
use holdfast_proto::control::agent_server::Agent;
use holdfast_proto::control::{self, AgentReport, LeaseFacts};
use holdfast_replicator::clock::unix_ms;
use holdfast_replicator::roles::Role;
use holdfast_replicator::view::View;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) struct AgentService(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Agent for AgentService {
    type FollowStream = ReceiverStream<Result<LeaseFacts, Status>>;

    async fn follow(&self, request: Request<Streaming<AgentReport>>) -> Result<Response<Self::FollowStream>, Status> {
        let (facts, stream) = mpsc::channel(8);
        tracing::info!("vip-agent is connected");
        let (here, gone) = oneshot::channel();
        tokio::spawn(receive(self.0.clone(), request.into_inner(), here));
        tokio::spawn(send(self.0.clone(), facts, gone));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// It reports twice a second.
const REPORTS_WITHIN: Duration = Duration::from_secs(5);

async fn receive(shared: Arc<Shared>, mut reports: Streaming<AgentReport>, _here: oneshot::Sender<()>) {
    // One that stands still is as good as gone. If it goes on, it finds the connection cut and makes another one.
    while let Ok(Ok(Some(report))) = tokio::time::timeout(REPORTS_WITHIN, reports.message()).await {
        {
            let mut inner = shared.inner();
            inner.agent = Some(report);
            inner.agent_gone_since = None;
        }
        shared.tell_agent_facts();
    }
    {
        let mut inner = shared.inner();
        inner.agent = None;
        inner.agent_gone_since = Some(unix_ms());
    }
    tracing::warn!("vip-agent is gone");
    shared.tell_agent_facts();
}

/// Ends when its reports aren't taken any more, so that it connects anew.
async fn send(shared: Arc<Shared>, facts: mpsc::Sender<Result<LeaseFacts, Status>>, mut gone: oneshot::Receiver<()>) {
    let mut view = shared.handle.view();
    loop {
        let latest = view.take();
        let now = lease_facts(&shared, &latest);
        tokio::select! {
            sent = facts.send(Ok(now)) => if sent.is_err() { return },
            _ = &mut gone => return,
        }
        tokio::select! {
            changed = view.changed() => if !changed { return },
            _ = &mut gone => return,
        }
    }
}

fn lease_facts(shared: &Shared, view: &View) -> LeaseFacts {
    let (role, grace_until_ms) = match view.role {
        Role::None => (control::Role::Standby, 0),
        Role::Promoting { .. } => (control::Role::Promoting, 0),
        Role::Active { .. } => (control::Role::Active, 0),
        Role::Suspended { grace_until_ms, .. } => (control::Role::Suspended, grace_until_ms),
        Role::Lost { .. } => (control::Role::Lost, 0),
        Role::HandOver { .. } => (control::Role::Handover, 0),
    };
    LeaseFacts {
        node: shared.node().name.clone(),
        role: role.into(),
        term: if view.role == Role::None {
            view.term
        } else {
            view.role.term()
        },
        lease_until_ms: view.lease_until_ms,
        vip_not_before_ms: view.vip_not_before_ms,
        writable: matches!(view.role, Role::Active { .. } | Role::HandOver { .. }),
        active: shared.active().unwrap_or_default(),
        grace_until_ms,
        mount_path: shared.config.mount.path.display().to_string(),
    }
}
