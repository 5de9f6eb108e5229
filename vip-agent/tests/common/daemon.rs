//! A daemon that says what the test wants and hears what the agent reports.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, stream};
use holdfast_proto::control::agent_server::{Agent, AgentServer};
use holdfast_proto::control::{AgentReport, LeaseFacts, Role};
use tokio::net::UnixListener;
use tonic::{Request, Response, Status, Streaming};

use crate::common::boot_ms;

/// As long as a lease is with the default timers.
pub(crate) const LEASE_MS: u64 = 940;

#[derive(Clone)]
pub(crate) struct Daemon {
    facts: Arc<Mutex<LeaseFacts>>,
    /// Facts are sent, and the lease renewed, every 100 ms.
    renewing: Arc<Mutex<bool>>,
    report: Arc<Mutex<Option<AgentReport>>>,
}

type Facts = Pin<Box<dyn Stream<Item = Result<LeaseFacts, Status>> + Send>>;

#[tonic::async_trait]
impl Agent for Daemon {
    type FollowStream = Facts;

    async fn follow(&self, request: Request<Streaming<AgentReport>>) -> Result<Response<Facts>, Status> {
        let (mut reports, heard) = (request.into_inner(), self.report.clone());
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                *heard.lock().expect("no panic") = Some(report);
            }
        });
        let daemon = self.clone();
        let facts = stream::unfold(daemon, |daemon| async move {
            let facts = daemon.next_facts().await;
            Some((Ok(facts), daemon))
        });
        Ok(Response::new(Box::pin(facts)))
    }
}

impl Daemon {
    pub(crate) fn start(socket: &Path) -> Self {
        let facts = LeaseFacts {
            node: "n1".to_owned(),
            role: Role::Standby.into(),
            writable: true,
            ..LeaseFacts::default()
        };
        let daemon = Self {
            facts: Arc::new(Mutex::new(facts)),
            renewing: Arc::new(Mutex::new(true)),
            report: Arc::default(),
        };
        let listener = UnixListener::bind(socket).expect("a free path");
        let incoming = stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let server = tonic::transport::Server::builder().add_service(AgentServer::new(daemon.clone()));
        tokio::spawn(async move { server.serve_with_incoming(incoming).await });
        daemon
    }

    /// From now on these are the facts; the lease is renewed as long as `silent` isn't called.
    pub(crate) fn say(&self, role: Role, term: u64) {
        *self.renewing.lock().expect("no panic") = true;
        let mut facts = self.facts.lock().expect("no panic");
        (facts.role, facts.term) = (role.into(), term);
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut LeaseFacts)) {
        change(&mut self.facts.lock().expect("no panic"));
    }

    /// No facts any more, though the connection stays. Returns when the lease ends that was told last.
    pub(crate) fn silent(&self) -> u64 {
        *self.renewing.lock().expect("no panic") = false;
        self.facts.lock().expect("no panic").lease_until_ms
    }

    pub(crate) fn report(&self) -> AgentReport {
        self.report.lock().expect("no panic").clone().unwrap_or_default()
    }

    async fn next_facts(&self) -> LeaseFacts {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if *self.renewing.lock().expect("no panic") {
                let mut facts = self.facts.lock().expect("no panic");
                let holds = matches!(facts.role(), Role::Promoting | Role::Active | Role::Handover);
                facts.lease_until_ms = if holds { boot_ms() + LEASE_MS } else { 0 };
                return facts.clone();
            }
        }
    }
}
