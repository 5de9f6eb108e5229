//! What of the configuration changes while the daemon runs: where the nodes are, and the certificates. All else is read at a
//! start.

use anyhow::{Context as _, bail};
use holdfast_config::tls_files::{End, first_end};
use holdfast_config::{Cluster, Config, Node, edit};
use holdfast_proto::control::{Member, Members};
use holdfast_replicator::clock::unix_ms;
use holdfast_replicator::net::reach::Reach;
use holdfast_replicator::net::tls::Tls;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Live {
    now: watch::Sender<Arc<Current>>,
    file: Mutex<OnDisk>,
}

/// What the daemon goes by.
pub(super) struct Current {
    pub(super) config: Config,
    /// As the file says it; this node's own address takes effect at its next start.
    pub(super) cluster: Cluster,
    pub(super) tls: Tls,
    /// For those who make their TLS themselves.
    pub(super) pem: Pem,
    pub(super) certificate_end: Option<End>,
}

pub(super) struct Pem {
    pub(super) ca: Vec<u8>,
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// Of the files: as they were when they were looked at last, and why what they say isn't in use.
struct OnDisk {
    stamp: Stamp,
    fault: Option<(String, u64)>,
}

/// Inode, change time and length of each file; another one for every change.
type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

fn stamp(config: &Config) -> Stamp {
    let files = [&config.file, &config.tls.ca, &config.tls.cert, &config.tls.key];
    let of = |file: &&std::path::PathBuf| {
        let seen = std::fs::metadata(file).ok()?;
        Some((seen.ino(), seen.ctime(), seen.ctime_nsec(), seen.len()))
    };
    files.iter().map(of).collect()
}

impl Current {
    fn load(config: Config, cluster: Cluster) -> anyhow::Result<Self> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        let files = &config.tls;
        Ok(Self {
            pem: Pem {
                ca: read(&files.ca)?,
                cert: read(&files.cert)?,
                key: read(&files.key)?,
            },
            tls: Tls::load(&files.ca, &files.cert, &files.key)?,
            certificate_end: first_end(files),
            config,
            cluster,
        })
    }

    pub(super) fn own(&self) -> &Node {
        &self.config.cluster.nodes[self.config.this]
    }

    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.config.cluster.nodes.iter().find(|node| node.name == name)
    }

    pub(super) fn is_removed(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| node.removed)
    }

    /// This node's own address or ports that its file gives it and that it doesn't have yet.
    pub(super) fn to_move_to(&self) -> Option<&Node> {
        let wanted = &self.cluster.nodes[self.config.this];
        (wanted != self.own()).then_some(wanted)
    }

    pub(super) fn reach(&self) -> Reach {
        let peers = (1..).zip(&self.config.cluster.nodes);
        let peers = peers.filter(|(_, node)| !node.removed && node.name != self.own().name);
        Reach {
            places: peers.map(|(id, node)| (id, node.replication())).collect(),
            tls: self.tls.clone(),
        }
    }

    pub(super) fn members(&self) -> Members {
        Members {
            revision: self.cluster.revision,
            nodes: self.cluster.nodes.iter().map(member).collect(),
        }
    }
}

fn member(node: &Node) -> Member {
    Member {
        name: node.name.clone(),
        address: node.address.to_string(),
        replication_port: node.replication_port.into(),
        control_port: node.control_port.into(),
        removed: node.removed,
    }
}

impl Live {
    pub(super) fn new(config: Config) -> anyhow::Result<Self> {
        let file = OnDisk {
            stamp: stamp(&config),
            fault: None,
        };
        let cluster = config.cluster.clone();
        let (now, _) = watch::channel(Arc::new(Current::load(config, cluster)?));
        Ok(Self {
            now,
            file: Mutex::new(file),
        })
    }

