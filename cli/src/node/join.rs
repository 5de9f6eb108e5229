//! `holdfast join`: from a token to a running node. Nothing is written before all is known to be right.

use std::io::{BufRead, ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use holdfast_config::Config;
use holdfast_config::edit::{self, Elsewhere};
use holdfast_proto::control::control_client::ControlClient;
use holdfast_proto::control::{ConfigurationRequest, JoinToken, Member};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{pem, token};
use crate::error::Error;
use crate::init::folders::file;
use crate::local::block_on;
use crate::output::{complain, print};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Join {
    /// What `holdfast node replace` printed on another node
    #[arg(required_unless_present = "file")]
    token: Option<String>,
    /// The file that it is in; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    file: Option<PathBuf>,
    /// Where the configuration and the keys are to be
    #[arg(long, value_name = "DIR", default_value = "/etc/holdfast")]
    into: PathBuf,
    /// Where this node keeps its replica, if elsewhere than the others
    #[arg(long, value_name = "PATH")]
    store: Option<String>,
    /// Where it mounts the file system, if elsewhere
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
    /// The daemon's socket, if elsewhere
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Don't start the services
    #[arg(long)]
    no_start: bool,
}

/// What is to be in the folder.
struct Files {
    config: String,
    ca: String,
    certificate: String,
    key: String,
}

impl Join {
    pub fn run(self) -> anyhow::Result<()> {
        let token = token::decode(&self.text()?)?;
        let into = std::path::absolute(&self.into).with_context(|| self.into.display().to_string())?;
        for name in ["holdfast.toml", "ca.pem", "node.pem", "node.key"] {
            let path = into.join(name);
            ensure!(
                !path.exists(),
                "{} exists: this machine is a node already, or was one. Move what is in {} away first",
                path.display(),
                into.display()
            );
        }
        let own: IpAddr = token.address.parse().context("the token's address of this machine")?;
        is_here(&token.node, own)?;
        let text = configuration(&token, own)?;
        let (text, config) = edit::for_node(&text, &token.node, &into.join("holdfast.toml"), &self.elsewhere())?;
        let found = config.cluster.nodes[config.this].address;
        ensure!(
            found == own,
            "{} was moved on to {found} since this token for {own} was made: take the token of the last `holdfast node replace {}`",
            token.node,
            token.node
        );
        is_free(&config.store.path)?;
        let files = Files {
            config: text,
            ca: token.ca.iter().map(|der| pem::of_certificate(der)).collect(),
            certificate: pem::of_certificate(&token.certificate),
            key: pem::of_key(&token.key),
        };
        write(&into, &files)?;
        print(&format!(
            "{} of cluster {}: the configuration is in {}\n",
            token.node,
            config.cluster.name,
            into.display()
        ))?;
        self.start(&config)
    }

    fn elsewhere(&self) -> Elsewhere {
        Elsewhere {
            store: self.store.clone(),
            mount: self.mount.clone(),
            socket: self.socket.clone(),
        }
    }

    fn text(&self) -> anyhow::Result<String> {
        let Some(file) = &self.file else {
            return Ok(self.token.clone().unwrap_or_default());
        };
        let mut text = String::new();
        let read = if file == Path::new("-") {
            pasted(&mut std::io::stdin().lock(), &mut text)
        } else {
            std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
        };
        read.with_context(|| format!("reading the token from {}", file.display()))?;
        Ok(text)
    }

    fn start(&self, config: &Config) -> anyhow::Result<()> {
        const START: [&str; 5] = ["systemctl", "enable", "--now", "holdfast", "vip-agent"];
        let words = START.join(" ");
        let by_hand =
            self.no_start || self.into != Path::new("/etc/holdfast") || !Path::new("/run/systemd/system").exists();
        if by_hand {
            print(&format!(
                "Next: `{words}`, or what starts `holdfast serve --config {}` here. It gets its copy by itself: `holdfast status --watch`.\n",
                config.file.display()
            ))?;
            return Ok(());
        }
        complain(&words);
        let status = Command::new(START[0])
            .args(&START[1..])
            .status()
            .context("starting systemctl")?;
        ensure!(
            status.success(),
            "`{words}` failed ({status}): `journalctl -u holdfast -u vip-agent` says why. The configuration is in place: start them when that is mended"
        );
        print("Started. It gets its copy by itself: `holdfast status --watch`.\n")?;
        Ok(())
    }
}

/// From the first of the nodes that answers, as its own.
fn configuration(token: &JoinToken, own: IpAddr) -> anyhow::Result<String> {
    let mut why = Vec::new();
    for door in &token.doors {
        match block_on(async { Ok(ask(token, door, own).await) })? {
            Ok(text) => return Ok(text),
            Err(error) => why.push(format!("{} ({}): {error:#}", door.name, door.address)),
        }
    }
    bail!(
        "no node of cluster {} gives its configuration:\n  {}",
        token.cluster,
        why.join("\n  ")
    )
}

async fn ask(token: &JoinToken, door: &Member, own: IpAddr) -> anyhow::Result<String> {
    let ca: String = token.ca.iter().map(|der| pem::of_certificate(der)).collect();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(
            pem::of_certificate(&token.certificate),
            pem::of_key(&token.key),
        ))
        .domain_name(&door.name);
    let address: IpAddr = door.address.parse().context("the token's address of it")?;
    let port = u16::try_from(door.control_port).context("the token's port of it")?;
    let endpoint = Endpoint::from_shared(format!("https://{}", SocketAddr::new(address, port)))?
        .tls_config(tls)?
        // Who calls from elsewhere isn't taken for the node.
        .local_address(Some(own))
        .connect_timeout(ANSWER_WITHIN);
    let asked = async {
        let mut client = ControlClient::new(endpoint.connect().await?);
        let answer = client.get_configuration(ConfigurationRequest {}).await;
        let answer = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
        let answer = answer.into_inner();
        ensure!(
            answer.revision >= token.revision,
            "it hasn't taken over yet where the new node is to be; try again in a few seconds"
        );
        anyhow::Ok(answer.text)
    };
    tokio::time::timeout(ANSWER_WITHIN, asked)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {} s", ANSWER_WITHIN.as_secs()))?
}

