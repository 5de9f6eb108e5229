//! What the parts of the daemon share: configuration, the replicator's handle, the mount, the agent's last
//! report, what the peers said last.

use holdfast_config::{Config, Node};
use holdfast_fuse_mount::Mounted;
use holdfast_proto::control::{self as proto, AgentReport, NodeStatus};
use holdfast_replicator::clock::unix_ms;
use holdfast_replicator::dropped::Dropped;
use holdfast_replicator::roles::Role;
use holdfast_replicator::view::View;
use holdfast_replicator::{AgentFacts, Handle};
use holdfast_storage::types::{BLOCK, Ino};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::check::Divergence;
use super::live::{Live, REVISION_MAX};
use super::repair::{Damage, Healed, Scrubber};

pub(super) struct Shared {
    /// As it was at the start; see `live` for what changes.
    pub(super) config: Arc<Config>,
    pub(super) live: Arc<Live>,
    pub(super) handle: Handle,
    pub(super) started_ms: u64,
    inner: Mutex<Inner>,
    last_changed: OnceLock<String>,
    /// Looked for once for each time that something was dropped.
    dropped: Mutex<Option<(Dropped, String)>>,
    pub(super) scrubber: Scrubber,
    damage: Mutex<Damage>,
    divergence: Mutex<Option<Divergence>>,
    /// The node that doesn't hold the same as the two others, by the last comparison that could tell: this node's if it is active,
    /// else what the active one said last.
    odd_one_out: Mutex<Option<String>>,
    /// Why a copy of the store that this node needs isn't begun.
    no_copy: Mutex<Option<String>>,
}

/// Damaged blocks that one answer names.
const DAMAGE_NAMED: usize = 100;

/// Names in one sentence.
const FILES_NAMED: usize = 8;

#[derive(Default)]
pub(super) struct Inner {
    pub(super) mount: Option<(MountKind, Arc<Mounted>)>,
    pub(super) mount_fault: Option<(String, u64)>,
    /// The connected agent's last report; none while it isn't connected.
    pub(super) agent: Option<AgentReport>,
    pub(super) agent_gone_since: Option<u64>,
    /// Per peer's name: its last answer.
    pub(super) peers: BTreeMap<String, Heard>,
    /// Per peer's name: why it doesn't answer.
    pub(super) silent: BTreeMap<String, String>,
}

/// What a peer said.
#[derive(Clone)]
pub(super) struct Heard {
    pub(super) status: NodeStatus,
    /// For people.
    pub(super) unix_ms: u64,
    /// BOOTTIME, to tell old from new: the wall clock may step.
    pub(super) at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MountKind {
    Active,
    Standby,
}

impl Shared {
    pub(super) fn new(config: Arc<Config>, live: Arc<Live>, handle: Handle) -> Self {
        let inner = Inner {
            agent_gone_since: Some(unix_ms()),
            ..Inner::default()
        };
        Self {
            config,
            live,
            handle,
            started_ms: unix_ms(),
            inner: Mutex::new(inner),
            last_changed: OnceLock::new(),
            dropped: Mutex::default(),
            scrubber: Scrubber::default(),
            damage: Mutex::default(),
            divergence: Mutex::default(),
            odd_one_out: Mutex::default(),
            no_copy: Mutex::default(),
        }
    }

    /// Of all nodes that weren't removed.
    pub(super) fn members(&self) -> Vec<String> {
        let current = self.live.now();
        let nodes = current.config.cluster.nodes.iter();
        nodes
            .filter(|node| !node.removed)
            .map(|node| node.name.clone())
            .collect()
    }

    /// Where a peer says that the nodes are.
    pub(super) fn hear_members(self: &Arc<Self>, from: &str, theirs: Option<&proto::Members>) {
        let Some(theirs) = theirs.filter(|theirs| theirs.revision > self.live.now().cluster.revision) else {
            return;
        };
        let (shared, from, theirs) = (self.clone(), from.to_owned(), theirs.clone());
        tokio::task::spawn_blocking(move || shared.live.adopt(&from, &theirs));
    }

    /// The highest that this node or a peer has.
    pub(super) fn newest_revision(&self) -> u64 {
        let inner = self.inner();
        let theirs = inner.peers.values().filter_map(|heard| heard.status.members.as_ref());
        let sound = theirs
            .map(|members| members.revision)
            .filter(|revision| *revision < REVISION_MAX);
        let newest = sound.max().unwrap_or(0);
        newest.max(self.live.now().cluster.revision)
    }

