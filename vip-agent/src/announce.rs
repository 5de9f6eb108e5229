//! Telling the network where the address now is: gratuitous ARP, or unsolicited neighbour advertisement.
//!
//! Both are written as whole Ethernet frames to a raw packet socket: they must go out whatever routes and tables say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::error::{Error, Result};
use crate::netlink::Interface;

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;

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
    // Protocol 0: it sends, and nothing is ever queued for it to read.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(failed)?;
    let to = link_address(interface.index).map_err(failed)?;
    for frame in frames(address, mac) {
        socket.send_to(&frame, &to).map_err(failed)?;
    }
    Ok(())
}

/// Both forms of ARP: some switches and phones heed only requests, others only replies.
fn frames(address: IpAddr, mac: [u8; 6]) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![arp(1, address, mac), arp(2, address, mac)],
        IpAddr::V6(address) => vec![neighbour_advertisement(address, mac)],
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    [to.as_slice(), &from, &kind.to_be_bytes()].concat()
}

fn arp(operation: u16, address: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4]); // Ethernet and IPv4, with the lengths of their addresses
    frame.extend(operation.to_be_bytes());
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(if operation == 1 { [0; 6] } else { BROADCAST });
    frame.extend(address.octets());
    frame
}

fn neighbour_advertisement(address: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0]; // type, code, checksum, flags: override
    message.extend(address.octets());
    message.extend([2, 1]); // option: target link-layer address, one unit of 8 bytes
    message.extend(mac);
    let checksum = icmpv6_checksum(address, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn icmpv6_checksum(from: Ipv6Addr, message: &[u8]) -> u16 {
    let length = message.len() as u8;
    let pseudo = [
        from.octets().as_slice(),
        &ALL_NODES.octets(),
        &[0, 0, 0, length, 0, 0, 0, ICMPV6],
        message,
    ]
    .concat();
    let sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

fn link_address(index: u32) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: all bytes zero is a valid sockaddr_ll, and sockaddr_storage is large and aligned enough for any address type.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    link.sll_halen = 6;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `storage` holds a sockaddr_ll of exactly this length, with its family set.
    Ok(unsafe { SockAddr::new(storage, length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_gratuitous_arp_names_the_address_as_sender_and_target() {
        let frame = arp(1, Ipv4Addr::new(10, 0, 0, 9), MAC);
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
        assert_eq!(icmpv6_checksum(address, &frame[54..]), 0);
        assert_eq!(frame[54 + 4] & 0x20, 0x20);
    }
}
