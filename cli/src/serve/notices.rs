//! What an operator should know of this node: what is wrong, since when, what happens next, what to do.

use super::alike;
use super::repair::Damage;
use super::shared::Shared;
use super::status::CATCHING_UP;
use crate::words;
use holdfast_config::tls_files::End;
use holdfast_proto::control::{AgentReport, Members, Notice};
use holdfast_replicator::clock::unix_ms;
use holdfast_replicator::disk_health::Fault;
use holdfast_replicator::fitness::UNAPPLIED_MAX;
use holdfast_replicator::roles::Role;
use holdfast_replicator::view::View;

/// So long before a certificate runs out status says so.
const WARN_DAYS: i64 = 30;
const DAY_S: i64 = 24 * 60 * 60;
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;

fn notice(what: String, advice: &str, since_unix_ms: u64, serious: bool) -> Notice {
    Notice {
        what,
        advice: advice.into(),
        since_unix_ms,
        serious,
    }
}

/// A moment of CLOCK_BOOTTIME as wall time.
fn wall(moment_ms: u64, now_ms: u64) -> u64 {
    unix_ms().saturating_sub(now_ms.saturating_sub(moment_ms))
}

pub(super) fn of(
    shared: &Shared,
    view: &View,
    agent: Option<&AgentReport>,
    mount_fault: Option<(String, u64)>,
    agent_gone: Option<u64>,
    now: u64,
) -> Vec<Notice> {
    let mut found = Vec::new();
    if let Some(why) = &view.halted {
        found.push(notice(format!("stopped by itself: {why}"), "This node serves nothing until it is repaired: save its log output, mend its disk, restart the daemon; if that doesn't help, see `A new replica` in the runbook. The two others go on.", 0, true));
    }
    if shared.handle.is_recovering() {
        found.push(notice(
            "this replica was made the only one by `holdfast recover`, and waits for the first of its new peers".into(),
            "Nothing is served before one has a whole copy. Start a node with the configuration and the certificates of a lost one and an empty store; it gets its copy by itself.",
            0,
            true,
        ));
    }
    if let Some(trouble) = &view.disk {
        let advice = match trouble.fault {
            Fault::Unreadable(_) => {
                "It doesn't take the active role until its daemon is started anew: look at the disk first (kernel log, `smartctl`)."
            }
            Fault::Full => {
                "The others don't wait for it. Enlarge the volume that holds its store, or remove what else lies there (`df`, and `df -i`: inodes): it goes on by itself. While it waits it keeps the log; when that is full, too, it falls behind."
            }
            Fault::Mending => "It can take the active role again after half a minute without trouble.",
            Fault::Stalled | Fault::Slow(_) => {
                "While both others are here nobody waits for it, and if it is active it gives the role away by itself. Look at the disk (kernel log, `smartctl`) and at what else uses it."
            }
        };
        found.push(notice(
            trouble.fault.to_string(),
            advice,
            unix_ms().saturating_sub(trouble.for_ms),
            trouble.fault != Fault::Mending,
        ));
    }
    if let Some((why, since)) = mount_fault {
        found.push(notice(
            format!("the mount failed: {why}"),
            "It is tried again twice a second; until it works this node can't take over.",
            since,
            true,
        ));
    }
    if agent.is_none() && shared.needs_agent() {
        found.push(notice(
            "vip-agent isn't connected".into(),
            "Start it (`systemctl start vip-agent`): without it this node can't take over.",
            agent_gone.unwrap_or(0),
            true,
        ));
    }
    if let Role::Suspended { grace_until_ms, .. } = view.role {
        let left = grace_until_ms.saturating_sub(now);
        found.push(notice(
            format!("no majority answers: requests wait, the address is released, the PBX is left running for {:.1} s more", left as f64 / 1000.0),
            "If a majority is back by then everything goes on here; else this node stops the PBX, and the other side elects a new active node.",
            0,
            true,
        ));
    }
    if view.full && matches!(view.role, Role::Active { .. } | Role::Suspended { .. }) {
        found.push(notice(
            "the disk of this node or of the better standby is below its reserve, of bytes or of inodes: writes that add something answer \"no space left\""
                .into(),
            "Remove files, or enlarge the volume that holds the store (`df` and `df -i` on each node say which); deleting still works, and so does, with a log of 512 MiB or more, writing over what is there, for a while.",
            0,
            true,
        ));
    }
    if view.forgetful {
        found.push(notice(
            "this node stopped without a clean end and isn't yet sure to hold all that it had received".into(),
            "It takes no part in elections until it has caught up with an active node, all three nodes are here, or ten seconds have passed with one other: then the durable logs decide.",
            0,
            false,
        ));
    }
    if let Some(dropped) = shared.handle.dropped() {
        let count = words::count(dropped.changed.entries, "change");
        found.push(notice(
            format!("{count} or more at the end of this node's log, which no majority had, were dropped when it followed the active node"),
            &format!(
                "That happens to an active node that is cut off. All nodes hold the same, and nothing that was fsynced is missing; a write that waits for less (see `holdfast classes`) may have been answered all the same. They belonged to: {}.",
                shared.dropped_files(&dropped)
            ),
            dropped.at_unix_ms,
            false,
        ));
    }
    // What it names is to be looked at once; nothing that could still happen ends it.
    if let Some(since) = view.durable_alone_ms.filter(|since| now < since + KEPT_MS) {
        found.push(notice(
            "after a crash of several nodes the durable logs alone decided, without the third node".into(),
            &format!(
                "What was written in the last moment before the crash and never synced may be missing. Files being written then: {}. This is said for a day.",
                shared.last_changed_files()
            ),
            wall(since, now),
            true,
        ));
    }
    found.extend(of_damage(&shared.damage()));
    if let Some(found_apart) = shared.divergence() {
        let what = match &found_apart.odd_one_out {
            Some(odd) => format!("{odd} doesn't hold the same as the two others"),
            None => "the replicas don't hold the same".into(),
        };
        found.push(notice(
            what,
            "`holdfast check` says where, `holdfast check --repair` mends it; if that says that all is the same, `holdfast scrub` on each node verifies what the comparison goes by. Until then the odd one out becomes active only if no other can. See `A difference` in the runbook.",
            found_apart.since_unix_ms,
            true,
        ));
    }
    let scrub = shared.scrubber.message();
    if !scrub.trouble.is_empty() {
        found.push(notice(
            scrub.trouble,
            "The scrub is tried again once a minute. Look at the disk (kernel log, `smartctl`).",
            0,
            true,
        ));
    }
    for id in &view.left_behind {
        found.push(notice(
            format!("{} fell behind what the log still holds", shared.name_of(*id)),
            "Its daemon has what differs copied from this node by itself, and catches up then; its own status says how far that is.",
            0,
            false,
        ));
    }
    for id in shared.offers_of_copies() {
        if view.peers.get(&id).is_some_and(|peer| peer.strange) {
            let name = shared.name_of(id);
            found.push(notice(
                format!("{name} says that this node needs a copy of its store, and has itself another store than this node knows"),
                "Nothing is copied over this node's store. Find out which of the two has the right data: see `A new replica` in the runbook.",
                0,
                true,
            ));
        }
    }
    if let Some(why) = shared.no_copy() {
        found.push(notice(
            format!("this node needs a copy of the active node's store, and that isn't begun: {why}"),
            "Mend what is said; it is tried again every second.",
            0,
            true,
        ));
    }
    for (id, peer) in &view.peers {
        if peer.strange {
            found.push(notice(
                format!(
                    "{} came back with another store than before; what it says is ignored",
                    shared.name_of(*id)
                ),
                if matches!(view.role, Role::Active { .. }) {
                    "If it was emptied or its disk was replaced: its daemon has this node's store copied by itself. If its old store still exists, it may be brought back instead: see `A new replica` in the runbook."
                } else {
                    "It gets a copy from the active node by itself, or is heard again when the third node knows it with that store. If neither comes: see `A new replica` in the runbook."
                },
                0,
                view.leader.is_none(),
            ));
        }
        if shared.live.now().is_removed(&shared.name_of(*id)) {
            continue;
        }
        if let Some((why, since)) = &peer.down {
            found.push(notice(
                format!("no replication to {}: {why}", shared.name_of(*id)),
                "It is tried again twice a second.",
                wall(*since, now),
                false,
            ));
        }
    }
    let current = shared.live.now();
    found.extend(
        current
            .certificate_end
            .as_ref()
            .and_then(|end| of_certificate(end, unix_ms())),
    );
    found.extend(of_files(shared));
    if let Some(step) = &view.handover {
        found.push(notice(
            format!("the role is being handed over: {step}"),
            "It ends by itself.",
            0,
            false,
        ));
    }
    found
}

