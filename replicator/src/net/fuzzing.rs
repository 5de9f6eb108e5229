//! Doors of this module for `crate::fuzzing`: the bytes are all there, so nothing waits.

use super::reach::{Reach, Reachable};
use super::tls::Tls;
use super::{Local, PROTOCOL, Remote, frames, greeting as rules};
use bytes::Bytes;
use holdfast_proto::stream::Frame;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use tokio::sync::watch;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn done<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits for more than it was given"),
    }
}

/// None: it was refused.
pub(crate) fn read(from: &mut &[u8]) -> Option<(Frame, Bytes)> {
    done(frames::read(from)).ok()
}

fn reach() -> Reachable {
    let places = [1, 2, 3].map(|peer| (peer, SocketAddr::new(HERE, 7400))).into();
    // Nothing changes any more.
    let (_, reach) = watch::channel(Arc::new(Reach {
        places,
        tls: Tls::of_nobody(),
    }));
    Reachable(reach)
}

fn local() -> Local {
    let remote = |name: &str, id| Remote { name: name.into(), id };
    Local {
        protocol: PROTOCOL,
        cluster_id: "3f0d".into(),
        node: "n1".into(),
        id: 1,
        store_id: "07".repeat(16),
        joined: 0,
        history: Arc::new(AtomicU64::new(5)),
        timing: crate::lease::Timing::default(),
        bind: HERE,
        peers: vec![remote("n2", 2), remote("n3", 3)],
        reach: reach(),
    }
}

/// The first bytes of a connection: who is taken is one of the peers, of this cluster.
pub fn greeting(data: &[u8]) {
    let local = local();
    let mut stream = tokio::io::join(data, Vec::new());
    let answered = done(rules::accept(&mut stream, &local, Some("n2"), HERE));
    if let Ok(hello) = &answered {
        assert_eq!((hello.node.as_str(), hello.id), ("n2", 2));
        assert_eq!(hello.cluster_id, local.cluster_id);
        assert!(hello.history == 0 || hello.history == 5);
    }
    let mut stream = tokio::io::join(data, Vec::new());
    assert_eq!(done(rules::open(&mut stream, &local, "n2")).is_ok(), answered.is_ok());
}

/// As n2 begins.
pub(crate) fn hello() -> Vec<u8> {
    let local = Local {
        node: "n2".into(),
        id: 2,
        ..local()
    };
    let mut stream = tokio::io::join(&[][..], Vec::new());
    let _ = done(rules::open(&mut stream, &local, "n1"));
    stream.into_inner().1
}
