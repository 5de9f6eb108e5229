//! A network namespace of the test's own, with an interface that has a static address and a default route.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::future::Future;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::process::Command;

pub(crate) const STATIC: &str = "10.99.0.1";
pub(crate) const VIP: &str = "10.99.0.100";
pub(crate) const STATIC_6: &str = "fd99::1";
pub(crate) const VIP_6: &str = "fd99::100";

/// The kernel has one lock for the interfaces and addresses of all namespaces: who measures its times has no neighbours.
static NEIGHBOURS: RwLock<()> = RwLock::new(());

/// Runs the test in a namespace that ends with it: nothing to clean up, whatever happens.
pub(crate) fn in_namespace<F, T>(test: F)
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()>,
{
    // Poisoned by a test that failed, which says nothing about this one.
    let _neighbour = NEIGHBOURS.read().unwrap_or_else(PoisonError::into_inner);
    run(test);
}

/// As [`in_namespace`], with no other test of this program running.
pub(crate) fn in_namespace_alone<F, T>(test: F)
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()>,
{
    let _alone = NEIGHBOURS.write().unwrap_or_else(PoisonError::into_inner);
    run(test);
}

fn run<F, T>(test: F)
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()>,
{
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes a network namespace and needs root; run it as root"
    );
    let inside = thread::spawn(move || {
        // SAFETY: it concerns only this thread, which ends with the test.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(
            done,
            0,
            "making a network namespace: {}",
            std::io::Error::last_os_error()
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            set_up().await;
            test().await;
        });
    });
    if let Err(panic) = inside.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn set_up() {
    ip("link set lo up").await;
    ip("link add v0 type veth peer name v1").await;
    ip("link add w0 type veth peer name w1").await;
    for link in ["v0", "v1", "w0", "w1"] {
        ip(&format!("link set {link} up")).await;
    }
    ip(&format!("addr add {STATIC}/24 dev v0")).await;
    ip("route add default via 10.99.0.254").await;
    ip(&format!("-6 addr add {STATIC_6}/64 dev v0 nodad")).await;
    ip("-6 route add default via fd99::fe").await;
    // What a container engine adds: a network of its own on another interface.
    ip("addr add 172.17.0.1/16 dev w0").await;
}

/// Runs `ip` with these arguments and returns what it says.
pub(crate) async fn ip(arguments: impl AsRef<str>) -> String {
    let arguments = arguments.as_ref();
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .await
        .expect("the program ip is there");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) async fn has(address: &str) -> bool {
    ip("-o addr show").await.contains(&format!(" {address}/"))
}

/// The node's own routes, as they must be again after whatever was done.
pub(crate) async fn own_routes() -> String {
    ip("route show table main").await + &ip("-6 route show table main").await
}

/// The source that an unbound socket gets towards this destination.
pub(crate) async fn source_towards(destination: &str) -> IpAddr {
    let unbound = if destination.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = tokio::net::UdpSocket::bind(unbound).await.expect("a socket");
    let to: IpAddr = destination.parse().expect("an address");
    socket.connect((to, 9)).await.expect("a route");
    socket.local_addr().expect("bound by now").ip()
}

pub(crate) fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

pub(crate) async fn sleep(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
