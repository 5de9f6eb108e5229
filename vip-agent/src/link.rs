//! Whole Ethernet frames to and from a raw packet socket: they go out and come in whatever routes and tables say.

use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ICMPV6: u8 = 58;
/// Type of an ICMPv6 message.
pub(crate) const ADVERTISEMENT: u8 = 136;

pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [to.as_slice(), &from, &kind.to_be_bytes()].concat()
}

/// An ARP packet for Ethernet and IPv4: (MAC, address) of sender and target.
pub(crate) fn arp(to: Mac, operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4])) -> Vec<u8> {
    let mut frame = ethernet(to, sender.0, ARP);
    frame.extend([0, 1, 8, 0, 6, 4]); // Ethernet and IPv4, with the lengths of their addresses
    frame.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        frame.extend(mac);
        frame.extend(address);
    }
    frame
}

/// An ICMPv6 message of neighbour discovery; its checksum, at bytes 2 and 3, is filled in.
pub(crate) fn icmpv6(macs: (Mac, Mac), from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let checksum = icmpv6_checksum(from, to, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ethernet(macs.1, macs.0, IPV6);
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

pub(crate) fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = message.len() as u8;
    let pseudo = [
        from.octets().as_slice(),
        &to.octets(),
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

/// A socket on this interface. `kind`: it also hears frames of that type; none: it only sends.
pub(crate) fn socket(index: u32, kind: Option<u16>) -> io::Result<Socket> {
    // Made with protocol 0, it hears nothing until it is bound to its one interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None::<Protocol>)?;
    if let Some(kind) = kind {
        // Before it hears anything: what the buffer is filled with must not be the node's other traffic.
        socket.attach_filter(&filter(kind))?;
        socket.bind(&address(index, kind)?)?;
    }
    Ok(socket)
}

/// Of IPv6 neighbour advertisements alone, of anything else all: ARP is rare.
fn filter(kind: u16) -> Vec<SockFilter> {
    let load_byte = |at| SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, at);
    let equal = |value: u8, else_skip| {
        SockFilter::new(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            0,
            else_skip,
            u32::from(value),
        )
    };
    let answer = |bytes| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    if kind != IPV6 {
        return vec![answer(u32::MAX)];
    }
    vec![
        load_byte(20), // next header
        equal(ICMPV6, 3),
        load_byte(54), // type
        equal(ADVERTISEMENT, 1),
        answer(u32::MAX),
        answer(0),
    ]
}

/// Where a frame is sent through.
pub(crate) fn through(index: u32) -> io::Result<SockAddr> {
    address(index, 0)
}

fn address(index: u32, kind: u16) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: all bytes zero is a valid sockaddr_ll, and sockaddr_storage is large and aligned enough for any address type.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = kind.to_be();
    link.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    link.sll_halen = 6;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `storage` holds a sockaddr_ll of exactly this length, with its family set.
    Ok(unsafe { SockAddr::new(storage, length) })
}
