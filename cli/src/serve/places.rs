//! Changes where the nodes are, in order: refused where it would cut off what is in use, written into this node's configuration
//! file, and waited for until the others have taken it over.

use super::live;
use super::peers::Peers;
use super::shared::Shared;
use holdfast_config::Cluster;
use holdfast_proto::control::change_request::Change;
use holdfast_proto::control::places_server::Places;
use holdfast_proto::control::{ChangeAnswer, ChangeRequest, Member, Members, NodeStatusRequest, Role};
use holdfast_replicator::clock::boottime_ms;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Each looks once a second at what its peers have.
const TAKEN_OVER_MS: u64 = 5_000;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longer than a follower takes to hear of a new leader.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct PlacesService {
    pub(super) shared: Arc<Shared>,
    pub(super) peers: Arc<Peers>,
}

#[tonic::async_trait]
impl Places for PlacesService {
    async fn change(&self, request: Request<ChangeRequest>) -> Result<Response<ChangeAnswer>, Status> {
        let request = request.into_inner();
        let change = request.change();
        let member = request.member.unwrap_or_default();
        self.peers.refresh(&self.shared).await;
        if self.refuse(&member.name, change).is_err() {
            // Right after a switch the others may still name the active node of before.
            tokio::time::sleep(SETTLED_AFTER).await;
            self.peers.refresh(&self.shared).await;
            self.refuse(&member.name, change)?;
        }
        // As they are reached now: one that moves is to hear of it where it still is.
        let gone = |name: &str| name == member.name && change != Change::Move;
        let peers = self.peers.controls().into_iter().filter(|(name, _)| !gone(name));
        let peers: Vec<_> = peers.collect();
        let newest = self.shared.newest_revision();
        let shared = self.shared.clone();
        let changing = move || {
            shared.live.change(|cluster| {
                apply(cluster, &member, change)?;
                cluster.revision = cluster.revision.max(newest) + 1;
                Ok(())
            })
        };
        let changed = tokio::task::spawn_blocking(changing).await;
        let changed = changed.map_err(|panic| Status::internal(panic.to_string()))?;
        changed.map_err(|error| Status::failed_precondition(format!("{error:#}")))?;
        let members = self.shared.live.now().members();
        tracing::info!(
            revision = members.revision,
            ?change,
            "an operator changed where the nodes are"
        );
        let (mut took, mut not_yet) = (vec![self.shared.node().name.clone()], Vec::new());
        let until_ms = boottime_ms() + TAKEN_OVER_MS;
        for (name, client) in peers {
            match taken_over(client, &members, until_ms).await {
                Ok(()) => took.push(name),
                Err(why) => not_yet.push(format!("{name}: {why}")),
            }
        }
        Ok(Response::new(ChangeAnswer {
            members: Some(members),
            took,
            not_yet,
        }))
    }
}

impl PlacesService {
    fn refuse(&self, name: &str, change: Change) -> Result<(), Status> {
        let refuse = |why: String| Err(Status::failed_precondition(why));
        let current = self.shared.live.now();
        let Some(node) = current.node(name) else {
            let names = current.config.cluster.nodes.iter().map(|node| node.name.clone());
            let names = names.collect::<Vec<_>>().join(", ");
            return refuse(format!("no node is named {name:?}: they are {names}"));
        };
        // Of one that is gone nobody will take them over.
        let (members, revision) = (self.shared.members(), current.cluster.revision);
        if members.iter().any(|other| self.has_newer(other, revision)) {
            return refuse("this node hasn't taken over the newest addresses of the nodes yet: try again in a moment, or on another node; `holdfast status` says why if it can't".into());
        }
        let is_own = node.name == current.own().name;
        let heard = self.shared.heard(name);
        // Whoever is cut off from it here may still be led by it.
        let is_followed = members.iter().any(|other| other != name && self.follows(other, name));
        let is_active = self.shared.active().as_deref() == Some(name) || is_followed;
        match (change, self.in_the_way(name)) {
            (Change::Unspecified, _) => refuse("what shall be changed isn't said".into()),
            (Change::Move, _) if is_active => refuse(format!(
                "{name} is active, and would be cut off: `holdfast switchover` first"
            )),
            (Change::Move, _) if node.removed => refuse(format!(
                "{name} was removed: `holdfast node replace {name}` takes one of that name in again"
            )),
            (Change::Move, Some(why)) => refuse(format!(
                "until {name} is at its new address both others are needed, and {why}: bring it back first"
            )),
            (Change::Replace | Change::Remove, _) if is_own => {
                refuse(format!("{name} is this very node: call it on another one"))
            }
            (Change::Replace | Change::Remove, _) if is_active || self.is_connected(name) => refuse(format!(
                "{name} doesn't answer questions, but it still takes part in the replication{}: stop it first",
                if is_active { ", and is active" } else { "" }
            )),
            (Change::Replace | Change::Remove, _) if heard.is_some() => refuse(format!(
                "{name} answers, so it isn't gone. If that is meant: stop it first (`systemctl stop holdfast vip-agent` there). To give it another address: `holdfast node move {name}`"
            )),
            (Change::Remove, Some(why)) => refuse(format!(
                "without {name} both others are needed, and {why}: bring it back first"
            )),
            (Change::Replace, _) if !self.shared.handle.is_recovering() && !self.others_are_here(name) => {
                refuse(format!(
                    "all that go on have to know that {name} is another machine from now on, and one of them doesn't answer: bring it back first"
                ))
            }
            (Change::Move | Change::Replace | Change::Remove, _) => Ok(()),
        }
    }

