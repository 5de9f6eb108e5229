//! The subcommands, and the exit code of each when it fails.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::{check, classes, export, import, init, node, recover, scrub, serve, status, switchover, validate};

#[derive(Subcommand)]
pub enum Command {
    /// Make the configuration folders of a new cluster, with certificates
    Init(init::Init),
    /// Run the daemon of this node, with the mount
    Serve {
        /// This node's configuration
        #[arg(long, value_name = "FILE", default_value = holdfast_config::defaults::CONFIG_FILE)]
        config: PathBuf,
    },
    /// Show who is active, how each node does and what needs attention
    ///
    /// Exit code: 0 a node is active and reachable, 1 none is, 2 no daemon answered.
    Status(status::Status),
    /// Compare the three replicas, while they are in use; or look at the store of a stopped node
    ///
    /// Exit code: 0 all the same (or sound), 1 they differ (or something is wrong), 2 could not check all of them.
    Check(check::Check),
    /// Read all that this node has stored and mend what has rotted; done by itself once a day, slower
    ///
    /// Exit code: 0 all is sound now, 1 something is damaged still, 2 it could not be read.
    Scrub(scrub::Scrub),
    /// Show what changes and closing wait for in which directory, and change it
    Classes(classes::Classes),
    /// Move the active role to another node, in order
    Switchover(switchover::Switchover),
    /// Replace a dead node, move one to another address, take one out, renew a certificate
    #[command(subcommand)]
    Node(node::Node),
    /// Make this machine the node that a token from `holdfast node replace` is for, and start it
    Join(node::Join),
    /// Two nodes are gone for good: make this stopped node's replica the beginning of the cluster's new history
    Recover(recover::Recover),
    /// Work on configuration files
    #[command(subcommand)]
    Config(Config),
    /// Bring an existing directory into the mount: once while it is in use, once more at the end
    ///
    /// Exit code: 0 all of it is as in the source, 1 not yet: the output says what to do.
    Import(import::Import),
    /// Copy a stopped node's store to a plain directory tree; needs no cluster
    Export {
        /// The stopped node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The directory to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum Config {
    /// Check a configuration, with the certificate and the key that it names
    Validate { file: PathBuf },
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Init(init) => init.run()?,
            Self::Serve { config } => serve::run(holdfast_config::load(&config)?)?,
            Self::Status(status) => return Ok(status.run()?),
            Self::Check(check) => return check.run(),
            Self::Recover(recover) => recover.run()?,
            Self::Scrub(scrub) => return Ok(scrub.run()?),
            Self::Classes(classes) => classes.run()?,
            Self::Import(import) => return import.run(),
            Self::Node(node) => node.run()?,
            Self::Join(join) => join.run()?,
            Self::Switchover(switchover) => switchover.run()?,
            Self::Config(Config::Validate { file }) => validate::run(&file)?,
            // Rescuing data must not depend on a certificate that is still in force.
            Self::Export { config, out } => export::run(&holdfast_config::load_without_keys(&config)?, &out)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// For `status`, `check` and `scrub`, 1 is an answer: not to have got one is 2.
    pub fn failure_code(&self) -> u8 {
        match self {
            Self::Status(_) | Self::Check(_) | Self::Scrub(_) => 2,
            _ => 1,
        }
    }
}
