//! Power loss: nodes of a real cluster under a PBX's load lose power at random moments, one, two or all three at once,
//! with the page cache and the disks' own caches; what was acknowledged must be there when they are back.
//!
//! `load` writes and notes what it was told, `cut` takes power away and gives it back, `look` says what is there,
//! `ledger` compares; `course` does it as often as one likes and `figures` adds up.

pub mod course;
pub mod cut;
pub mod figures;
pub mod ledger;
pub mod load;
pub mod look;
