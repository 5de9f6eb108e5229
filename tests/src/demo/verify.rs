//! The reckoning: everything that was acknowledged against everything that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::client::{Ack, Place, psql};
use super::unit::{read_acks, verify as verify_file};
use crate::clock::wait_for;
use crate::lab::{CheckVerdict, Lab};
use crate::process::run_ok;

/// One check and what came of it; the sentence is for people.
#[derive(Debug)]
pub struct Finding {
    pub holds: bool,
    pub sentence: String,
}

impl Finding {
    fn of(what: &str, outcome: Result<String>) -> Self {
        match outcome {
            Ok(sentence) => Self { holds: true, sentence },
            Err(error) => Self {
                holds: false,
                sentence: format!("{what}: {error:#}"),
            },
        }
    }
}

/// Every acknowledged transaction is there.
pub fn transactions(place: &Place, acks: &[Ack]) -> Finding {
    let look = || -> Result<String> {
        if acks.is_empty() {
            bail!("none was ever acknowledged");
        }
        // The connection may meet the end of a switch; the answer itself is never tried again.
        let there = wait_for("an answer from PostgreSQL", Duration::from_secs(20), || {
            let mut query = psql(place)?;
            query.args(["-c", "SELECT number FROM demo ORDER BY number"]);
            run_ok(&mut query, Duration::from_secs(10)).map(Some)
        })?;
        let there: BTreeSet<u64> = there.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let missing: Vec<u64> = acks
            .iter()
            .map(|ack| ack.number)
            .filter(|number| !there.contains(number))
            .collect();
        if let Some(first) = missing.first() {
            bail!(
                "{} of {} acknowledged transactions are missing, the first is {first}",
                missing.len(),
                acks.len()
            );
        }
        Ok(format!("all {} acknowledged transactions are there", acks.len()))
    };
    Finding::of("transactions", look())
}

/// Every acknowledged byte of recordings and log is there and right, read on the active node.
pub fn files(lab: &Lab, active: &str) -> [Finding; 2] {
    let mount = lab.node(active).mnt();
    [
        Finding::of(
            "recordings",
            folder(lab, &mount.join("pbx/recordings"), "recorder", "of recordings"),
        ),
        Finding::of("log", folder(lab, &mount.join("log"), "logger", "of the log")),
    ]
}

fn folder(lab: &Lab, folder: &Path, unit: &str, what: &str) -> Result<String> {
    let mut ends = BTreeMap::new();
    for node in lab.nodes() {
        read_acks(&node.dir().join(format!("{unit}.acks")), &mut ends)?;
    }
    if ends.is_empty() {
        bail!("nothing was ever acknowledged");
    }
    for (name, end) in &ends {
        verify_file(&folder.join(name), name, *end)?;
    }
    let bytes: u64 = ends.values().sum();
    Ok(format!(
        "all {bytes} acknowledged bytes {what} in {} file(s) are there and right",
        ends.len()
    ))
}

/// The replicas are the same.
pub fn replicas(lab: &Lab) -> Finding {
    let look = || -> Result<String> {
        let outcome = lab.check().context("`holdfast check`")?;
        match outcome.verdict {
            CheckVerdict::Same => Ok("`holdfast check` finds the three replicas the same".to_owned()),
            CheckVerdict::Different => bail!("`holdfast check` found differences:\n{}", outcome.said),
            CheckVerdict::CouldNotCheck => bail!("`holdfast check` could not check:\n{}", outcome.said),
        }
    };
    Finding::of("replicas", look())
}

/// No two nodes ever held the address or accepted writes.
pub fn one_writer(verdict: &super::sampler::Verdict) -> Vec<Finding> {
    if verdict.violations.is_empty() {
        let sentence = format!(
            "in {} looks, never two nodes with the VIP and never two that accepted writes",
            verdict.looks
        );
        return vec![Finding { holds: true, sentence }];
    }
    verdict
        .violations
        .iter()
        .map(|sentence| Finding {
            holds: false,
            sentence: sentence.clone(),
        })
        .collect()
}
