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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const ADOPT_AGAIN: Duration = Duration::from_secs(10);
/// No operator comes near it.
pub(super) const REVISION_MAX: u64 = 1 << 32;

pub(super) struct Live {
    now: watch::Sender<Arc<Current>>,
    /// The files as they were when they were looked at last. Held while they are read or written, which may take long.
    seen: Mutex<Stamp>,
    /// Why what they say isn't in use, and since when. Held for a moment.
    fault: Mutex<Option<(String, u64)>>,
    /// Why what a peer says isn't taken over, and since when.
    deaf: Mutex<Option<(String, u64)>>,
    adopting: AtomicBool,
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
        let seen = Mutex::new(stamp(&config));
        let cluster = config.cluster.clone();
        let (now, _) = watch::channel(Arc::new(Current::load(config, cluster)?));
        Ok(Self {
            now,
            seen,
            fault: Mutex::default(),
            deaf: Mutex::default(),
            adopting: AtomicBool::new(false),
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
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why what a peer says of the nodes' places isn't taken over, and since when.
    pub(super) fn deaf(&self) -> Option<(String, u64)> {
        self.deaf.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seen(&self) -> MutexGuard<'_, Stamp> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.look_at(&mut self.seen());
    }

    fn look_at(&self, seen: &mut Stamp) {
        let before = self.now();
        let stamp = stamp(&before.config);
        // Another path, or a certificate that isn't valid yet, shows in no stamp.
        if *seen == stamp && self.fault().is_none() {
            return;
        }
        *seen = stamp;
        match load(&before) {
            Ok(next) => {
                tracing::info!(
                    file = %before.config.file.display(),
                    revision = next.cluster.revision,
                    certificates_until = next.certificate_end.as_ref().map(|end| end.day.as_str()),
                    "addresses and certificates were read anew; whatever else has changed there takes effect at the next start"
                );
                set(&self.fault, None);
                // Somebody may have put by hand what couldn't be taken over.
                set(&self.deaf, None);
                self.now.send_replace(Arc::new(next));
            }
            Err(error) => {
                let why = format!("{error:#}");
                if set(&self.fault, Some(why.clone())) {
                    tracing::error!(
                        why,
                        "the configuration isn't taken over; this daemon goes on with what it has"
                    );
                }
            }
        }
    }

    /// Writes these places into the file and goes by them.
    pub(super) fn change(&self, change: impl FnOnce(&mut Cluster) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let file = self.now().config.file.clone();
        let mut one_at_a_time = self.seen();
        // It would take effect when that is mended, which may be days from now.
        if let Some((why, _)) = self.fault() {
            bail!("nothing was changed, for the configuration or the certificates can't be used as they are: {why}");
        }
        let mut cluster = holdfast_config::load_without_keys(&file)?.cluster;
        change(&mut cluster)?;
        let text = edit::with_places(&file, &cluster)?;
        let had = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        if had == text {
            return Ok(());
        }
        edit::replace(&file, &text).with_context(|| format!("writing {}", file.display()))?;
        self.look_at(&mut one_at_a_time);
        let Some((why, _)) = self.fault() else { return Ok(()) };
        edit::replace(&file, &had).with_context(|| format!("writing {} as it was", file.display()))?;
        self.look_at(&mut one_at_a_time);
        bail!(
            "{} is as it was: with the change it can't be used: {why}",
            file.display()
        )
    }

    /// What a peer says of all nodes is newer than what is known here. One at a time, and after a failure not at once again.
    pub(super) fn adopt(&self, from: &str, members: &Members) {
        if self.adopting.swap(true, Ordering::AcqRel) {
            return;
        }
        self.adopt_now(from, members);
        if self.deaf().is_some() {
            std::thread::park_timeout(ADOPT_AGAIN);
        }
        self.adopting.store(false, Ordering::Release);
    }

    fn adopt_now(&self, from: &str, members: &Members) {
        let adopted = self.change(|cluster| {
            if members.revision <= cluster.revision {
                return Ok(());
            }
            take(cluster, members)
        });
        match adopted {
            Ok(()) if self.now().cluster.revision >= members.revision => {
                set(&self.deaf, None);
                tracing::info!(
                    from,
                    revision = members.revision,
                    "took over the nodes' addresses from a peer"
                );
            }
            Ok(()) => {}
            Err(error) => {
                let why = format!("{error:#}");
                // Asked every second.
                if set(&self.deaf, Some(why.clone())) {
                    tracing::error!(
                        from,
                        why,
                        "the nodes' addresses aren't taken over; this daemon goes on with those that it has"
                    );
                }
            }
        }
    }
}

/// Whether that is new.
fn set(known: &Mutex<Option<(String, u64)>>, why: Option<String>) -> bool {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let is_new = known.as_ref().map(|(known, _)| known) != why.as_ref();
    if is_new {
        *known = why.map(|why| (why, unix_ms()));
    }
    is_new
}

/// The same nodes in the same order, at other places.
fn take(cluster: &mut Cluster, members: &Members) -> anyhow::Result<()> {
    anyhow::ensure!(members.revision < REVISION_MAX, "no revision is {}", members.revision);
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