/// What the configuration file says and what is in use.
fn of_files(shared: &Shared) -> Vec<Notice> {
    let mut found = Vec::new();
    if let Some((why, since)) = shared.live.fault() {
        found.push(notice(
            format!("what the configuration's files say isn't in use: {why}"),
            "This daemon goes on with what it had before, and wouldn't start again. Don't restart it before they are mended (`holdfast config validate FILE`): they are looked at every second.",
            since,
            true,
        ));
    }
    if let Some((why, since)) = shared.live.deaf() {
        found.push(notice(
            format!("the other nodes have newer addresses of the nodes, and they aren't taken over here: {why}"),
            "This node goes on with those that it has. If it was taken out of the cluster or replaced: stop it. Else mend what is said (its configuration file must be writable): it is tried again every ten seconds.",
            since,
            true,
        ));
    }
    let current = shared.live.now();
    if let Some(wanted) = current.to_move_to() {
        found.push(notice(
            format!(
                "this node is to be at {}, ports {} and {}, and is still at {}",
                wanted.address,
                wanted.replication_port,
                wanted.control_port,
                current.own().address
            ),
            "The others look for it there. If this machine is to move: give it that address, then `systemctl restart holdfast`. If another machine was put in its place: stop this one (`systemctl disable --now holdfast vip-agent`), or two will have one address.",
            0,
            true,
        ));
    }
    found.extend(of_log(shared.handle.log_bytes(), shared.config.store.log_bytes));
    let (own, settings) = (current.members(), alike::settings(&shared.config));
    let inner = shared.inner();
    for (peer, heard) in &inner.peers {
        if current.is_removed(peer) {
            continue;
        }
        let differences = alike::differences(&settings, &heard.status.settings);
        if !differences.is_empty() {
            found.push(notice(
                format!("{peer} has other settings than this node: {}", differences.join("; ")),
                "They must be the same on all three, or the PBX or its address may be missing after a change of the active node. Mend the file that is wrong and restart its daemon and vip-agent (`systemctl restart holdfast vip-agent`), a standby's first.",
                0,
                true,
            ));
        }
        let differs = |theirs: &&Members| theirs.revision == own.revision && theirs.nodes != own.nodes;
        if heard.status.members.as_ref().filter(differs).is_some() {
            found.push(notice(
                format!("{peer} has other addresses of the nodes in its configuration than this node"),
                "`[[cluster.nodes]]` must be the same on all three. Put them right by hand, or call `holdfast node move` for the node that moved.",
                0,
                true,
            ));
        }
    }
    found
}

