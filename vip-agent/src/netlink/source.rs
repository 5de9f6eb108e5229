//! The source address of what this node sends by itself while it holds the virtual address.
//!
//! An address that expires takes every route of the main table with it whose source it is. So each route that leaves
//! by the address's interface gets a copy in front of it, with the address as source; the route itself stays as it
//! is. Whatever becomes of us, the kernel lets the copies go with the address, and the node's own routes hold again.
//! (Of IPv6 routes it only takes the source away, which comes to the same.)

use std::net::Ipv4Addr;

use futures::StreamExt as _;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, ask, list};
use crate::error::Result;

const MAIN: u8 = 254;

/// The protocol that marks a route as ours, as `ip route` shows it (`proto 74`). Nobody has registered it.
pub const PROTOCOL: u8 = 74;

impl Netlink {
    /// Makes the copies that the node's routes ask for now. The address must be here: the kernel takes no other source.
    pub async fn set_source(&mut self) -> Result<()> {
        let interface = self.place().await?;
        let main = self.main_routes().await?;
        // The kernel lists the routes to one destination in the order in which it takes them.
        let mut right = Vec::new();
        let mut missing = Vec::new();
        for (at, route) in main.iter().enumerate() {
            if is_ours(route) || !is_first(&main[..at], route) || !leaves_by(route, interface.index) {
                continue;
            }
            let Some(copy) = self.copy(route) else { continue };
            match main[..at]
                .iter()
                .position(|there| is_ours(there) && is_same(there, &copy))
            {
                Some(there) => right.push(there),
                None => missing.push(copy),
            }
        }
        for (at, route) in main.iter().enumerate() {
            if is_ours(route) && !right.contains(&at) {
                self.remove(route).await?;
            }
        }
        for copy in missing {
            self.put_in_front(copy).await?;
        }
        Ok(())
    }

    /// Also what a crash has left behind.
    pub async fn clear_source(&mut self) -> Result<()> {
        for route in self.main_routes().await?.iter().filter(|route| is_ours(route)) {
            // It goes by itself together with the address, perhaps at this moment.
            let _ = self.remove(route).await;
        }
        let left = self.main_routes().await?;
        match left.iter().find(|route| is_ours(route)) {
            None => Ok(()),
            Some(route) => self.remove(route).await,
        }
    }

    async fn main_routes(&self) -> Result<Vec<RouteMessage>> {
        let mut question = RouteMessage::default();
        question.header.address_family = self.family();
        let mut routes = list("listing the routes", self.handle.route().get(question).execute()).await?;
        routes.retain(|route| route.header.table == MAIN);
        Ok(routes)
    }

    async fn remove(&self, route: &RouteMessage) -> Result<()> {
        ask(
            "removing our copy of a route",
            self.handle.route().del(route.clone()).execute(),
        )
        .await
    }

    /// Neither exclusive nor as a replacement nor appended, which to the kernel means: before those that are there.
    async fn put_in_front(&self, copy: RouteMessage) -> Result<()> {
        let mut handle = self.handle.clone();
        let request = async move {
            let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(copy));
            request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
            let mut answers = handle.request(request)?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            Ok(())
        };
        ask("adding our copy of a route", request).await
    }

    /// The same route with the address as source; none where the address has nothing to do with the traffic.
    fn copy(&self, route: &RouteMessage) -> Option<RouteMessage> {
        if route.header.kind != RouteType::Unicast || is_link_local(route) || is_tunnelled(route) {
            return None;
        }
        let mut copy = RouteMessage::default();
        copy.header = RouteHeader {
            address_family: self.family(),
            destination_prefix_length: route.header.destination_prefix_length,
            tos: route.header.tos,
            table: MAIN,
            protocol: RouteProtocol::Other(PROTOCOL),
            scope: route.header.scope,
            kind: RouteType::Unicast,
            flags: route.header.flags & RouteFlags::Onlink,
            ..RouteHeader::default()
        };
        copy.attributes = route
            .attributes
            .iter()
            .filter(|attribute| is_kept(attribute))
            .cloned()
            .collect();
        // Two IPv6 routes of one metric would share the traffic.
        if !self.vip.is_ipv4() {
            let metric = metric(route).checked_sub(1).filter(|metric| *metric > 0)?;
            copy.attributes
                .retain(|attribute| !matches!(attribute, RouteAttribute::Priority(_)));
            copy.attributes.push(RouteAttribute::Priority(metric));
        }
        copy.attributes.push(RouteAttribute::PrefSource(self.vip.into()));
        Some(copy)
    }

    fn family(&self) -> AddressFamily {
        if self.vip.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        }
    }
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(PROTOCOL)
}

/// No route of the node's own comes before it with the same destination and metric.
fn is_first(before: &[RouteMessage], route: &RouteMessage) -> bool {
    !before
        .iter()
        .any(|other| !is_ours(other) && place(other) == place(route))
}

fn place(route: &RouteMessage) -> (u8, Option<&RouteAddress>, u8, u32) {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => Some(address),
        _ => None,
    });
    (
        route.header.destination_prefix_length,
        destination,
        route.header.tos,
        metric(route),
    )
}

fn metric(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    attribute.unwrap_or(0)
}

fn is_kept(attribute: &RouteAttribute) -> bool {
    matches!(
        attribute,
        RouteAttribute::Destination(_)
            | RouteAttribute::Priority(_)
            | RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::Oif(_)
            | RouteAttribute::MultiPath(_)
            | RouteAttribute::Metrics(_)
    )
}

fn leaves_by(route: &RouteMessage, interface: u32) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == interface,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == interface),
        _ => false,
    })
}

/// Link-local destinations are spoken to from link-local sources.
fn is_link_local(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => address.is_unicast_link_local(),
        RouteAttribute::Destination(RouteAddress::Inet(address)) => *address == Ipv4Addr::new(169, 254, 0, 0),
        _ => false,
    })
}

/// Without its encapsulation a copy would lead its traffic elsewhere.
fn is_tunnelled(route: &RouteMessage) -> bool {
    let tunnelled = |attribute| matches!(attribute, &RouteAttribute::Encap(_) | &RouteAttribute::EncapType(_));
    route.attributes.iter().any(tunnelled)
}

/// The kernel adds attributes of its own.
fn is_same(there: &RouteMessage, copy: &RouteMessage) -> bool {
    let comparable = |route: &RouteMessage| {
        let counts =
            |attribute: &&RouteAttribute| is_kept(attribute) || matches!(attribute, RouteAttribute::PrefSource(_));
        let mut attributes: Vec<String> = route
            .attributes
            .iter()
            .filter(counts)
            .map(|it| format!("{it:?}"))
            .collect();
        attributes.sort();
        attributes
    };
    place(there) == place(copy) && comparable(there) == comparable(copy)
}
