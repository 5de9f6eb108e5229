//! Arithmetic on addresses.

use std::net::IpAddr;

/// Bits of an address of this family.
pub(crate) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether both lie in the network of `prefix` bits that the first one names.
pub(crate) fn same_network(one: IpAddr, prefix: u8, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && network_bits(one, prefix) == network_bits(other, prefix)
}

/// Whether it is the network's own address or its broadcast address, which no machine can have.
pub(crate) fn is_reserved(address: IpAddr, prefix: u8) -> bool {
    let host_bits = width(address) - prefix;
    if host_bits < 2 {
        return false;
    }
    let mask = !0u128 >> (128 - u32::from(host_bits));
    let host = bits(address) & mask;
    host == 0 || (address.is_ipv4() && host == mask)
}

/// Whether a socket can be bound to it with nothing else said: link-local IPv6 would need an interface.
pub(crate) fn can_be_bound(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || link_local || broadcast)
}

fn network_bits(address: IpAddr, prefix: u8) -> u128 {
    bits(address)
        .checked_shr(u32::from(width(address) - prefix))
        .unwrap_or(0)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks() {
        assert!(same_network(ip("10.0.0.130"), 24, ip("10.0.0.131")));
        assert!(!same_network(ip("10.0.0.130"), 24, ip("10.0.1.131")));
        assert!(!same_network(ip("10.0.0.130"), 25, ip("10.0.0.1")));
        assert!(!same_network(ip("10.0.0.130"), 0, ip("fd00::1")));
        assert!(same_network(ip("10.0.0.130"), 0, ip("192.168.0.1")));
        assert!(same_network(ip("fd00::1"), 64, ip("fd00::2")));
        assert!(same_network(ip("fd00::1"), 0, ip("fe00::2")));
    }

    #[test]
    fn reserved_addresses() {
        assert!(is_reserved(ip("10.0.0.0"), 24));
        assert!(is_reserved(ip("10.0.0.255"), 24));
        assert!(!is_reserved(ip("10.0.0.255"), 16));
        assert!(!is_reserved(ip("10.0.0.0"), 31));
        assert!(is_reserved(ip("fd00::"), 64));
        assert!(!is_reserved(ip("fd00::ffff:ffff:ffff:ffff"), 64));
    }
}
