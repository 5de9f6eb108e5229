//! `holdfast`: see `holdfast --help`.

mod memory;

use std::process::ExitCode;

use clap::Parser;
use holdfast::command::Command;

/// One directory on three PBX servers, and the address that follows it.
#[derive(Parser)]
#[command(name = "holdfast", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let failure = command.failure_code();
    command.run().unwrap_or_else(|error| {
        holdfast::output::complain(&format!("holdfast: {error:#}"));
        ExitCode::from(failure)
    })
}