    /// Whether a peer has these places, as far as it was heard; one that is out of reach and never was heard takes them over before
    /// it counts for anything.
    pub(super) fn goes_by(&self, peer: &str, places: &proto::Members) -> bool {
        let known = self.inner().peers.get(peer).map(|heard| heard.status.members.clone());
        match known {
            Some(theirs) => theirs.is_some_and(|theirs| theirs == *places),
            None => {
                let view = self.view();
                let mut peers = view.peers.iter();
                !peers.any(|(id, known)| self.name_of(*id) == peer && known.up)
            }
        }
    }

    /// Says it in the journal when it is another reason than before.
    pub(super) fn set_no_copy(&self, why: Option<String>) {
        let mut known = self.no_copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = why.as_ref().filter(|why| known.as_ref() != Some(why)) {
            tracing::info!(why, "a copy of the store isn't begun");
        }
        *known = why;
    }

    pub(super) fn no_copy(&self) -> Option<String> {
        self.no_copy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a peer said that answers.
    pub(super) fn heard(&self, peer: &str) -> Option<NodeStatus> {
        let inner = self.inner();
        let known = inner.peers.get(peer).filter(|_| !inner.silent.contains_key(peer));
        known.map(|heard| heard.status.clone())
    }

    pub(super) fn is_here(&self, node: &str) -> bool {
        node == self.node().name || self.heard(node).is_some()
    }

    pub(super) fn silent(&self, peer: &str, why: &str) {
        self.inner().silent.insert(peer.to_owned(), why.to_owned());
    }

    /// Held for a few assignments only, never across I/O or an await.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic under the lock")
    }

    pub(super) fn node(&self) -> &Node {
        &self.config.cluster.nodes[self.config.this]
    }

    pub(super) fn name_of(&self, id: u64) -> String {
        let node = usize::try_from(id)
            .ok()
            .and_then(|id| self.config.cluster.nodes.get(id.checked_sub(1)?));
        node.map_or_else(String::new, |node| node.name.clone())
    }

    /// Files that were changed last before this node's unclean stop, for people. Looked for once all that its log held then is
    /// applied, and until then whenever somebody asks: before, some have no names yet.
    pub(super) fn last_changed_files(&self) -> String {
        if self.handle.store().applied() < self.handle.last_before() {
            return self.find_last_changed();
        }
        self.last_changed.get_or_init(|| self.find_last_changed()).clone()
    }

    fn find_last_changed(&self) -> String {
        self.names(self.handle.last_changed())
    }

