//! Asks the peers for their status once a second, so that it is known when one goes away.

use super::shared::Shared;
use anyhow::Context as _;
use holdfast_config::Node;
use holdfast_proto::control::NodeStatusRequest;
use holdfast_proto::control::control_client::ControlClient;
use holdfast_replicator::clock::unix_ms;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const EVERY: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_millis(1500);

/// A lazily opened channel to a peer's control port, from the static address.
pub(super) fn channel(shared: &Shared, peer: &Node) -> anyhow::Result<Channel> {
    let tls = &shared.config.tls;
    let read = |path: &std::path::Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&tls.ca)?))
        .identity(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?))
        .domain_name(&peer.name);
    let endpoint = Endpoint::from_shared(format!("https://{}", peer.control()))?
        .tls_config(tls)?
        .local_address(Some(shared.node().address))
        .connect_timeout(WITHIN)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

pub(super) fn start(shared: &Arc<Shared>) -> anyhow::Result<()> {
    for peer in &shared.config.cluster.nodes {
        if peer.name != shared.node().name {
            let client = ControlClient::new(channel(shared, peer)?);
            tokio::spawn(ask(shared.clone(), peer.name.clone(), client));
        }
    }
    Ok(())
}

async fn ask(shared: Arc<Shared>, peer: String, mut client: ControlClient<Channel>) {
    loop {
        let why = match tokio::time::timeout(WITHIN, client.get_node_status(NodeStatusRequest {})).await {
            Ok(Ok(status)) => {
                let mut inner = shared.inner();
                inner.peers.insert(peer.clone(), (status.into_inner(), unix_ms()));
                inner.silent.remove(&peer);
                None
            }
            Ok(Err(error)) => Some(error.message().to_owned()),
            Err(_) => Some(format!("no answer within {} ms", WITHIN.as_millis())),
        };
        if let Some(why) = why {
            shared.inner().silent.insert(peer.clone(), why);
        }
        tokio::time::sleep(EVERY).await;
    }
}
