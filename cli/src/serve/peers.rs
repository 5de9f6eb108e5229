//! Asks the peers for their status: once a second, so that it is known when one goes away, and whenever an operator
//! asks, so that nobody is shown the state of a second ago.

use super::live::{Current, Live, Pem};
use super::shared::{Heard, Shared};
use holdfast_config::Node;
use holdfast_proto::control::NodeStatusRequest;
use holdfast_proto::control::control_client::ControlClient;
use holdfast_proto::repair::repair_client::RepairClient;
use holdfast_replicator::clock::{boottime_ms, unix_ms};
use holdfast_replicator::net::tls::node_name;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

const EVERY: Duration = Duration::from_secs(1);
/// How long an operator's answer waits for the peers'.
const AT_ONCE: Duration = Duration::from_millis(400);
const WITHIN: Duration = Duration::from_millis(1500);
const ECHO_EVERY: Duration = Duration::from_secs(2);
const ECHO_WITHIN: Duration = Duration::from_secs(3);

/// A lazily opened channel to a peer's control port, from the static address.
pub(super) fn channel(current: &Current, peer: &Node) -> anyhow::Result<Channel> {
    let Pem { ca, cert, key } = &current.pem;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(cert, key))
        .domain_name(&peer.name);
    let endpoint = Endpoint::from_shared(format!("https://{}", peer.control()))?
        .tls_config(tls)?
        .local_address(Some(current.own().address))
        .connect_timeout(WITHIN)
        // After a cut the same connection would stay silent for as long again.
        .http2_keep_alive_interval(ECHO_EVERY)
        .keep_alive_timeout(ECHO_WITHIN)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// Who is root here may ask for everything. A peer may, if it calls from where this node looks for it: a machine that was replaced or
/// taken out has a certificate of that name, too. Its status any of them may ask for, or it would never hear of a change.
pub(super) fn admit<T>(live: &Live, request: &Request<T>) -> Result<(), Status> {
    let Some(certificates) = request.peer_certs() else {
        return Ok(());
    };
    let name = certificates.first().and_then(node_name).unwrap_or_default();
    let current = live.now();
    let refuse = |why: String| Err(Status::permission_denied(why));
    let Some(node) = current.node(&name) else {
        return refuse(format!("{name:?} is no node of this cluster"));
    };
    let from = request.remote_addr().map(|from| from.ip().to_canonical());
    match from {
        _ if node.removed => refuse(format!("{name} was removed from the cluster")),
        Some(from) if from == node.address => Ok(()),
        Some(from) => refuse(format!(
            "{name} is at {} in the configuration of {}, and this comes from {from}",
            node.address,
            current.own().name
        )),
        None => refuse(format!("it can't be seen from where {name} calls")),
    }
}

/// Raft id of the node whose certificate the asking side has, and which calls from its place.
pub(super) fn asking<T>(shared: &Shared, request: &Request<T>, named: Option<&str>) -> Result<u64, Status> {
    admit(&shared.live, request)?;
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

pub(super) type Control = ControlClient<Channel>;

/// One client a peer, until it is somewhere else or there are other certificates.
pub(super) struct Peers {
    live: Arc<Live>,
    clients: RwLock<Vec<Peer>>,
}

#[derive(Clone)]
struct Peer {
    name: String,
    control: ControlClient<Channel>,
    repair: RepairClient<Channel>,
}

/// Those that weren't removed.
fn clients(current: &Current) -> anyhow::Result<Vec<Peer>> {
    let own = &current.own().name;
    let others = current.config.cluster.nodes.iter();
    let others = others.filter(|peer| peer.name != *own && !peer.removed);
    let client = |peer: &Node| {
        let channel = channel(current, peer)?;
        Ok(Peer {
            name: peer.name.clone(),
            control: ControlClient::new(channel.clone()),
            repair: RepairClient::new(channel),
        })
    };
    others.map(client).collect()
}

impl Peers {
    pub(super) fn open(live: Arc<Live>) -> anyhow::Result<Self> {
        let clients = RwLock::new(clients(&live.now())?);
        Ok(Self { live, clients })
    }

    fn all(&self) -> Vec<Peer> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, name: &str) -> Option<Peer> {
        self.all().into_iter().find(|peer| peer.name == name)
    }

    pub(super) fn client(&self, name: &str) -> Option<ControlClient<Channel>> {
        self.find(name).map(|peer| peer.control)
    }

    /// Each peer's door for mending, with its name.
    pub(super) fn menders(&self) -> Vec<(String, RepairClient<Channel>)> {
        let each = self.all().into_iter();
        each.map(|peer| (peer.name, peer.repair)).collect()
    }

    pub(super) fn mender(&self, name: &str) -> Option<RepairClient<Channel>> {
        self.find(name).map(|peer| peer.repair)
    }

    /// Each peer's door for questions, with its name.
    pub(super) fn controls(&self) -> Vec<(String, Control)> {
        let each = self.all().into_iter();
        each.map(|peer| (peer.name, peer.control)).collect()
    }

    pub(super) fn clients(&self) -> Vec<ControlClient<Channel>> {
        self.all().into_iter().map(|peer| peer.control).collect()
    }

    /// Goes by what has changed; whatever is under way on the channels before goes on.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut changes = self.live.changes();
        while changes.changed().await.is_ok() {
            match clients(&changes.borrow_and_update()) {
                Ok(clients) => *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients,
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "the peers are asked where they were before"
                ),
            }
        }
    }

    /// Asks each peer from time to time, so that it is known when one goes away.
    pub(super) fn watch(self: &Arc<Self>, shared: &Arc<Shared>) {
        let own = shared.node().name.clone();
        let others = shared.config.cluster.nodes.iter().map(|node| node.name.clone());
        for name in others.filter(|name| *name != own) {
            let (peers, shared) = (self.clone(), shared.clone());
            tokio::spawn(async move {
                loop {
                    match peers.client(&name) {
                        Some(client) => ask(&shared, &name, client).await,
                        None => shared.silent(&name, "it was removed from the cluster"),
                    }
                    tokio::time::sleep(EVERY).await;
                }
            });
        }
    }

    /// Asks those peers that answered last time once more, for an answer that shows this moment. Whoever doesn't
    /// answer at once stays as it was last seen.
    pub(super) async fn refresh(&self, shared: &Arc<Shared>) {
        let mut asked = tokio::task::JoinSet::new();
        for Peer { name, control, .. } in self.all() {
            if !shared.inner().silent.contains_key(&name) {
                let shared = shared.clone();
                asked.spawn(async move { ask(&shared, &name, control).await });
            }
        }
        // Those that are late go on by themselves and tell when they know.
        let _ = tokio::time::timeout(AT_ONCE, async { while asked.join_next().await.is_some() {} }).await;
        asked.detach_all();
    }
}

async fn ask(shared: &Arc<Shared>, peer: &str, mut client: ControlClient<Channel>) {
    let asked = boottime_ms();
    let answer = tokio::time::timeout(WITHIN, client.get_node_status(NodeStatusRequest {})).await;
    if let Ok(Ok(status)) = &answer {
        shared.hear_members(peer, status.get_ref().members.as_ref());
        shared.hear_odd_one_out(peer, status.get_ref());
    }
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
