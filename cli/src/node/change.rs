//! Asks the daemon for a change of places, and says who goes by it. `move` and `remove` are no more than that.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use holdfast_config::Config;
use holdfast_proto::control::change_request::Change;
use holdfast_proto::control::places_client::PlacesClient;
use holdfast_proto::control::{ChangeAnswer, ChangeRequest, Member};

use crate::error::Error;
use crate::init::parse;
use crate::local::{Daemon, block_on};
use crate::output::print;

/// The daemon waits for its peers.
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Args)]
pub struct Move {
    /// The node's name
    node: String,
    /// Its new static address; ADDR:PORT sets the replication port, and the next port for control
    #[arg(long, value_name = "ADDR[:PORT]")]
    addr: String,
    #[command(flatten)]
    here: Here,
}

#[derive(Args)]
pub struct Remove {
    /// The node's name
    node: String,
    #[command(flatten)]
    here: Here,
}

/// The node on which a command is called.
#[derive(Args)]
pub(super) struct Here {
    /// This node's configuration
    #[arg(long, value_name = "FILE", default_value = holdfast_config::defaults::CONFIG_FILE)]
    pub(super) config: PathBuf,
}

impl Here {
    pub(super) fn config(&self) -> Result<Config, Error> {
        Ok(holdfast_config::load_without_keys(&self.config)?)
    }
}

impl Move {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.here.config()?;
        let answer = change(&config, place(&self.node, Some(&self.addr))?, Change::Move)?;
        let there = find(&answer, &self.node)?;
        print(&format!(
            "{} is to be at {}.\n{}\nNext, on {}: give the machine that address, then `systemctl restart holdfast`. Until then it is \
             not reached, and the other two go on. `holdfast status` shows when it is back; only then move the next one.\n",
            self.node,
            there.address,
            who(&answer),
            self.node
        ))?;
        Ok(())
    }
}

impl Remove {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.here.config()?;
        let answer = change(&config, place(&self.node, None)?, Change::Remove)?;
        print(&format!(
            "{} is taken out.\n{}\nTwo nodes are left, and both are needed. `holdfast node replace {}` takes a machine in for it.\n",
            self.node,
            who(&answer),
            self.node
        ))?;
        Ok(())
    }
}

/// As it is written on the command line; without an address, as it was.
pub(super) fn place(node: &str, addr: Option<&str>) -> Result<Member, Error> {
    let Some(addr) = addr else {
        return Ok(Member {
            name: node.to_owned(),
            ..Member::default()
        });
    };
    let parsed = parse::node(&format!("{node}={addr}")).map_err(|_| Error::Argument {
        text: addr.to_owned(),
        right: "write --addr ADDRESS or ADDRESS:PORT, such as 10.0.0.131",
    })?;
    let has_port = addr.parse::<std::net::IpAddr>().is_err();
    let port = |port: u16| if has_port { port.into() } else { 0 };
    Ok(Member {
        name: parsed.name,
        address: parsed.address.to_string(),
        replication_port: port(parsed.replication_port),
        control_port: port(parsed.control_port),
        removed: false,
    })
}

pub(super) fn change(config: &Config, member: Member, change: Change) -> anyhow::Result<ChangeAnswer> {
    let asked = async {
        let daemon = Daemon::connect(config.socket.clone()).await?;
        let mut places = PlacesClient::new(daemon.channel());
        let request = ChangeRequest {
            member: Some(member),
            change: change.into(),
        };
        daemon.answer(WITHIN, places.change(request)).await
    };
    Ok(block_on(asked)?)
}

pub(super) fn find<'a>(answer: &'a ChangeAnswer, node: &str) -> anyhow::Result<&'a Member> {
    let nodes = answer.members.iter().flat_map(|members| &members.nodes);
    let mut nodes = nodes.filter(|member| member.name == node);
    nodes.next().context("the daemon's answer doesn't name the node")
}

/// Who goes by it, one line; who doesn't, one line each.
pub(super) fn who(answer: &ChangeAnswer) -> String {
    let mut text = format!(
        "{} in use on {}.",
        if answer.not_yet.is_empty() {
            "It is"
        } else {
            "So far it is"
        },
        answer.took.join(", ")
    );
    for node in &answer.not_yet {
        text += &format!("\n  not yet on {node}");
    }
    text
}
