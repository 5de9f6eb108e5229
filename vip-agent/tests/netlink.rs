//! The verbs on a real kernel: an address that runs out by itself, routes that stay whole, the source of what the node sends.

mod common;

use common::*;
use holdfast_config::Vip;
use vip_agent::netlink::{Netlink, PROTOCOL};

fn open(address: &str, prefix: u8) -> Netlink {
    Netlink::open(&Vip::new(address.parse().expect("an address"), prefix)).expect("a netlink socket")
}

/// One renewal, and the address stays for at least 0.9 s and goes by itself. When exactly it goes is the kernel's affair: it
/// looks once a second at most, and has to wait for its locks, so a new owner asks the network as well.
async fn runs_out(address: &'static str, prefix: u8, beyond: &str) {
    let before = own_routes().await;
    let mut netlink = open(address, prefix);
    let asked = boot_ms();
    netlink.put_address().await.expect("added");
    assert!(netlink.read_address().await.expect("read") && has(address).await);
    netlink.set_source().await.expect("source set");
    while netlink.read_address().await.expect("read") {
        assert!(boot_ms() - asked < 15_000, "{address} doesn't run out");
        sleep(5).await;
    }
    let lasted = boot_ms() - asked;
    assert!(lasted >= 900, "gone after {lasted} ms");
    // Nobody has cleared anything, and still nothing is sent with the address that is gone.
    assert!(!source_towards(beyond).await.to_string().contains(address));
    netlink.clear_source().await.expect("source cleared");
    assert_eq!(own_routes().await, before, "the node's own routes are whole");
}

#[test]
fn an_address_that_is_not_renewed_runs_out_and_leaves_the_nodes_routes_whole() {
    in_namespace_alone(|| async { runs_out(VIP, 24, "192.0.2.1").await });
}

#[test]
fn an_ipv6_address_runs_out_too() {
    in_namespace_alone(|| async { runs_out(VIP_6, 64, "2001:db8::1").await });
}

#[test]
fn a_renewed_address_stays() {
    in_namespace(|| async {
        let (mut four, mut six) = (open(VIP, 24), open(VIP_6, 64));
        for _ in 0..15 {
            four.put_address().await.expect("renewed");
            six.put_address().await.expect("renewed");
            sleep(200).await;
            assert!(has(VIP).await && has(VIP_6).await);
        }
        assert!(!four.drop_address().await.expect("dropped"));
        assert!(!six.drop_address().await.expect("dropped"));
        assert!(!has(VIP).await && !has(VIP_6).await);
    });
}

#[test]
fn unbound_traffic_has_the_address_as_source_while_it_is_held() {
    in_namespace(|| async {
        let before = own_routes().await;
        let mut netlink = open(VIP, 24);
        assert_eq!(source_towards("192.0.2.1").await.to_string(), STATIC);
        netlink.put_address().await.expect("added");
        netlink.set_source().await.expect("source set");
        assert_eq!(source_towards("192.0.2.1").await.to_string(), VIP);
        assert_eq!(source_towards("10.99.0.7").await.to_string(), VIP);
        // Another interface's network isn't drawn to ours, and the machine itself is spoken to as ever.
        assert_eq!(source_towards("172.17.0.5").await.to_string(), "172.17.0.1");
        assert_eq!(source_towards("127.0.0.1").await.to_string(), "127.0.0.1");
        // Replication binds the static address.
        let bound = tokio::net::UdpSocket::bind((STATIC, 0)).await.expect("bound");
        bound.connect(("10.99.0.2", 9)).await.expect("a route");
        assert_eq!(bound.local_addr().expect("bound").ip().to_string(), STATIC);
        netlink.clear_source().await.expect("source cleared");
        assert_eq!(source_towards("192.0.2.1").await.to_string(), STATIC);
        netlink.drop_address().await.expect("dropped");
        assert_eq!(own_routes().await, before);
    });
}

#[test]
fn unbound_ipv6_traffic_has_the_address_as_source_while_it_is_held() {
    in_namespace(|| async {
        let before = own_routes().await;
        let mut netlink = open(VIP_6, 64);
        netlink.put_address().await.expect("added");
        assert_eq!(source_towards("2001:db8::1").await.to_string(), STATIC_6);
        netlink.set_source().await.expect("source set");
        assert_eq!(source_towards("2001:db8::1").await.to_string(), VIP_6);
        assert_eq!(source_towards("fd99::7").await.to_string(), VIP_6);
        assert_eq!(source_towards("::1").await.to_string(), "::1");
        netlink.set_source().await.expect("set twice is the same");
        netlink.clear_source().await.expect("source cleared");
        netlink.drop_address().await.expect("dropped");
        assert_eq!(source_towards("2001:db8::1").await.to_string(), STATIC_6);
        assert_eq!(own_routes().await, before);
    });
}

