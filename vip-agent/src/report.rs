//! What the core knows, as the daemon hears it.

use holdfast_config::{Config, Vip};
use holdfast_proto::control::{AgentReport, Notice, UnitStatus};

use crate::clock::{Now, UnixMs};
use crate::core::Core;

/// The parts of a report that never change.
pub(crate) struct Reporter {
    vip: String,
    pid: u64,
}

impl Reporter {
    pub(crate) fn new(config: &Config) -> Self {
        let text = |vip: &Vip| format!("{}/{}", vip.address, vip.prefix);
        Self {
            vip: config.vip.as_ref().map(text).unwrap_or_default(),
            pid: u64::from(std::process::id()),
        }
    }

    pub(crate) fn report(&self, core: &Core, now: Now) -> AgentReport {
        let reasons = core.not_eligible_because(now);
        AgentReport {
            vip_held: core.vip_held(),
            released_term: core.released_term(),
            units: units(core),
            eligible: reasons.is_empty(),
            not_eligible_because: reasons,
            gives_up: core.gives_up(),
            last_resort: core.is_last_resort(now),
            phase: core.phase(now.boot),
            vip_since_unix_ms: millis(core.vip_since()),
            units_healthy_unix_ms: millis(core.units_healthy_since()),
            vip: self.vip.clone(),
            interface: core.interface().unwrap_or_default().to_owned(),
            pid: self.pid,
            notices: notices(core),
        }
    }
}

fn units(core: &Core) -> Vec<UnitStatus> {
    let status = |unit: crate::core::UnitReport| UnitStatus {
        name: unit.name,
        state: unit.state.to_owned(),
        detail: unit.detail,
        since_unix_ms: unit.since.0,
    };
    core.units().into_iter().map(status).collect()
}

fn notices(core: &Core) -> Vec<Notice> {
    let notice = |notice: crate::core::Notice| Notice {
        what: notice.what,
        advice: notice.advice,
        since_unix_ms: notice.since.0,
        serious: notice.serious,
    };
    core.notices().into_iter().map(notice).collect()
}

fn millis(time: Option<UnixMs>) -> u64 {
    time.map_or(0, |time| time.0)
}