/// A segment, a sixteenth of a log at most, is what the two may differ by.
fn of_log(has: u64, configured: u64) -> Option<Notice> {
    let is_more = |one: u64, other: u64| one > other + other / 16;
    let advice = if is_more(configured, has) {
        "It is made longer when the daemon starts after an orderly stop, if its volume then has as much free as the longer log takes and adds together, and a quarter more (`df`): make room, then `systemctl restart holdfast`. The log output of the last start says what was in the way."
    } else if is_more(has, configured) {
        "A log is never made shorter, and a longer one does no harm: put the number that it has into the configuration. Only a new store gets a shorter one (see `A new replica` in the runbook)."
    } else {
        return None;
    };
    let what = format!(
        "this node's log has {} MiB, and `store.log_mib` is {}",
        has >> 20,
        configured >> 20
    );
    Some(notice(what, advice, 0, false))
}

fn of_damage(damage: &Damage) -> Vec<Notice> {
    let mut found = Vec::new();
    if let Some((_, why)) = damage.left.first_key_value() {
        found.push(notice(
            format!(
                "{} on this node's disk {} damaged and not mended yet: {why}",
                words::count(damage.left.len() as u64, "block"),
                if damage.left.len() == 1 { "is" } else { "are" }
            ),
            "Reads of them fail here; mending is tried again twice a minute. `holdfast scrub` names them. If this node is active, move the role to one that is sound.",
            damage.left_since_unix_ms,
            true,
        ));
    }
    if damage.mended > 0 {
        found.push(notice(
            format!(
                "{} on this node's disk had rotted and were given back their bytes by a peer",
                words::count(damage.mended, "block")
            ),
            "Nothing is lost. Look at the disk's health (`smartctl`): what rots once rots again.",
            damage.mended_unix_ms,
            false,
        ));
    }
    found
}

