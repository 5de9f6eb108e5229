//! Copies of a whole store over the control port: what the active node answers (`source`), and what a node does that needs
//! one (`receive`), with the words it has for the operator meanwhile (`progress`, `control`).

mod control;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod progress;
mod receive;
mod source;

pub(super) use receive::{Outcome, offered, receive};
pub(super) use source::CopyService;
