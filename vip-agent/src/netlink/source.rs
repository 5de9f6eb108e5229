//! The source address of what this node sends by itself while it holds the virtual address.
//!
//! An address that expires takes every route of the main table with it whose source it is, so the node's own routes are never
//! changed: a rule sends locally generated traffic that has bound no source to a table of our own. There the routes of
//! the address's interface are repeated with it as source; for all other destinations that the main table knows the
//! search goes on there (`throw`). The kernel doesn't clear that table when the address expires, so the rule
//! is cleared by us: at a drop, and at the start after a crash.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rtnetlink::IpVersion;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{Netlink, ask, list};
use crate::error::Result;

/// Number of our routing table and priority of our rule: before the main table's, after the local one's.
pub const TABLE: u32 = 7411;
const MAIN: u32 = 254;

/// Orders so that longer prefixes come first: gateways must be reachable before routes through them are added.
type Key = (u8, Vec<u8>, u32);

impl Netlink {
    /// Makes table and rule as the main table asks for now. The address must be here.
    pub async fn set_source(&mut self) -> Result<()> {
        let interface = self.place().await?;
        let (mut wanted, mut present) = (BTreeMap::new(), Vec::new());
        for route in self.routes().await? {
            match table_of(&route) {
                MAIN => insert(&mut wanted, self.ours(&route, interface.index)),
                TABLE => present.push(route),
                _ => {}
            }
        }
        for route in present {
            let same = wanted
                .get(&key(&route))
                .is_some_and(|ours| comparable(ours) == comparable(&route));
            if same {
                wanted.remove(&key(&route));
            } else {
                ask(
                    "removing an outdated route of our table",
                    self.handle.route().del(route).execute(),
                )
                .await?;
            }
        }
        for route in wanted.into_values() {
            ask(
                "adding a route to our table",
                self.handle.route().add(route).replace().execute(),
            )
            .await?;
        }
        if self.rules().await?.is_empty() {
            let mut request = self.handle.rule().add();
            *request.message_mut() = self.rule();
            ask("adding our source rule", request.execute()).await?;
        }
        Ok(())
    }

    /// The rule first: without it nobody looks into the table.
    pub async fn clear_source(&mut self) -> Result<()> {
        for rule in self.rules().await? {
            ask("removing our source rule", self.handle.rule().del(rule).execute()).await?;
        }
        for route in self.routes().await? {
            if table_of(&route) == TABLE {
                // IPv6 routes may go by themselves together with the address.
                let _ = ask(
                    "removing a route of our table",
                    self.handle.route().del(route).execute(),
                )
                .await;
            }
        }
        Ok(())
    }

    async fn routes(&self) -> Result<Vec<RouteMessage>> {
        let mut question = RouteMessage::default();
        question.header.address_family = self.family();
        list("listing the routes", self.handle.route().get(question).execute()).await
    }

    /// Our rules, leftovers of a crash included.
    async fn rules(&self) -> Result<Vec<RuleMessage>> {
        let version = if self.vip.is_ipv4() {
            IpVersion::V4
        } else {
            IpVersion::V6
        };
        let mut rules = list("listing the rules", self.handle.rule().get(version).execute()).await?;
        rules.retain(|rule| rule.attributes.contains(&RuleAttribute::Table(TABLE)));
        Ok(rules)
    }

    fn rule(&self) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = self.family();
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Priority(TABLE),
            RuleAttribute::Table(TABLE),
            // Locally generated, to the kernel, comes in by the loopback interface.
            RuleAttribute::Iifname("lo".to_owned()),
        ];
        if self.vip.is_ipv4() {
            // No source bound yet. (IPv6 has no such match, nor needs it: a bound source isn't overridden by a route's.)
            rule.header.src_len = 32;
            rule.attributes
                .push(RuleAttribute::Source(Ipv4Addr::UNSPECIFIED.into()));
        }
        rule
    }

    /// What stands in our table for a route of the main one.
    fn ours(&self, route: &RouteMessage, interface: u32) -> RouteMessage {
        let repeated = route.header.kind == RouteType::Unicast && leaves_by(route, interface) && !is_link_local(route);
        let mut ours = RouteMessage::default();
        ours.header = RouteHeader {
            address_family: self.family(),
            destination_prefix_length: route.header.destination_prefix_length,
            protocol: RouteProtocol::Static,
            scope: if repeated {
                route.header.scope
            } else {
                RouteScope::Universe
            },
            kind: if repeated { RouteType::Unicast } else { RouteType::Throw },
            flags: route.header.flags & RouteFlags::Onlink,
            ..RouteHeader::default()
        };
        ours.attributes = route
            .attributes
            .iter()
            .filter(|attribute| is_kept(attribute, repeated))
            .cloned()
            .collect();
        if repeated {
            ours.attributes.push(RouteAttribute::PrefSource(self.vip.into()));
        }
        ours.attributes.push(RouteAttribute::Table(TABLE));
        ours
    }

    fn family(&self) -> AddressFamily {
        if self.vip.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        }
    }
}

/// Of two routes to one destination the one that leaves by our interface counts.
fn insert(wanted: &mut BTreeMap<std::cmp::Reverse<Key>, RouteMessage>, route: RouteMessage) {
    let key = key(&route);
    let repeated = route.header.kind == RouteType::Unicast;
    if repeated || !wanted.contains_key(&key) {
        wanted.insert(key, route);
    }
}

fn is_kept(attribute: &RouteAttribute, repeated: bool) -> bool {
    match attribute {
        RouteAttribute::Destination(_) | RouteAttribute::Priority(_) => true,
        RouteAttribute::Gateway(_)
        | RouteAttribute::Via(_)
        | RouteAttribute::Oif(_)
        | RouteAttribute::MultiPath(_)
        | RouteAttribute::Metrics(_) => repeated,
        _ => false,
    }
}

fn table_of(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(route.header.table))
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
        _ => false,
    })
}

fn key(route: &RouteMessage) -> std::cmp::Reverse<Key> {
    let (mut destination, mut priority) = (Vec::new(), 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = address.octets().to_vec(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = address.octets().to_vec(),
            RouteAttribute::Priority(value) => priority = *value,
            _ => {}
        }
    }
    std::cmp::Reverse((route.header.destination_prefix_length, destination, priority))
}

/// What must be the same for a route to be left as it is: the kernel adds attributes of its own.
fn comparable(route: &RouteMessage) -> (RouteType, Vec<String>) {
    let unicast = route.header.kind == RouteType::Unicast;
    let mut attributes: Vec<String> = route
        .attributes
        .iter()
        .filter(|attribute| {
            is_kept(attribute, unicast) || (unicast && matches!(attribute, RouteAttribute::PrefSource(_)))
        })
        .map(|attribute| format!("{attribute:?}"))
        .collect();
    attributes.sort();
    (route.header.kind, attributes)
}
