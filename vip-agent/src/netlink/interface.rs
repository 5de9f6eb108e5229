//! Where the address belongs: the configured interface, or the one with a static address in the same network.

use std::net::IpAddr;

use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::address::address_of;
use super::{Netlink, list};
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// Absent: not Ethernet.
    pub mac: Option<[u8; 6]>,
    /// It is up, and so is what it is connected to, as far as its driver knows.
    pub has_link: bool,
}

impl Netlink {
    /// Looked up anew, whatever was found before.
    pub async fn find_interface(&self) -> Result<Interface> {
        let links = list("listing the interfaces", self.handle.link().get().execute()).await?;
        let links: Vec<Interface> = links.iter().map(interface_of).collect();
        if let Some(name) = &self.wanted_interface {
            let found = links.into_iter().find(|link| link.name == *name);
            return found.ok_or_else(|| Error::NoSuchInterface { name: name.clone() });
        }
        let addresses = self.addresses().await?;
        let index = addresses
            .iter()
            .find(|message| address_of(message).is_some_and(|address| self.is_neighbour(address)))
            .map(|message| message.header.index);
        links
            .into_iter()
            .find(|link| Some(link.index) == index)
            .ok_or(Error::NoInterfaceInNetwork {
                address: self.vip,
                prefix: self.prefix,
            })
    }

    fn is_neighbour(&self, address: IpAddr) -> bool {
        address != self.vip && same_network(address, self.vip, self.prefix)
    }
}

fn interface_of(link: &LinkMessage) -> Interface {
    let mut found = Interface {
        index: link.header.index,
        name: String::new(),
        mac: None,
        has_link: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Address(bytes) => found.mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    found
}

fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            u32::from(one) & mask == u32::from(other) & mask
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            u128::from(one) & mask == u128::from(other) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_compared_by_their_prefix() {
        let same = |one: &str, other: &str, prefix| same_network(one.parse().unwrap(), other.parse().unwrap(), prefix);
        assert!(same("10.0.1.1", "10.0.1.200", 24));
        assert!(!same("10.0.1.1", "10.0.2.1", 24));
        assert!(same("10.0.1.1", "192.168.0.1", 0));
        assert!(same("fd00::1", "fd00::ffff:1", 64));
        assert!(!same("fd00::1", "fd01::1", 64));
        assert!(!same("10.0.1.1", "fd00::1", 0));
    }
}
