//! The first frames of a connection: who is there, and whether it belongs here.

use super::frames::{self, Batch, invalid};
use super::{Local, PROTOCOL};
use holdfast_proto::stream::{Frame, Hello, Refused, frame::Body};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A greeting that takes longer is given up.
pub(super) const LONGEST: Duration = Duration::from_secs(2);

fn hello(local: &Local) -> Frame {
    let hello = Hello {
        protocol: PROTOCOL,
        cluster_id: local.cluster_id.clone(),
        node: local.node.clone(),
        id: local.id,
        store_id: local.store_id.clone(),
        joined: local.joined,
        history: local.history.load(Ordering::Relaxed),
        version: env!("CARGO_PKG_VERSION").into(),
        features: 1,
    };
    Frame {
        body: Some(Body::Hello(hello)),
    }
}

/// Why a greeting from this node isn't acceptable; `certified` is the name in its certificate.
fn fault(local: &Local, hello: &Hello, certified: Option<&str>) -> Option<String> {
    if hello.protocol != PROTOCOL {
        return Some(format!(
            "it speaks version {} of the stream, this node version {PROTOCOL} (holdfast {} there, {} here): bring both to the same release",
            hello.protocol,
            hello.version,
            env!("CARGO_PKG_VERSION")
        ));
    }
    if hello.cluster_id != local.cluster_id {
        return Some(format!(
            "it belongs to cluster {}, this node to {}",
            hello.cluster_id, local.cluster_id
        ));
    }
    if certified.is_some_and(|name| name != hello.node) {
        return Some(format!(
            "it says that it is {}, its certificate is {}'s",
            hello.node,
            certified.unwrap_or_default()
        ));
    }
    let own = local.history.load(Ordering::Relaxed);
    if own != 0 && hello.history != 0 && hello.history != own {
        return Some(
            "its file system isn't the one that this node has: they were made at different times. One of them began anew; see `A new replica` in the runbook".into(),
        );
    }
    let known = local
        .peers
        .iter()
        .any(|peer| peer.name == hello.node && peer.id == hello.id);
    if known && local.reach.place(hello.id).is_none() {
        return Some(format!(
            "{} was removed from the cluster: `holdfast node replace {}` on another node takes one of that name in again",
            hello.node, hello.node
        ));
    }
    (!known).then(|| {
        format!(
            "{} (number {}) is not a peer in this node's configuration",
            hello.node, hello.id
        )
    })
}

async fn hello_of(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
    match frames::read(stream).await?.0.body {
        Some(Body::Hello(hello)) => Ok(hello),
        Some(Body::Refused(refused)) => Err(invalid(format!("the other side refuses: {}", refused.why))),
        _ => Err(invalid("the other side doesn't begin with a greeting")),
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.put(stream, frame, &[]).await?;
    batch.flush(stream).await
}

/// A machine that was replaced, or has moved, may still run somewhere with that name's certificate.
fn elsewhere(local: &Local, hello: &Hello, from: IpAddr) -> Option<String> {
    let place = local.reach.place(hello.id)?.ip();
    (place != from.to_canonical()).then(|| {
        format!(
            "{} is at {place} in this node's configuration, and this comes from {from}: `holdfast node move {}` if it is the right one",
            hello.node, hello.node
        )
    })
}

/// The accepting side: answers a good greeting, refuses a bad one in words.
pub(super) async fn accept(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    local: &Local,
    certified: Option<&str>,
    from: IpAddr,
) -> io::Result<Hello> {
    let theirs = hello_of(stream).await?;
    let why = fault(local, &theirs, certified).or_else(|| elsewhere(local, &theirs, from));
    if let Some(why) = why {
        let refused = Frame {
            body: Some(Body::Refused(Refused { why: why.clone() })),
        };
        let _ = send(stream, &refused).await;
        return Err(invalid(why));
    }
    send(stream, &hello(local)).await?;
    Ok(theirs)
}

/// The opening side.
pub(super) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    local: &Local,
    expected: &str,
) -> io::Result<Hello> {
    send(stream, &hello(local)).await?;
    let theirs = hello_of(stream).await?;
    match fault(local, &theirs, Some(expected)) {
        Some(why) => Err(invalid(why)),
        None => Ok(theirs),
    }
}
