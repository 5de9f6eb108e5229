//! The clock of the consensus: one tick and counts of it.

use crate::check::{Number, millis};
use crate::document::Document;
use crate::error::ConfigError;
use crate::{Timers, raw};

pub(crate) fn check(document: &Document, raw: &raw::Timers) -> Result<Timers, ConfigError> {
    let default = Timers::default();
    let count = |key: &str, value, default: u32, range| {
        let value = Number {
            document,
            key,
            unit: "",
        }
        .within(value, default.into(), range)?;
        Ok::<_, ConfigError>(u32::try_from(value).expect("within a range of u32"))
    };
    let tick = millis(document, "timers.tick_ms", raw.tick_ms, default.tick, 10..=1000)?;
    let heartbeat_ticks = count(
        "timers.heartbeat_ticks",
        raw.heartbeat_ticks,
        default.heartbeat_ticks,
        1..=100,
    )?;
    let election_ticks = count(
        "timers.election_ticks",
        raw.election_ticks,
        default.election_ticks,
        5..=1000,
    )?;
    // A lost heartbeat, and the next one late, must not start an election.
    if election_ticks <= 3 * heartbeat_ticks {
        let problem = format!("{election_ticks} is not more than three times heartbeat_ticks ({heartbeat_ticks})");
        let right = format!("at least {}, or fewer heartbeat_ticks", 3 * heartbeat_ticks + 1);
        return Err(document.wrong("timers.election_ticks", problem, right));
    }
    let drift_permille = count(
        "timers.drift_permille",
        raw.drift_permille,
        default.drift_permille,
        1..=100,
    )?;
    let grace = millis(document, "timers.grace_ms", raw.grace_ms, default.grace, 0..=60_000)?;
    let key = "timers.forgetful_wait_ms";
    let forgetful_wait = millis(
        document,
        key,
        raw.forgetful_wait_ms,
        default.forgetful_wait,
        1000..=600_000,
    )?;
    let key = "timers.disk_stall_ms";
    let disk_stall = millis(document, key, raw.disk_stall_ms, default.disk_stall, 500..=60_000)?;
    Ok(Timers {
        tick,
        heartbeat_ticks,
        election_ticks,
        drift_permille,
        grace,
        forgetful_wait,
        disk_stall,
    })
}
