//! What is written on the command line.

use std::net::{IpAddr, SocketAddr};

use holdfast_config::Node;

use crate::error::{Error, Result};

/// `n1=10.0.0.131`, `n1=10.0.0.131:7500`, `n1=fd00::1`, `n1=[fd00::1]:7500`.
pub fn node(text: &str) -> Result<Node> {
    let right = "write --node NAME=ADDRESS or NAME=ADDRESS:PORT, such as n1=10.0.0.131";
    let wrong = || Error::Argument {
        text: text.to_owned(),
        right,
    };
    let (name, place) = text.split_once('=').ok_or_else(wrong)?;
    if let Ok(address) = place.parse::<IpAddr>() {
        return Ok(Node::new(name, address));
    }
    let place: SocketAddr = place.parse().map_err(|_| wrong())?;
    let control_port = place.port().checked_add(1).ok_or_else(wrong)?;
    Ok(Node {
        name: name.to_owned(),
        address: place.ip(),
        replication_port: place.port(),
        control_port,
        removed: false,
    })
}

/// `10.0.0.130/24`.
pub(super) fn vip(text: &str) -> Result<(IpAddr, u8)> {
    let right = "write --vip ADDRESS/PREFIX, such as 10.0.0.130/24";
    let wrong = || Error::Argument {
        text: text.to_owned(),
        right,
    };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    Ok((
        address.parse().map_err(|_| wrong())?,
        prefix.parse().map_err(|_| wrong())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        assert_eq!(
            node("n1=10.0.0.131").unwrap(),
            Node::new("n1", "10.0.0.131".parse().unwrap())
        );
        let six = node("n2=[fd00::1]:7500").unwrap();
        assert_eq!(
            (six.address, six.replication_port, six.control_port),
            ("fd00::1".parse().unwrap(), 7500, 7501)
        );
        assert_eq!(node("n2=fd00::1").unwrap().replication_port, 7400);
        for bad in ["n1", "n1=", "n1=host", "n1=10.0.0.1:65535", "n1=10.0.0.1:x"] {
            assert!(node(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn vips() {
        assert_eq!(vip("10.0.0.130/24").unwrap(), ("10.0.0.130".parse().unwrap(), 24));
        for bad in ["10.0.0.130", "10.0.0.130/x", "host/24"] {
            assert!(vip(bad).is_err(), "{bad}");
        }
    }
}
