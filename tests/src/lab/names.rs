//! Everything that a lab makes outside its folder has a name that follows from the folder's path alone, so that
//! it can be found and removed even if the lab's own notes are gone.

use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The three nodes of every lab.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Length of the network's prefix.
pub const PREFIX: u8 = 24;

/// The interface inside each namespace: namespaces keep them apart, so they all have the same name.
pub const INTERFACE: &str = "eth0";

/// Short id of a lab: eight hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabId(String);

impl LabId {
    /// `dir` is absolute and has no links in it.
    pub fn of(dir: &Path) -> Self {
        let hash = blake3::hash(dir.as_os_str().as_encoded_bytes());
        Self(hash.to_hex().chars().take(8).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn byte(&self) -> u8 {
        u8::from_str_radix(self.0.get(..2).unwrap_or("0"), 16).unwrap_or(0)
    }

    /// Namespace of a machine: `n1` to `n3`, `client`, or `switch` for the bridge between them.
    pub fn namespace(&self, machine: &str) -> String {
        format!("hf-{}-{machine}", self.0)
    }

    pub fn namespaces(&self) -> Vec<String> {
        machines()
            .chain(["switch"])
            .map(|machine| self.namespace(machine))
            .collect()
    }

    /// Address inside the lab's namespaces; nothing of it is seen outside.
    pub fn address(&self, machine: &str) -> Ipv4Addr {
        self.host(match machine {
            "switch" => 1,
            "client" => 100,
            node => 11 + number(node),
        })
    }

    /// Another address for a node, which no machine has.
    pub fn spare(&self, node: &str) -> Ipv4Addr {
        self.host(50 + number(node))
    }

    pub fn vip(&self) -> Ipv4Addr {
        self.host(10)
    }

    fn host(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.byte(), last)
    }

    /// Hardware address, split as the filter of `cut` compares it: four bytes, then two.
    pub fn hardware(&self, machine: &str) -> (u32, u16) {
        let last = if machine == "client" {
            100
        } else {
            u16::from(number(machine)) + 1
        };
        (u32::from_be_bytes([0x02, 0x48, 0x46, self.byte()]), last)
    }

    pub fn hardware_text(&self, machine: &str) -> String {
        let (high, low) = self.hardware(machine);
        let bytes = [high.to_be_bytes().as_slice(), low.to_be_bytes().as_slice()].concat();
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(":")
    }
}

/// All machines that hang on the bridge.
pub fn machines() -> impl Iterator<Item = &'static str> {
    NODES.into_iter().chain(["client"])
}

/// Name of a machine's port on the bridge.
pub fn port(machine: &str) -> String {
    format!("p-{machine}")
}

fn number(node: &str) -> u8 {
    let at = NODES.iter().position(|name| *name == node).unwrap_or(0);
    u8::try_from(at).unwrap_or(0)
}
