//! `holdfast node replace`: makes the new machine's identity, tells the cluster where it will be, prints the token.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use holdfast_config::tls_files;
use holdfast_proto::control::JoinToken;
use holdfast_proto::control::change_request::Change;

use super::change::{Here, change, find, place, who};
use super::{pem, token};
use crate::authority::Authority;
use crate::clock::Clock;
use crate::init::folders;
use crate::output::print;

#[derive(Args)]
pub struct Replace {
    /// The name of the node that is gone; the new machine gets it
    node: String,
    /// The new machine's static address, if it isn't that of the old one; ADDR:PORT sets the replication port, and the
    /// next port for control
    #[arg(long, value_name = "ADDR[:PORT]")]
    addr: Option<String>,
    /// The folder `ca` that `holdfast init` made, with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Write the token into this file instead of showing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    here: Here,
}

impl Replace {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.here.config()?;
        let now = Clock::read().now_unix_ms;
        let authority = Authority::load(&self.ca, now)?;
        let pair = authority.certify(&self.node)?;
        // Before anything is changed.
        if let Some(why) = tls_files::refusal(&config.tls.ca, &pair.certificate, &self.node, now) {
            bail!(
                "a certificate by the CA in {} isn't accepted with {}: {why}; name this cluster's CA with --ca",
                self.ca.display(),
                config.tls.ca.display()
            );
        }
        // What the nodes trust, which is more than one authority while they change from one to the next.
        let trusted = std::fs::read_to_string(&config.tls.ca);
        let trusted = trusted.with_context(|| format!("reading {}", config.tls.ca.display()))?;
        let answer = change(&config, place(&self.node, self.addr.as_deref())?, Change::Replace)?;
        let there = find(&answer, &self.node)?.clone();
        let members = answer.members.iter().flat_map(|members| &members.nodes);
        let doors = members.filter(|member| member.name != self.node && !member.removed);
        let token = token::encode(&JoinToken {
            cluster: config.cluster.name.clone(),
            node: self.node.clone(),
            ca: pem::certificates(&trusted)?,
            certificate: pem::certificate(&pair.certificate)?,
            key: pem::key(&pair.key)?,
            doors: doors.cloned().collect(),
            address: there.address.clone(),
            revision: answer.members.as_ref().map_or(0, |members| members.revision),
        });
        let (node, address) = (&self.node, &there.address);
        print(&format!(
            "{node} is to be a new machine at {address}.\n{}\n\n",
            who(&answer)
        ))?;
        let how = match &self.out {
            Some(file) => {
                folders::file(file, 0o600, &format!("{token}\n"))?;
                format!("holdfast join --file {}", file.display())
            }
            // As an argument it would be seen by all in the list of processes, and kept in the shell's history and sudo's log.
            None => format!("holdfast join --file -\n\nand give it this line:\n\n{token}"),
        };
        print(&format!(
            "On the new machine, as root, with the holdfast package installed and the address {address}:\n\n{how}\n\n\
             The token is the identity of {node}: whoever has it can be {node}. `holdfast status` shows how far its copy is.\n"
        ))?;
        Ok(())
    }
}
