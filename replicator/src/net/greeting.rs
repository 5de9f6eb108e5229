//! The first frames of a connection: who is there, and whether it belongs here.

use super::Local;
use super::frames::{self, Batch, invalid};
use holdfast_proto::stream::{Frame, Hello, Refused, frame::Body};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of a greeting's header; it has no payload.
const HELLO_MAX: usize = 16 << 10;
/// A greeting that takes longer is given up.
pub(super) const LONGEST: Duration = Duration::from_secs(2);

fn hello(local: &Local) -> Frame {
    let hello = Hello {
        protocol: local.protocol,
        cluster_id: local.cluster_id.clone(),
        node: local.node.clone(),
        id: local.id,
        store_id: local.store_id.clone(),
        joined: local.joined,
        history: local.history.load(Ordering::Relaxed),
        lease_ms: local.timing.lease_ms,
        after_lease_ms: local.timing.after_lease_ms,
        version: env!("CARGO_PKG_VERSION").into(),
        features: 1,
    };
    Frame {
        body: Some(Body::Hello(hello)),
    }
}

/// A node, the version of the stream that it speaks, and that of its software, for people.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    pub node: &'a str,
    pub protocol: u32,
    pub version: &'a str,
}

/// The version that both speak: the lower of two that are at most one release apart.
pub fn agreed(own: Speaker<'_>, theirs: Speaker<'_>) -> Result<u32, String> {
    let (lower, higher) = if own.protocol < theirs.protocol {
        (own, theirs)
    } else {
        (theirs, own)
    };
    if higher.protocol - lower.protocol <= 1 {
        return Ok(lower.protocol);
    }
    let says = |who: Speaker<'_>| {
        format!(
            "{} speaks version {} of the stream (holdfast {})",
            who.node, who.protocol, who.version
        )
    };
    Err(format!(
        "{}, {}, and nodes more than one version apart don't understand each other: upgrade {} to a release that speaks version {}, then to the next",
        says(theirs),
        says(own),
        lower.node,
        lower.protocol + 1
    ))
}

fn both<'a>(local: &'a Local, hello: &'a Hello) -> Result<u32, String> {
    let own = Speaker {
        node: &local.node,
        protocol: local.protocol,
        version: env!("CARGO_PKG_VERSION"),
    };
    let theirs = Speaker {
        node: &hello.node,
        protocol: hello.protocol,
        version: &hello.version,
    };
    agreed(own, theirs)
}

/// Why a greeting from this node isn't acceptable; `certified` is the name in its certificate.
fn fault(local: &Local, hello: &Hello, certified: Option<&str>) -> Option<String> {
    if let Err(why) = both(local, hello) {
        return Some(why);
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
    match frames::read_within(stream, HELLO_MAX, 0).await?.0.body {
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
    if let Some(why) = fault(local, &theirs, Some(expected)) {
        return Err(invalid(why));
    }
    if let Ok(speaks) = both(local, &theirs)
        && theirs.protocol != local.protocol
    {
        let (peer, version) = (&theirs.node, &theirs.version);
        tracing::info!(
            peer,
            version,
            speaks,
            "connected to a node of another release; both speak the older one's version of the stream"
        );
    }
    Ok(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(own: u32, theirs: u32) -> Result<u32, String> {
        let speaker = |node, protocol, version| Speaker {
            node,
            protocol,
            version,
        };
        agreed(speaker("n1", own, "1.0.0"), speaker("n2", theirs, "9.9.9"))
    }

    #[test]
    fn the_lower_of_two_neighbouring_versions_is_spoken() {
        let pairs = [(5, 5), (5, 4), (5, 6)];
        assert_eq!(pairs.map(|(own, theirs)| between(own, theirs)), [Ok(5), Ok(4), Ok(5)]);
    }

    #[test]
    fn others_are_refused_with_both_versions_and_a_way() {
        for (own, theirs, way) in [
            (5, 7, "upgrade n1 to a release that speaks version 6"),
            (5, 3, "upgrade n2 to a release that speaks version 4"),
            (5, 0, "upgrade n2 to a release that speaks version 1"),
            (5, u32::MAX, "upgrade n1 to a release that speaks version 6"),
        ] {
            let why = between(own, theirs).unwrap_err();
            for part in [
                format!("n2 speaks version {theirs} of the stream (holdfast 9.9.9)"),
                format!("n1 speaks version {own} of the stream (holdfast 1.0.0)"),
                way.to_owned(),
            ] {
                assert!(why.contains(&part), "{part:?} isn't in {why:?}");
            }
        }
    }
}
