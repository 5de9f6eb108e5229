//! Every decoder of this crate that reads bytes from a disk or from a peer, for `fuzz/`: no panic, and what was decoded and is
//! encoded again gives the same value. Not there in any other build.

mod apply;
mod copy;
mod records;
mod text;

use crate::disk::sim::SimDisk;
use crate::disk::{Disk, DiskFile, OpenHow};
use crate::identity::Identity;
use crate::log::Geometry;
use crate::types::LogIndex;

pub use crate::log::fuzzing::{batch as log_batch, log};
pub use apply::apply;
pub use copy::copy;
pub use records::{entry, records};
pub use text::{checkpoint, identity, marks};

/// What one input is given to.
pub type Target = fn(&[u8]);

/// With the names that they have in `fuzz/`.
pub const TARGETS: [(&str, Target); 9] = [
    ("apply", apply),
    ("checkpoint", checkpoint),
    ("copy", copy),
    ("entry", entry),
    ("identity", identity),
    ("log", log),
    ("log_batch", log_batch),
    ("marks", marks),
    ("records", records),
];

/// Real encodings to begin with, each with the target that it is for.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = text::seeds();
    all.extend(records::seeds());
    all.extend(apply::seeds());
    all.extend(copy::seeds());
    all.extend(crate::log::fuzzing::seeds());
    all
}

pub(crate) const SMALL: Geometry = Geometry {
    segment_bytes: 16 << 10,
    segments: 4,
};

fn of_a_store() -> Identity {
    Identity {
        cluster: "pbx".into(),
        node: "n1".into(),
        store: [7; 16],
        joined: LogIndex::ZERO,
    }
}

/// A file with these bytes.
pub(crate) fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let how = OpenHow {
        create: true,
        direct: false,
    };
    let file = disk.open(path, how).expect("the folder is there");
    file.write_at(bytes, 0).expect("the simulated disk has room");
}

/// Takes numbers and pieces off an input; zeros and nothing at its end.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// A small number as one byte, any as nine.
    pub(crate) fn number(&mut self) -> u64 {
        match self.u8() {
            255 => {
                let mut all = [0; 8];
                let some = self.bytes(8);
                all[..some.len()].copy_from_slice(some);
                u64::from_le_bytes(all)
            }
            small => small.into(),
        }
    }

    /// As long as the byte before it says.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let len = self.u8().into();
        self.bytes(len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[path = "../../fuzz/src/kept.rs"]
mod kept;

#[cfg(test)]
#[test]
fn every_kept_input_is_decoded_or_refused() {
    kept::run(&TARGETS, &seeds());
}

#[cfg(test)]
#[test]
#[ignore = "writes fuzz/corpus: for a format that has changed"]
fn real_encodings_are_written() {
    kept::write(&seeds());
}
