//! The virtual address itself.
//!
//! It is added with the prefix of a single host and without a route: in the network's own prefix it would become
//! the primary address whenever the node's static one is taken off and set again, and the kernel would then delete the
//! static address together with it. The node's connected route is never touched either way.

use std::net::IpAddr;

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};

use super::{Netlink, ask, list};
use crate::error::Result;

impl Netlink {
    /// Adds the address, or gives the one that is there its full lifetime again.
    pub async fn put_address(&mut self) -> Result<()> {
        let interface = self.place().await?;
        let mut request = self
            .handle
            .address()
            .add(interface.index, self.vip, host_prefix(self.vip))
            .replace();
        let attributes = &mut request.message_mut().attributes;
        // No duplicate-address detection: it would hold an IPv6 address back for a second or more.
        attributes.push(AddressAttribute::Flags(
            AddressFlags::Noprefixroute | AddressFlags::Nodad,
        ));
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = self.valid_s;
        // Deprecated from the start, an IPv6 address is never chosen as source unless a route says so: ours does.
        lifetime.ifa_preferred = if self.vip.is_ipv6() { 0 } else { self.valid_s };
        attributes.push(AddressAttribute::CacheInfo(lifetime));
        let done = ask("giving the virtual address its lifetime", request.execute()).await;
        if done.is_err() {
            self.place = None;
        }
        done
    }

    /// Removes the address from every interface that has it, whatever its prefix, then reads back.
    pub async fn drop_address(&mut self) -> Result<bool> {
        for message in self.addresses().await? {
            if address_of(&message) == Some(self.vip) {
                // It may have run out since it was listed: what counts is what is read back.
                let _ = ask(
                    "removing the virtual address",
                    self.handle.address().del(message).execute(),
                )
                .await;
            }
        }
        self.read_address().await
    }

    /// Whether any interface has the address.
    pub async fn read_address(&self) -> Result<bool> {
        Ok(self
            .addresses()
            .await?
            .iter()
            .any(|message| address_of(message) == Some(self.vip)))
    }

    pub(super) async fn addresses(&self) -> Result<Vec<AddressMessage>> {
        list("listing the addresses", self.handle.address().get().execute()).await
    }
}

/// The local one: on a point-to-point link the other is the peer's.
pub(super) fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

pub(super) fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