#[test]
fn our_copies_follow_the_nodes_routes_and_are_left_alone_when_they_are_right() {
    in_namespace(|| async {
        let ours = || ip(format!("route show proto {PROTOCOL}"));
        let mut netlink = open(VIP, 24);
        netlink.put_address().await.expect("added");
        netlink.set_source().await.expect("source set");
        let first = ours().await;
        assert_eq!(first.lines().count(), 2, "the default route and the network's: {first}");
        netlink.put_address().await.expect("renewed");
        netlink.set_source().await.expect("set twice is the same");
        assert_eq!(ours().await, first);
        ip("route del default via 10.99.0.254").await;
        ip("route del default via 10.99.0.254").await;
        ip("route add default via 10.99.0.253").await;
        ip("route add 192.0.2.0/24 via 10.99.0.9 metric 50").await;
        ip("route add 172.18.0.0/16 dev w0").await;
        netlink.put_address().await.expect("renewed");
        netlink.set_source().await.expect("source set");
        let second = ours().await;
        assert!(second.contains("default via 10.99.0.253"), "{second}");
        assert!(second.contains("192.0.2.0/24 via 10.99.0.9"), "{second}");
        assert!(!second.contains("10.99.0.254") && !second.contains("w0"), "{second}");
        assert_eq!(second.lines().count(), 3, "{second}");
        assert_eq!(source_towards("192.0.2.1").await.to_string(), VIP);
        netlink.clear_source().await.expect("source cleared");
        assert_eq!(ours().await, "");
    });
}

/// An administrator's `replace` hits the copy, since that comes first. What he asked for holds all the same.
#[test]
fn a_route_replaced_by_hand_holds() {
    in_namespace(|| async {
        let mut netlink = open(VIP, 24);
        netlink.put_address().await.expect("added");
        netlink.set_source().await.expect("source set");
        ip("route replace default via 10.99.0.253").await;
        netlink.put_address().await.expect("renewed");
        netlink.set_source().await.expect("source set");
        assert!(ip("route get 203.0.113.1").await.contains("via 10.99.0.253"));
        assert_eq!(source_towards("203.0.113.1").await.to_string(), VIP);
        netlink.clear_source().await.expect("source cleared");
        netlink.drop_address().await.expect("dropped");
        assert!(ip("route get 203.0.113.1").await.contains("via 10.99.0.253"));
        assert_eq!(source_towards("203.0.113.1").await.to_string(), STATIC);
    });
}

#[test]
fn what_a_crash_left_behind_is_cleared() {
    in_namespace(|| async {
        let before = own_routes().await;
        let mut crashed = open(VIP, 24);
        crashed.put_address().await.expect("added");
        crashed.set_source().await.expect("source set");
        // Set by hand, for ever, on another interface and with another prefix: it goes as well.
        ip(&format!("addr add {VIP}/16 dev w0")).await;
        let mut next = open(VIP, 24);
        assert!(!next.drop_address().await.expect("dropped"));
        next.clear_source().await.expect("source cleared");
        assert_eq!(own_routes().await, before);
        assert!(!has(VIP).await);
    });
}

#[test]
fn the_interface_is_found_by_its_static_address_or_by_name() {
    in_namespace(|| async {
        let found = open(VIP, 24).find_interface().await.expect("found");
        assert!(found.name == "v0" && found.has_link, "{found:?}");
        ip("link set v1 down").await;
        let cut = open(VIP, 24).find_interface().await.expect("found");
        assert!(cut.name == "v0" && !cut.has_link, "{cut:?}");
        let error = open("192.0.2.9", 24)
            .find_interface()
            .await
            .expect_err("no such network here");
        assert!(
            error.to_string().contains("no interface has a static address"),
            "{error}"
        );
        let mut vip = Vip::new(VIP.parse().expect("an address"), 24);
        vip.interface = Some("w0".to_owned());
        assert_eq!(
            Netlink::open(&vip)
                .expect("a socket")
                .find_interface()
                .await
                .expect("found")
                .name,
            "w0"
        );
        vip.interface = Some("eth7".to_owned());
        let error = Netlink::open(&vip)
            .expect("a socket")
            .find_interface()
            .await
            .expect_err("no such interface");
        assert!(error.to_string().contains("there is no interface eth7"), "{error}");
    });
}
