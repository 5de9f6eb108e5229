//! What the planner may see: the metadata as it is after all that is sequenced so far.

use crate::key::Key;
use bytes::Bytes;

/// One key of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Value(Bytes),
    Absent,
    /// Not brought into memory yet: the planner names it in `Planned::Need` and is asked again later.
    NotInMemory,
}

/// Reads never touch a disk.
pub trait View {
    fn get(&self, key: &Key) -> Seen;
}
