//! `holdfast node` and `holdfast join`: who the three nodes are and where, changed while two of them go on.

mod certify;
mod change;
mod join;
mod pem;
mod replace;
pub(crate) mod token;

use clap::Subcommand;
pub use join::Join;

#[derive(Subcommand)]
pub enum Node {
    /// Another machine takes the place of a node that is gone: prints the token for `holdfast join` there
    Replace(replace::Replace),
    /// Give a node another address: the others look for it there from now on
    Move(change::Move),
    /// Take a node out that is gone and isn't replaced yet: it is neither called nor heard any more
    Remove(change::Remove),
    /// Make a node a new certificate, which a running daemon uses without a restart
    Certify(certify::Certify),
}

impl Node {
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Replace(replace) => replace.run(),
            Self::Move(command) => command.run(),
            Self::Remove(command) => command.run(),
            Self::Certify(certify) => certify.run(),
        }
    }
}
