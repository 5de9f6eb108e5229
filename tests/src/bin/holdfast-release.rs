//! `holdfast serve` as if it were of another release: it says to speak another version of the replication stream. For
//! `tests/versions.rs`; no customer's server has it.

use std::path::PathBuf;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// The version of the stream.
    #[arg(long)]
    protocol: u32,
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { protocol, config } = Arguments::parse();
    holdfast::serve::run_as(holdfast_config::load(&config)?, protocol)
}
