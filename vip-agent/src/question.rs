//! Asking the network, before the address is added here, whether somebody else still answers for it: an ARP probe (RFC
//! 5227), or a neighbour solicitation as for duplicate address detection (RFC 4862). What answers is a kernel, so a node
//! whose whole user space hangs answers as well.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr};

use socket2::Socket;

use crate::error::{Error, Result};
use crate::link::{self, ADVERTISEMENT, ARP, BROADCAST, ICMPV6, IPV6, Mac};
use crate::netlink::Interface;

/// Frames looked at after one question: a flood must not hold up the loop.
const FRAMES_MAX: usize = 256;

pub(crate) struct Question {
    address: IpAddr,
    index: u32,
    own: Mac,
    socket: Socket,
}

impl Question {
    /// Hears from now on.
    pub(crate) fn open(address: IpAddr, interface: &Interface) -> Result<Self> {
        let own = interface.mac.ok_or_else(|| Error::NotEthernet {
            name: interface.name.clone(),
        })?;
        let kind = if address.is_ipv4() { ARP } else { IPV6 };
        let socket = link::socket(interface.index, Some(kind)).map_err(|source| Error::Ask { address, source })?;
        Ok(Self {
            address,
            index: interface.index,
            own,
            socket,
        })
    }

    /// Who else has answered, or called the address its own, since the last time; then asks once more.
    pub(crate) fn ask(&mut self) -> Result<Option<String>> {
        let failed = |source| Error::Ask {
            address: self.address,
            source,
        };
        let mut other = None;
        let mut frame = [0; 128];
        for _ in 0..FRAMES_MAX {
            match (&self.socket).read(&mut frame) {
                Ok(len) => {
                    let claimed = claimant(self.address, &frame[..len]).filter(|mac| *mac != self.own);
                    other = other.or(claimed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(failed(error)),
            }
        }
        let to = link::through(self.index).map_err(failed)?;
        self.socket
            .send_to(&question(self.address, self.own), &to)
            .map_err(failed)?;
        Ok(other.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")))
    }
}

/// From no address, so that nobody learns a wrong one from it.
fn question(address: IpAddr, own: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => link::arp(BROADCAST, 1, (own, [0; 4]), ([0; 6], address.octets())),
        IpAddr::V6(address) => {
            let [.., a, b, c] = address.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0]; // type, code, checksum
            message.extend(address.octets());
            link::icmpv6(
                (own, [0x33, 0x33, 0xff, a, b, c]),
                Ipv6Addr::UNSPECIFIED,
                group,
                message,
            )
        }
    }
}

/// The machine that says with this frame that it has the address.
pub(crate) fn claimant(address: IpAddr, frame: &[u8]) -> Option<Mac> {
    let kind = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let sender: Mac = frame.get(6..12)?.try_into().ok()?;
    match address {
        // Sender's address: of an answer, and of a machine that announces itself or asks for others.
        IpAddr::V4(address) => (kind == ARP && frame.get(28..32)? == address.octets()).then_some(sender),
        IpAddr::V6(address) => {
            let advertises = kind == IPV6 && *frame.get(20)? == ICMPV6 && *frame.get(54)? == ADVERTISEMENT;
            (advertises && frame.get(62..78)? == address.octets()).then_some(sender)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 7];
    const OTHER: Mac = [2, 0, 0, 0, 0, 8];

    #[test]
    fn a_question_claims_nothing_and_an_answer_does() {
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        assert_eq!(claimant(address, &question(address, OWN)), None);
        let vip = [10, 0, 0, 9];
        let answer = link::arp(OWN, 2, (OTHER, vip), (OWN, [0; 4]));
        assert_eq!(claimant(address, &answer), Some(OTHER));
        let of_another = link::arp(OWN, 2, (OTHER, [10, 0, 0, 8]), (OWN, vip));
        assert_eq!(claimant(address, &of_another), None);
        assert_eq!(claimant(address, &answer[..20]), None);
    }

    #[test]
    fn the_same_with_ipv6() {
        let address: Ipv6Addr = "fd00::9".parse().unwrap();
        let asked = question(address.into(), OWN);
        assert_eq!(claimant(address.into(), &asked), None);
        assert_eq!(asked[..6], [0x33, 0x33, 0xff, 0, 0, 9]);
        let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
        message.extend(address.octets());
        let answer = link::icmpv6((OTHER, OWN), address, "ff02::1".parse().unwrap(), message);
        assert_eq!(claimant(address.into(), &answer), Some(OTHER));
        assert_eq!(claimant("fd00::8".parse().unwrap(), &answer), None);
    }
}
