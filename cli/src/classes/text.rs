//! What `holdfast classes` prints.

use holdfast_proto::control::{Classes, GivenClass};
use holdfast_storage::class::{Class, Close, Profile, Wait};
use serde_json::json;
use std::fmt::Write;

use crate::clock::Clock;

fn change_waits(profile: Profile) -> &'static str {
    match profile.write {
        Wait::Sequenced if profile.behind.is_some() => "it is in order here; the disks 1 MiB or 1 s behind at most",
        Wait::Sequenced => "it is in order here (sequenced)",
        Wait::Received => "a second node holds it (received)",
        Wait::Committed => "it is on two disks (committed)",
    }
}

fn close_waits(profile: Profile) -> &'static str {
    match profile.close {
        Close::Nothing => "nothing",
        Close::Durable => "the file is on two disks",
        Close::Sealed => "the file is on two disks; then it is sealed",
    }
}

fn where_from(given: &GivenClass) -> String {
    if given.by_hand {
        format!("set by hand, {}", Clock::read().at(given.since_unix_ms))
    } else {
        format!(
            "named in [classes] when it was made, {}",
            Clock::read().at(given.since_unix_ms)
        )
    }
}

pub(super) fn all(listed: &Classes) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(format!(
        "{:<12}{:<59}{}",
        "CLASS", "A CHANGE RETURNS WHEN", "CLOSE WAITS UNTIL"
    ));
    for class in Class::ALL {
        let profile = class.profile();
        line(format!(
            "{:<12}{:<59}{}",
            class.name(),
            change_waits(profile),
            close_waits(profile)
        ));
    }
    line("fsync waits in every class until the file and all names are on two disks.".into());
    line(String::new());
    line(format!("{:<12}DIRECTORY BELOW {}", "CLASS", listed.mount_path));
    if listed.given.iter().all(|given| !given.path.is_empty()) {
        line(format!("{:<12}/: what has no class of its own", Class::Default.name()));
    }
    for given in &listed.given {
        line(format!("{:<12}/{}: {}", given.class, given.path, where_from(given)));
    }
    for rule in &listed.configured {
        if rule.is.is_empty() {
            line(format!(
                "{:<12}/{}: when it is made (named in [classes], not there yet)",
                rule.class, rule.path
            ));
        } else if rule.is != rule.class {
            line(format!(
                "{:<12}/{}: [classes] says {}, which counts for a new directory; for this one: holdfast classes set {} {}/{}",
                rule.is, rule.path, rule.class, rule.class, listed.mount_path, rule.path
            ));
        }
    }
    if listed.active.is_empty() {
        line(format!("No node is active: this is what {} has.", listed.asked));
    }
    out
}

pub(super) fn json(listed: &Classes) -> String {
    let classes = Class::ALL.map(|class| {
        let profile = class.profile();
        let write = match profile.write {
            Wait::Sequenced => "sequenced",
            Wait::Received => "received",
            Wait::Committed => "committed",
        };
        let close = match profile.close {
            Close::Nothing => "nothing",
            Close::Durable => "durable",
            Close::Sealed => "sealed",
        };
        json!({
            "name": class.name(), "write": write, "close": close, "last": profile.last,
            "behind_bytes_max": profile.behind.map(|behind| behind.bytes),
            "behind_ms_max": profile.behind.map(|behind| behind.ms),
        })
    });
    let given = listed.given.iter().map(|given| {
        json!({
            "path": format!("/{}", given.path), "class": given.class, "by_hand": given.by_hand,
            "since_unix_ms": given.since_unix_ms,
        })
    });
    let configured = listed.configured.iter().map(|rule| {
        let is = (!rule.is.is_empty()).then_some(&rule.is);
        json!({ "path": format!("/{}", rule.path), "class": rule.class, "is": is })
    });
    let document = json!({
        "mount": listed.mount_path, "active": (!listed.active.is_empty()).then_some(&listed.active),
        "asked": listed.asked, "classes": classes,
        "given": given.collect::<Vec<_>>(), "configured": configured.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

/// Where a path has its class from: the nearest directory at or above it with one of its own.
pub(super) fn origin(inside: &str, class: &str, listed: &Classes) -> String {
    let above = |given: &&GivenClass| {
        given.path.is_empty()
            || inside
                .strip_prefix(&given.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match listed.given.iter().filter(above).max_by_key(|given| given.path.len()) {
        Some(given) if given.path == inside => format!("its own: {}", where_from(given)),
        Some(given) if given.class != class => format!(
            "kept from when it was made or moved here: /{} is {} ({})",
            given.path,
            given.class,
            where_from(given)
        ),
        None if class != Class::Default.name() => {
            "kept from when it was made or moved here: no directory above it has one of its own".into()
        }
        Some(given) => format!("of /{}, which is {} ({})", given.path, given.class, where_from(given)),
        None => "no directory above it has one of its own".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(paths: &[&str]) -> Classes {
        let given = |path: &&str| GivenClass {
            path: (*path).into(),
            class: "logs".into(),
            by_hand: true,
            since_unix_ms: 0,
            inode: 9,
        };
        Classes {
            given: paths.iter().map(given).collect(),
            ..Classes::default()
        }
    }

    #[test]
    fn a_path_has_its_class_from_the_nearest_directory() {
        let listed = listed(&["", "pbx", "pbx/log"]);
        assert!(origin("pbx/log", "logs", &listed).starts_with("its own"));
        assert!(origin("pbx/log/a/b", "logs", &listed).starts_with("of /pbx/log,"));
        assert!(origin("pbx/logs", "logs", &listed).starts_with("of /pbx,"));
        assert!(origin("pbx2", "logs", &listed).starts_with("of /,"));
        assert!(origin("pbx/log/a", "durable", &listed).starts_with("kept from"));
    }
}
