//! Asks the peers for their status: once a second, so that it is known when one goes away, and whenever an operator
//! asks, so that nobody is shown the state of a second ago.

use super::shared::{Heard, Shared};
use anyhow::Context as _;
use holdfast_config::{Config, Node};
use holdfast_proto::control::NodeStatusRequest;
use holdfast_proto::control::control_client::ControlClient;
use holdfast_proto::repair::repair_client::RepairClient;
use holdfast_replicator::clock::{boottime_ms, unix_ms};
use holdfast_replicator::net::tls::node_name;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

const EVERY: Duration = Duration::from_secs(1);
/// How long an operator's answer waits for the peers'.
const AT_ONCE: Duration = Duration::from_millis(400);
const WITHIN: Duration = Duration::from_millis(1500);

/// A lazily opened channel to a peer's control port, from the static address.
pub(super) fn channel(config: &Config, peer: &Node) -> anyhow::Result<Channel> {
    let tls = &config.tls;
    let read = |path: &std::path::Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&tls.ca)?))
        .identity(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?))
        .domain_name(&peer.name);
    let endpoint = Endpoint::from_shared(format!("https://{}", peer.control()))?
        .tls_config(tls)?
        .local_address(Some(config.cluster.nodes[config.this].address))
        .connect_timeout(WITHIN)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// Raft id of the node whose certificate the asking side has.
pub(super) fn asking<T>(shared: &Shared, request: &Request<T>, named: Option<&str>) -> Result<u64, Status> {
    let certificates = request.peer_certs();
    let name = certificates.as_ref().and_then(|all| all.first()).and_then(node_name);
    let nodes = (1..).zip(&shared.config.cluster.nodes);
    let own = &shared.node().name;
    let found = name.as_ref().and_then(|name| {
        let peer = nodes
            .into_iter()
            .find(|(_, node)| node.name != *own && node.name == *name);
        peer.map(|(id, _)| id)
    });
    if named.is_some_and(|named| Some(named) != name.as_deref()) {
        return Err(Status::permission_denied(
            "the request names another node than its certificate",
        ));
    }
    found.ok_or_else(|| Status::permission_denied("only a peer's certificate opens this door"))
}

/// One client a peer, for the whole life of the daemon.
pub(super) struct Peers {
    clients: Vec<(Node, ControlClient<Channel>, RepairClient<Channel>)>,
}

impl Peers {
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let own = &config.cluster.nodes[config.this].name;
        let others = config.cluster.nodes.iter().filter(|peer| peer.name != *own);
        let clients = others.map(|peer| {
            let channel = channel(config, peer)?;
            Ok((
                peer.clone(),
                ControlClient::new(channel.clone()),
                RepairClient::new(channel),
            ))
        });
        Ok(Self {
            clients: clients.collect::<anyhow::Result<_>>()?,
        })
    }

    pub(super) fn client(&self, name: &str) -> Option<ControlClient<Channel>> {
        let (_, client, _) = self.clients.iter().find(|(peer, ..)| peer.name == name)?;
        Some(client.clone())
    }

    /// Each peer's door for mending, with its name.
    pub(super) fn menders(&self) -> impl Iterator<Item = (&str, RepairClient<Channel>)> {
        self.clients
            .iter()
            .map(|(peer, _, repair)| (peer.name.as_str(), repair.clone()))
    }

    pub(super) fn mender(&self, name: &str) -> Option<RepairClient<Channel>> {
        self.menders().find(|(peer, _)| *peer == name).map(|(_, client)| client)
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = ControlClient<Channel>> {
        self.clients.iter().map(|(_, client, _)| client.clone())
    }

    /// Asks each peer from time to time, so that it is known when one goes away.
    pub(super) fn watch(&self, shared: &Arc<Shared>) {
        for (peer, client, _) in self.clients.clone() {
            let shared = shared.clone();
            tokio::spawn(async move {
                loop {
                    ask(&shared, &peer.name, client.clone()).await;
                    tokio::time::sleep(EVERY).await;
                }
            });
        }
    }

    /// Asks those peers that answered last time once more, for an answer that shows this moment. Whoever doesn't
    /// answer at once stays as it was last seen.
    pub(super) async fn refresh(&self, shared: &Arc<Shared>) {
        let mut asked = tokio::task::JoinSet::new();
        for (peer, client, _) in self.clients.clone() {
            if !shared.inner().silent.contains_key(&peer.name) {
                let shared = shared.clone();
                asked.spawn(async move { ask(&shared, &peer.name, client).await });
            }
        }
        // Those that are late go on by themselves and tell when they know.
        let _ = tokio::time::timeout(AT_ONCE, async { while asked.join_next().await.is_some() {} }).await;
        asked.detach_all();
    }
}

async fn ask(shared: &Shared, peer: &str, mut client: ControlClient<Channel>) {
    let asked = boottime_ms();
    let answer = tokio::time::timeout(WITHIN, client.get_node_status(NodeStatusRequest {})).await;
    let mut inner = shared.inner();
    // Another question's answer may have come meanwhile; it is at least as new.
    if inner.peers.get(peer).is_some_and(|heard| heard.at_ms > asked) {
        return;
    }
    let why = match answer {
        Ok(Ok(status)) => {
            let heard = Heard {
                status: status.into_inner(),
                unix_ms: unix_ms(),
                at_ms: boottime_ms(),
            };
            inner.peers.insert(peer.to_owned(), heard);
            inner.silent.remove(peer);
            return;
        }
        Ok(Err(error)) => error.message().to_owned(),
        Err(_) => format!("no answer within {} ms", WITHIN.as_millis()),
    };
    inner.silent.insert(peer.to_owned(), why);
}
