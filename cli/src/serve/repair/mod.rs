//! What rots here is found (`scrub`, reads) and gets its bytes back from a peer (`healer`); and this node gives its own to
//! the peers (`service`). docs/adr/0014-mending.md

mod damage;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod healer;
mod reads;
mod record;
mod scrub;
mod service;

pub(super) use damage::Damage;
pub(super) use healer::{AT_ONCE, Healed, Healer};
pub(super) use reads::follow as follow_reads;
pub(super) use record::forget as forget_scrub;
pub(super) use scrub::{Scrubber, follow as follow_scrub};
pub(super) use service::RepairService;