/// The daemon binds it.
fn is_here(node: &str, address: IpAddr) -> anyhow::Result<()> {
    match TcpListener::bind((address, 0)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => bail!(
            "this machine hasn't the address {address}, where the cluster looks for {node}: give it that address, or name the right one with `holdfast node replace {node} --addr` and take its token"
        ),
        Err(error) => Err(error).with_context(|| format!("binding {address}")),
    }
}

/// A store that is there belongs to somebody: it isn't written over, and not taken for this node's.
fn is_free(store: &Path) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(store) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading the store's folder {}", store.display()))?,
    };
    for entry in entries {
        let name = entry.with_context(|| store.display().to_string())?.file_name();
        ensure!(
            name == "lost+found",
            "the store's folder {} isn't empty ({} is in it): a new node begins with an empty one, move that away first",
            store.display(),
            name.display()
        );
    }
    Ok(())
}

/// Up to where it is a whole token, which lines may be broken in: nobody should have to know how a terminal's input ends.
/// A line without anything ends what isn't one.
fn pasted(from: &mut impl BufRead, text: &mut String) -> std::io::Result<usize> {
    loop {
        let before = text.len();
        let is_end = from.read_line(text)? == 0;
        let is_blank = text[before..].trim().is_empty() && !text.trim().is_empty();
        if is_end || is_blank || token::decode(text).is_ok() {
            return Ok(text.len());
        }
    }
}

/// All of them, and checked as the daemon will; or none.
fn write(into: &Path, files: &Files) -> anyhow::Result<()> {
    std::fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
    let all = [
        ("ca.pem", 0o644, &files.ca),
        ("node.pem", 0o644, &files.certificate),
        ("node.key", 0o600, &files.key),
        ("holdfast.toml", 0o644, &files.config),
    ];
    let mut written = Vec::new();
    let write = || -> anyhow::Result<()> {
        for (name, mode, text) in all {
            let path = into.join(name);
            let made = file(&path, mode, text);
            // One that was there a moment later is another `join`'s.
            let is_theirs =
                matches!(&made, Err(Error::File { source, .. }) if source.kind() == ErrorKind::AlreadyExists);
            if !is_theirs {
                written.push(path);
            }
            made?;
        }
        holdfast_config::load(&into.join("holdfast.toml"))?;
        Ok(())
    };
    let outcome = { write }();
    if outcome.is_err() {
        for path in written {
            let _ = std::fs::remove_file(path);
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_ends_with_the_token_or_a_blank_line() {
        let whole = token::encode(&JoinToken {
            node: "n2".into(),
            key: vec![7; 200],
            ..JoinToken::default()
        });
        let broken = format!("\n{}\n{}\nrm -r /\n", &whole[..60], &whole[60..]);
        let (mut from, mut text) = (broken.as_bytes(), String::new());
        pasted(&mut from, &mut text).unwrap();
        assert_eq!(token::decode(&text).unwrap().node, "n2");
        assert_eq!(from, b"rm -r /\n");
        let (mut from, mut text) = ("holdfast-join-1.abc\n\nmore\n".as_bytes(), String::new());
        pasted(&mut from, &mut text).unwrap();
        assert_eq!(text.trim(), "holdfast-join-1.abc");
    }
}