    /// Replication reaches it, whatever its control port does.
    fn is_connected(&self, name: &str) -> bool {
        let (view, heard) = (self.shared.view(), self.shared.heard(name));
        let peer = view.peers.iter().find(|(id, _)| self.shared.name_of(**id) == name);
        heard.is_none() && peer.is_some_and(|(_, peer)| peer.up)
    }

    fn has_newer(&self, node: &str, revision: u64) -> bool {
        let members = self.shared.heard(node).and_then(|status| status.members);
        members.is_some_and(|members| members.revision > revision)
    }

    /// One that is being copied names its source, which may be gone, and follows nobody.
    fn follows(&self, node: &str, leader: &str) -> bool {
        let heard = self.shared.heard(node).filter(|status| status.copy.is_none());
        heard.is_some_and(|status| status.leader == leader)
    }

    /// Why one of the others can't do without this one.
    fn in_the_way(&self, name: &str) -> Option<String> {
        let (own, members) = (&self.shared.node().name, self.shared.members());
        let mut others = members.iter().filter(|other| *other != name && *other != own);
        others.find_map(|other| {
            let why = match self.shared.heard(other) {
                None => "doesn't answer",
                Some(status) if status.copy.is_some() => "is still being copied",
                Some(status) if matches!(status.role(), Role::Halted | Role::Starting) => {
                    "takes no part yet, or any more"
                }
                Some(status) if status.forgetful => "doesn't vote yet",
                Some(_) => return None,
            };
            Some(format!("{other} {why}"))
        })
    }

    fn others_are_here(&self, name: &str) -> bool {
        let others = self.shared.members();
        others.iter().all(|other| other == name || self.shared.is_here(other))
    }
}

fn apply(cluster: &mut Cluster, member: &Member, change: Change) -> anyhow::Result<()> {
    let node = cluster.nodes.iter_mut().find(|node| node.name == member.name);
    let node = node.ok_or_else(|| anyhow::anyhow!("no node is named {:?} in the configuration file", member.name))?;
    if change == Change::Remove {
        node.removed = true;
        return Ok(());
    }
    let had = node.clone();
    let or = |wanted: u32, had: u16| if wanted == 0 { had.into() } else { wanted };
    let address = Some(member.address.clone()).filter(|address| !address.is_empty());
    *node = live::node(&Member {
        name: had.name.clone(),
        address: address.unwrap_or_else(|| had.address.to_string()),
        replication_port: or(member.replication_port, had.replication_port),
        control_port: or(member.control_port, had.control_port),
        removed: false,
    })?;
    Ok(())
}

/// None: not yet.
fn has_taken_over(known: Option<&Members>, members: &Members) -> Option<Result<(), String>> {
    let known = known.filter(|known| known.revision >= members.revision)?;
    if known.revision == members.revision && known.nodes != members.nodes {
        let why = "another change was made at the same moment, and it goes by that one: call this again";
        return Some(Err(why.into()));
    }
    Some(Ok(()))
}

async fn taken_over(mut client: super::peers::Control, members: &Members, until_ms: u64) -> Result<(), String> {
    loop {
        let asked = tokio::time::timeout(LOOK_EVERY * 5, client.get_node_status(NodeStatusRequest {})).await;
        let why = match asked {
            Ok(Ok(status)) => {
                let status = status.into_inner();
                if let Some(has) = has_taken_over(status.members.as_ref(), members) {
                    return has;
                }
                if status.role() == Role::CatchingUp && status.copy.is_some() {
                    "its store is being copied; it takes this over after that".to_owned()
                } else {
                    "it hasn't taken this over yet: `holdfast status` says why if it can't".to_owned()
                }
            }
            Ok(Err(status)) => format!("{}; it takes this over when it meets one that has it", status.message()),
            Err(_) => "no answer; it takes this over when it meets one that has it".to_owned(),
        };
        if boottime_ms() >= until_ms {
            return Err(why);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_change_of_the_same_moment_isn_t_this_one() {
        let members = |revision, address: &str| Members {
            revision,
            nodes: vec![Member {
                name: "n1".into(),
                address: address.into(),
                ..Member::default()
            }],
        };
        let ours = members(5, "10.0.0.1");
        let has = |known: Option<&Members>| has_taken_over(known, &ours);
        assert_eq!(has(None), None);
        assert_eq!(has(Some(&members(4, "10.0.0.1"))), None);
        assert_eq!(has(Some(&ours)), Some(Ok(())));
        // It knows ours, and one after it.
        assert_eq!(has(Some(&members(6, "10.0.0.9"))), Some(Ok(())));
        let why = has(Some(&members(5, "10.0.0.9"))).unwrap().unwrap_err();
        assert!(why.contains("call this again"), "{why}");
    }
}