    /// Files of entries that were dropped: those that they made by the name alone, for the number may be another file's now.
    pub(super) fn dropped_files(&self, dropped: &Dropped) -> String {
        let mut known = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, names)) = known.as_ref().filter(|(of, _)| of == dropped) {
            return names.clone();
        }
        let changed = &dropped.changed;
        let made = changed.named.values().take(FILES_NAMED);
        let made = made.map(|name| format!("{:?}", String::from_utf8_lossy(name)));
        let (before, made): (Vec<Ino>, Vec<String>) = (
            changed
                .files
                .iter()
                .copied()
                .filter(|ino| !changed.named.contains_key(ino))
                .take(FILES_NAMED)
                .collect(),
            made.collect(),
        );
        let names = match (before.is_empty(), made.is_empty()) {
            (_, true) => self.names(&before),
            (true, false) => format!("names that were given: {}", made.join(", ")),
            (false, false) => format!("{}; names that were given: {}", self.names(&before), made.join(", ")),
        };
        *known = Some((dropped.clone(), names.clone()));
        names
    }

    /// The first few of these that are files.
    pub(super) fn names(&self, files: &[Ino]) -> String {
        let store = self.handle.store();
        let is_file = |ino: &&Ino| store.inode(**ino).is_ok_and(|inode| inode.is_file() && inode.nlink > 0);
        let files: Vec<_> = files.iter().filter(is_file).collect();
        let names: Vec<_> = files
            .iter()
            .filter_map(|ino| crate::paths::path(store, **ino).ok())
            .map(|path| format!("/{path}"))
            .take(FILES_NAMED)
            .collect();
        match (names.len(), files.len() - names.len()) {
            (0, 0) => "none that its log names".to_owned(),
            (0, more) => format!("{more}, none of which has a name any more"),
            (_, 0) => names.join(", "),
            (_, more) => format!("{}, and {more} more", names.join(", ")),
        }
    }

    /// Blocks of this node that were looked at, and what came of it.
    pub(super) fn healed(&self, healed: &Healed, blocks: &[(Ino, u64)]) {
        self.damage().note(healed, blocks);
    }

    pub(super) fn damage(&self) -> MutexGuard<'_, Damage> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn divergence(&self) -> Option<Divergence> {
        self.divergence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn odd_one_out(&self) -> Option<String> {
        self.odd_one_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_odd_one_out(&self, node: Option<&str>) {
        let mut known = self.odd_one_out.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != node {
            let nodes = (1..).zip(&self.config.cluster.nodes);
            let id = nodes.into_iter().find(|(_, of)| node == Some(&of.name));
            self.handle.odd_one_out(id.map(|(id, _)| id));
            *known = node.map(ToOwned::to_owned);
        }
    }

    /// A standby goes by what the active node says that it has found.
    pub(super) fn hear_odd_one_out(&self, from: &str, status: &NodeStatus) {
        let is_followed = self.view().leader.is_some_and(|leader| self.name_of(leader) == from);
        if is_followed && status.role() == proto::Role::Active && !self.is_active() {
            self.set_odd_one_out(Some(status.odd_one_out.as_str()).filter(|node| !node.is_empty()));
        }
    }

    /// What the last comparison found. Said once; since when it has been so is kept.
    pub(super) fn set_divergence(&self, found: Option<Divergence>) {
        let mut known = self.divergence.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, found) {
            (None, None) => {}
            (Some(_), None) => {
                tracing::info!("the replicas hold the same again");
                *known = None;
            }
            (Some(before), Some(found)) => {
                let since_unix_ms = before.since_unix_ms;
                *known = Some(Divergence { since_unix_ms, ..found });
            }
            (None, Some(found)) => {
                tracing::error!(groups = ?found.groups, odd_one_out = found.odd_one_out, "the replicas don't hold the same: `holdfast check` says where");
                *known = Some(found);
            }
        }
    }

    /// Each in one sentence.
    pub(super) fn still_damaged(&self) -> Vec<String> {
        let left = self.damage().left.clone();
        let words = |((ino, number), why): (&(Ino, u64), &String)| {
            let store = self.handle.store();
            let path = crate::paths::path(store, *ino).map_or_else(|_| String::new(), |path| format!(" (/{path})"));
            format!("inode {ino}{path}, block at {}: {why}", number * BLOCK)
        };
        left.iter().take(DAMAGE_NAMED).map(words).collect()
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.handle.view().latest()
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.view().role, Role::Active { .. })
    }

    /// Name of the node that serves, as far as this one knows.
    pub(super) fn active(&self) -> Option<String> {
        let view = self.view();
        match view.role {
            Role::Active { .. } | Role::HandOver { .. } => Some(self.node().name.clone()),
            _ => view.leader.map(|id| self.name_of(id)),
        }
    }

    /// After a forced recovery: this node or one that it follows is active again.
    pub(super) fn has_recovered(&self) -> bool {
        let leader = self.view().leader.map(|id| self.name_of(id));
        let inner = self.inner();
        let follows = leader.and_then(|name| inner.peers.get(&name));
        self.is_active() || follows.is_some_and(|heard| heard.status.role() == proto::Role::Active)
    }

    /// Raft ids of active nodes that say that this node can't come back by the log.
    pub(super) fn offers_of_copies(&self) -> Vec<u64> {
        let id = self.config.this as u64 + 1;
        let inner = self.inner();
        let nodes = (1..).zip(&self.config.cluster.nodes);
        nodes
            .filter(|(_, node)| !inner.silent.contains_key(&node.name))
            .filter_map(|(peer, node)| Some((peer, &inner.peers.get(&node.name)?.status)))
            .filter(|(_, status)| {
                (status.role() == proto::Role::Active || status.recovering) && status.needs_copy.contains(&id)
            })
            .map(|(peer, _)| peer)
            .collect()
    }

    pub(super) fn needs_agent(&self) -> bool {
        self.config.vip.is_some() || !self.config.units.is_empty()
    }

    /// Tells the loop what the agent says and whether this machine can mount.
    pub(super) fn tell_agent_facts(&self) {
        let inner = self.inner();
        let mountable = inner.mount_fault.is_none();
        let facts = match &inner.agent {
            None => AgentFacts {
                connected: false,
                eligible: mountable,
                ..AgentFacts::default()
            },
            Some(report) => AgentFacts {
                connected: true,
                eligible: report.eligible && mountable,
                released_term: report.released_term,
                vip_held: report.vip_held,
                units_healthy: report.units_healthy_unix_ms > 0,
                gives_up: report.gives_up,
                last_resort: report.last_resort && mountable,
            },
        };
        drop(inner);
        self.handle.agent(facts);
    }

    pub(super) async fn end_mount(&self) {
        let mount = self.inner().mount.take();
        if let Some((_, mount)) = mount {
            let _ = tokio::task::spawn_blocking(move || end(mount)).await;
        }
    }
}

/// Ends a mount that nobody else holds any more.
pub(super) fn end(mount: Arc<Mounted>) {
    if let Some(mount) = Arc::into_inner(mount) {
        mount.end();
    }
}
