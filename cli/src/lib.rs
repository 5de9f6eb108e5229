//! The operator's command and the daemon's composition root; `main.rs` only starts it.
//!
//! One module a subcommand. What a subcommand prints for people is decided here and nowhere else; what is
//! true about the cluster is the daemon's to say.

pub mod authority;
pub mod bar;
pub mod check;
pub mod classes;
pub mod clock;
pub mod command;
pub mod error;
pub mod export;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
pub mod init;
pub mod local;
pub mod node;
pub mod output;
mod paths;
pub mod recover;
pub mod scrub;
pub mod serve;
pub mod status;
pub mod switchover;
pub mod validate;
pub mod words;
