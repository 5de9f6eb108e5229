//! The settings that must be the same on all three nodes, as each goes by them: a node that has another address or lacks a unit
//! would take the role over and serve nobody.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_config::{Config, Timers, Unit, UnitControl};

const NONE: &str = "none";

/// By the section's name, in words that an operator knows from the file. What names a place of this machine alone is left out.
pub(super) fn settings(config: &Config) -> HashMap<String, String> {
    let vip = config.vip.as_ref();
    let all = [
        ("vip", vip.map(|vip| format!("{}/{}", vip.address, vip.prefix))),
        ("unit", list(config.units.iter().map(unit))),
        (
            "classes",
            list(
                config
                    .classes
                    .iter()
                    .map(|rule| format!("{} {}", rule.path.display(), rule.class)),
            ),
        ),
        ("timers", Some(timers(&config.timers))),
    ];
    let said = all.map(|(name, value)| (name.to_owned(), value.unwrap_or_else(|| NONE.into())));
    said.into_iter().collect()
}

/// In the order of the file.
fn list(words: impl Iterator<Item = String>) -> Option<String> {
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Commands may lie elsewhere on each machine.
fn unit(unit: &Unit) -> String {
    match &unit.control {
        UnitControl::Systemd { unit: file } if *file == unit.name => unit.name.clone(),
        UnitControl::Systemd { unit: file } => format!("{} ({file})", unit.name),
        UnitControl::Command { .. } => format!("{} (commands)", unit.name),
    }
}

fn timers(timers: &Timers) -> String {
    let ms = |duration: Duration| duration.as_millis();
    let Timers {
        tick,
        heartbeat_ticks,
        election_ticks,
        drift_permille,
        grace,
        forgetful_wait,
        disk_stall,
    } = timers;
    format!(
        "tick {} ms, heartbeat {heartbeat_ticks}, election {election_ticks}, drift {drift_permille}, grace {} ms, forgetful {} ms, disk stall {} ms",
        ms(*tick),
        ms(*grace),
        ms(*forgetful_wait),
        ms(*disk_stall)
    )
}

/// What a peer goes by and this node doesn't; a release that says nothing of a section isn't asked about it.
pub(super) fn differences(own: &HashMap<String, String>, theirs: &HashMap<String, String>) -> Vec<String> {
    let mut found: Vec<String> = theirs
        .iter()
        .filter_map(|(name, value)| {
            let here = own.get(name).filter(|here| *here != value)?;
            Some(format!("[{name}] is {value} there and {here} here"))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn what_differs_is_said_and_what_one_does_not_know_is_not() {
        let own = of(&[("vip", "10.0.0.130/24"), ("unit", "a, b"), ("newer", "1")]);
        assert!(differences(&own, &HashMap::new()).is_empty());
        assert!(differences(&own, &of(&[("vip", "10.0.0.130/24"), ("other", "2")])).is_empty());
        assert_eq!(
            differences(&own, &of(&[("vip", "none"), ("unit", "a")])),
            [
                "[unit] is a there and a, b here",
                "[vip] is none there and 10.0.0.130/24 here"
            ]
        );
    }
}