    pub(super) fn now(&self) -> Arc<Current> {
        self.now.borrow().clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Arc<Current>> {
        self.now.subscribe()
    }

    /// Why what the files say isn't in use, and since when.
    pub(super) fn fault(&self) -> Option<(String, u64)> {
        self.file().fault.clone()
    }

    fn file(&self) -> std::sync::MutexGuard<'_, OnDisk> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the files from time to time, for as long as the daemon lives.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let live = self.clone();
            // A disk that hangs must not take a thread that others need.
            let _ = tokio::task::spawn_blocking(move || live.look()).await;
        }
    }

    fn look(&self) {
        let before = self.now();
        let mut file = self.file();
        let stamp = stamp(&before.config);
        if file.stamp == stamp {
            return;
        }
        file.stamp = stamp;
        match load(&before) {
            Ok(next) => {
                tracing::info!(
                    file = %before.config.file.display(),
                    revision = next.cluster.revision,
                    certificates_until = next.certificate_end.as_ref().map(|end| end.day.as_str()),
                    "addresses and certificates were read anew; whatever else has changed there takes effect at the next start"
                );
                file.fault = None;
                self.now.send_replace(Arc::new(next));
            }
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(
                    why,
                    "the configuration isn't taken over; this daemon goes on with what it has"
                );
                file.fault = Some((why, unix_ms()));
            }
        }
    }

    /// Writes these places into the file and goes by them.
    pub(super) fn change(&self, change: impl FnOnce(&mut Cluster) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let file = self.now().config.file.clone();
        {
            let _one_at_a_time = self.file();
            let mut cluster = holdfast_config::load_without_keys(&file)?.cluster;
            change(&mut cluster)?;
            let text = edit::with_places(&file, &cluster)?;
            if std::fs::read(&file).is_ok_and(|had| had == text.as_bytes()) {
                return Ok(());
            }
            edit::replace(&file, &text).with_context(|| format!("writing {}", file.display()))?;
        }
        self.look();
        match self.fault() {
            Some((why, _)) => bail!("{} was changed, and can't be used: {why}", file.display()),
            None => Ok(()),
        }
    }

    /// What a peer says of all nodes is newer than what is known here.
    pub(super) fn adopt(&self, from: &str, members: &Members) {
        let adopted = self.change(|cluster| {
            if members.revision <= cluster.revision {
                return Ok(());
            }
            take(cluster, members)
        });
        match adopted {
            Ok(()) => tracing::info!(
                from,
                revision = members.revision,
                "took over the nodes' addresses from a peer"
            ),
            Err(error) => {
                let why = format!("taking over the nodes' addresses from {from}: {error:#}");
                let mut file = self.file();
                // Asked every second.
                if file.fault.as_ref().is_none_or(|(known, _)| *known != why) {
                    tracing::error!(why, "this daemon goes on with the addresses that it has");
                    file.fault = Some((why, unix_ms()));
                }
            }
        }
    }
}

/// The same nodes in the same order, at other places.
fn take(cluster: &mut Cluster, members: &Members) -> anyhow::Result<()> {
    let names = |nodes: &[Member]| {
        nodes
            .iter()
            .map(|node| node.name.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let same = cluster.nodes.len() == members.nodes.len()
        && cluster
            .nodes
            .iter()
            .zip(&members.nodes)
            .all(|(own, theirs)| own.name == theirs.name);
    anyhow::ensure!(same, "they are {} there", names(&members.nodes));
    for (own, theirs) in cluster.nodes.iter_mut().zip(&members.nodes) {
        *own = node(theirs)?;
    }
    cluster.revision = members.revision;
    Ok(())
}

/// Checked as a part of the whole file before it is used.
pub(super) fn node(member: &Member) -> anyhow::Result<Node> {
    let Member { name, address, .. } = member;
    let port = |port: u32| u16::try_from(port).with_context(|| format!("{port} is no port"));
    Ok(Node {
        address: address
            .parse()
            .with_context(|| format!("{address:?} is no IP address"))?,
        replication_port: port(member.replication_port)?,
        control_port: port(member.control_port)?,
        removed: member.removed,
        name: name.clone(),
    })
}

fn load(before: &Current) -> anyhow::Result<Current> {
    let found = holdfast_config::load(&before.config.file)?;
    let known = &before.config;
    let names = |config: &Config| {
        config
            .cluster
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .collect::<Vec<_>>()
    };
    anyhow::ensure!(
        names(&found) == names(known) && found.this == known.this && found.cluster.id == known.cluster.id,
        "{}: names of nodes, their order and the cluster's id don't change while the daemon runs",
        known.file.display()
    );
    let mut config = known.clone();
    let own = known.cluster.nodes[known.this].clone();
    config.cluster = found.cluster.clone();
    config.cluster.nodes[known.this] = own;
    config.tls = found.tls;
    Current::load(config, found.cluster)
}
