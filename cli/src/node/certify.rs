//! `holdfast node certify`: a new key and certificate, in the place of those that a node has, or in a folder for another node.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use holdfast_config::tls_files;

use super::change::Here;
use crate::authority::{Authority, Pair};
use crate::clock::Clock;
use crate::init::folders::file;
use crate::output::print;

#[derive(Args)]
pub struct Certify {
    /// The folder `ca` that `holdfast init` made, with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Another node: its files go into --out
    #[arg(long, value_name = "NAME", requires = "out")]
    node: Option<String>,
    /// Write node.pem and node.key into this folder instead of in the place of this node's
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    here: Here,
}

impl Certify {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.here.config()?;
        let now = Clock::read().now_unix_ms;
        let own = &config.cluster.nodes[config.this].name;
        let node = self.node.as_ref().unwrap_or(own);
        if !config.cluster.nodes.iter().any(|known| known.name == *node) {
            bail!("no node is named {node:?} in {}", config.file.display());
        }
        let pair = Authority::load(&self.ca, now)?.certify(node)?;
        if let Some(why) = tls_files::refusal(&config.tls.ca, &pair.certificate, node, now) {
            bail!(
                "a certificate by the CA in {} isn't accepted with {}: {why}; name this cluster's CA with --ca",
                self.ca.display(),
                config.tls.ca.display()
            );
        }
        let Some(out) = &self.out else {
            in_place(&config.tls.cert, &config.tls.key, &pair)?;
            print(&format!(
                "{node} has a new certificate in {}. A running daemon uses it within a second, without a restart; connections that stand go on.\n",
                config.tls.cert.display()
            ))?;
            return Ok(());
        };
        std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        file(&out.join("node.key"), 0o600, &pair.key)?;
        file(&out.join("node.pem"), 0o644, &pair.certificate)?;
        print(&format!(
            "The key and the certificate for {node} are in {}. Put them in the place of those that its configuration names, the key first: \
             its daemon uses them within a second, without a restart.\n",
            out.display()
        ))?;
        Ok(())
    }
}

/// Both are written before either takes its place. Between the two the daemon finds that they don't fit, and looks again.
fn in_place(cert: &Path, key: &Path, pair: &Pair) -> anyhow::Result<()> {
    let beside = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        PathBuf::from(name)
    };
    let (new_key, new_cert) = (beside(key), beside(cert));
    for left_over in [&new_key, &new_cert] {
        let _ = std::fs::remove_file(left_over);
    }
    file(&new_key, 0o600, &pair.key)?;
    file(&new_cert, 0o644, &pair.certificate)?;
    let take = |new: &Path, place: &Path| {
        std::fs::rename(new, place).with_context(|| format!("putting {} in its place", place.display()))
    };
    take(&new_key, key)?;
    take(&new_cert, cert)?;
    for path in [key, cert] {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("syncing {}", folder.display()))?;
    }
    Ok(())
}
