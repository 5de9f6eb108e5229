//! Telling the network where the address now is: gratuitous ARP, or unsolicited neighbour advertisement.

use std::net::{IpAddr, Ipv6Addr};

use crate::error::{Error, Result};
use crate::link::{self, BROADCAST, Mac};
use crate::netlink::Interface;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Sends one announcement.
pub(crate) fn announce(address: IpAddr, interface: &Interface) -> Result<()> {
    let mac = interface.mac.ok_or_else(|| Error::NotEthernet {
        name: interface.name.clone(),
    })?;
    let failed = |source| Error::Announce {
        address,
        index: interface.index,
        source,
    };
    let socket = link::socket(interface.index, None).map_err(failed)?;
    let to = link::through(interface.index).map_err(failed)?;
    for frame in frames(address, mac) {
        socket.send_to(&frame, &to).map_err(failed)?;
    }
    Ok(())
}

/// Both forms of ARP: some switches and phones heed only requests, others only replies.
fn frames(address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => [(1, [0; 6]), (2, BROADCAST)]
            .map(|(operation, target)| {
                let address = address.octets();
                link::arp(BROADCAST, operation, (mac, address), (target, address))
            })
            .into(),
        IpAddr::V6(address) => vec![neighbour_advertisement(address, mac)],
    }
}

fn neighbour_advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0]; // type, code, checksum, flags: override
    message.extend(address.octets());
    message.extend([2, 1]); // option: target link-layer address, one unit of 8 bytes
    message.extend(mac);
    link::icmpv6((mac, ALL_NODES_MAC), address, ALL_NODES, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_gratuitous_arp_names_the_address_as_sender_and_target() {
        let frame = &frames("10.0.0.9".parse().unwrap(), MAC)[0];
        assert_eq!(frame.len(), 42);
        assert_eq!(
            frame[..14],
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6]
        );
        assert_eq!(frame[28..32], [10, 0, 0, 9]);
        assert_eq!(frame[38..42], [10, 0, 0, 9]);
    }

    #[test]
    fn a_neighbour_advertisement_sums_up_to_all_ones() {
        let address: Ipv6Addr = "fd00::9".parse().unwrap();
        let frame = neighbour_advertisement(address, MAC);
        assert_eq!(frame.len(), 14 + 40 + 32);
        // Summing the message with its checksum in place gives zero after the complement.
        assert_eq!(link::icmpv6_checksum(address, ALL_NODES, &frame[54..]), 0);
        assert_eq!(frame[54 + 4] & 0x20, 0x20);
    }
}
