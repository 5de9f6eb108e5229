//! Frames that anybody on the network can send, for `fuzz/`. Not there in any other build.

use crate::link::{self, Mac};
use crate::question::claimant;
use std::net::{IpAddr, Ipv6Addr};

/// What one input is given to.
pub type Target = fn(&[u8]);

/// With the names that they have in `fuzz/`.
pub const TARGETS: [(&str, Target); 1] = [("neighbour", neighbour)];

const VIP: [u8; 4] = [10, 0, 0, 9];
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
const OTHER: Mac = [2, 0, 0, 0, 0, 8];

/// Whoever claims the address says so with it in the frame.
pub fn neighbour(frame: &[u8]) {
    for address in [IpAddr::from(VIP), VIP6.into()] {
        let Some(mac) = claimant(address, frame) else { continue };
        assert_eq!(frame[6..12], mac);
        let named = match address {
            IpAddr::V4(address) => frame[28..32] == address.octets(),
            IpAddr::V6(address) => frame[62..78] == address.octets(),
        };
        assert!(named);
    }
}

/// Real encodings to begin with, each with the target that it is for.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let answer = link::arp(OTHER, 2, (OTHER, VIP), (OTHER, VIP));
    let mut message = vec![link::ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(VIP6.octets());
    let advertisement = link::icmpv6((OTHER, OTHER), VIP6, VIP6, message);
    vec![("neighbour", answer), ("neighbour", advertisement)]
}

#[cfg(test)]
#[path = "../../fuzz/src/kept.rs"]
mod kept;

#[cfg(test)]
#[test]
fn every_kept_frame_is_understood_or_not() {
    kept::run(&TARGETS, &seeds());
}

#[cfg(test)]
#[test]
#[ignore = "writes fuzz/corpus: for a format that has changed"]
fn real_encodings_are_written() {
    kept::write(&seeds());
}