fn of_certificate(end: &End, now_unix_ms: u64) -> Option<Notice> {
    let now_s = i64::try_from(now_unix_ms / 1000).unwrap_or(i64::MAX);
    let (file, day, left_s) = (end.file.display(), &end.day, end.unix_s.saturating_sub(now_s));
    let what = match left_s / DAY_S {
        _ if left_s < 0 => format!("the certificate {file} ran out on {day}"),
        0 => format!("the certificate {file} runs out today or tomorrow, on {day}"),
        1 => format!("the certificate {file} runs out on {day}, in a day"),
        days if days <= WARN_DAYS => format!("the certificate {file} runs out on {day}, in {days} days"),
        _ => return None,
    };
    let advice = "From then on this node connects to nobody anew and its daemon doesn't start; connections that stand go on. Renew it in time: see `Certificates` in the runbook.";
    Some(notice(what, advice, 0, true))
}

pub(super) fn cannot_take_over(
    shared: &Shared,
    view: &View,
    agent: Option<&AgentReport>,
    mount_fault: Option<&(String, u64)>,
    offer: Option<String>,
) -> Vec<String> {
    let mut because = Vec::new();
    match agent {
        None if shared.needs_agent() => because.push("vip-agent isn't connected".into()),
        Some(report) if !report.eligible => because.extend(report.not_eligible_because.clone()),
        _ => {}
    }
    because.extend(mount_fault.map(|(why, _)| format!("the mount failed: {why}")));
    because.extend(view.halted.as_ref().map(|_| "it stopped by itself".into()));
    because.extend(view.disk.as_ref().map(|trouble| trouble.fault.to_string()));
    if view.forgetful {
        because.push("it is catching up after a stop without a clean end".into());
    }
    if view.lag.bytes > CATCHING_UP {
        because.push(format!(
            "it is catching up: {} of the log are missing",
            words::bytes(view.lag.bytes)
        ));
    }
    because.extend(offer.map(|active| format!("{active} says that it needs a copy of the store")));
    if view.unapplied > UNAPPLIED_MAX {
        because.push(format!(
            "it is still applying {} of what it has received: its disk is slower than the others', or it was just started",
            words::bytes(view.unapplied)
        ));
    }
    if !view.has_room {
        because.push("its disk is below the reserve, of bytes or of inodes".into());
    }
    if shared.odd_one_out().as_ref() == Some(&shared.node().name) {
        because.push("it doesn't hold the same as the two others: `holdfast check --repair`".into());
    }
    because
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_from_thirty_days_before_its_end() {
        let end = End {
            file: "node.pem".into(),
            unix_s: 100 * DAY_S,
            day: "1970-04-11".into(),
        };
        let what = |now_s: i64| of_certificate(&end, u64::try_from(now_s).unwrap() * 1000).map(|notice| notice.what);
        assert_eq!(what(69 * DAY_S), None);
        let text = what(70 * DAY_S).unwrap();
        assert!(text.ends_with("runs out on 1970-04-11, in 30 days"), "{text}");
        assert!(what(99 * DAY_S).unwrap().ends_with("in a day"));
        assert!(what(100 * DAY_S).unwrap().contains("today or tomorrow"));
        assert!(what(100 * DAY_S + 1).unwrap().ends_with("ran out on 1970-04-11"));
    }
}
