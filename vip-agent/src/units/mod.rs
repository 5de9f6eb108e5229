//! Verbs on the parts of the PBX: start, stop, kill, look, check. Which one is due is the core's decision.
//!
//! Everything here runs on the ordinary runtime, apart from the thread that renews the address.

mod cgroup;
mod command;
mod output;
mod reaper;
mod systemd;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_config::{Health, Unit, UnitControl};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub(crate) use command::Command;
pub(crate) use systemd::Systemd;

use crate::core::{Event, Outcome, Seen, Verb};
use crate::error::{Error, Result};
use crate::probes;

/// Where things of this node's units lie that aren't on the mount.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// For the pipes that carry the units' output.
    pub run: PathBuf,
    /// Names this node's cgroup; no other agent on this machine has the same.
    pub cgroup: String,
}

impl Places {
    /// Both follow from the daemon's socket, which is this node's own.
    pub(crate) fn beside(socket: &Path) -> Self {
        let escaped = socket.to_string_lossy().replace('-', "--").replace('/', "-");
        Self {
            run: socket.with_extension("units"),
            cgroup: format!("vip-agent{escaped}"),
        }
    }
}

/// The cgroup (v2) that all processes started by the units of this node's agent are in, for an agent that shares the
/// caller's own cgroup: what has to be killed with a node, and removed with it. The agent removes it when it is stopped.
pub fn units_cgroup(socket: &Path) -> Option<PathBuf> {
    Some(cgroup::own_cgroup()?.join(Places::beside(socket).cgroup))
}

/// Every health probe ends by then, however long its interval.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

enum Control {
    Command(Command),
    Systemd(Systemd),
}

impl Control {
    /// Its word that a unit isn't up can be taken.
    fn is_sure(&self) -> bool {
        matches!(self, Self::Systemd(_))
    }
}

struct Part {
    name: String,
    control: Control,
    health: Option<Health>,
    probe_within: Duration,
    stop_timeout: Duration,
}

/// Runs the verbs and sends their outcomes back as events.
pub(crate) struct Units {
    parts: Vec<Arc<Part>>,
    /// The start, stop or kill under way for each unit.
    jobs: Vec<Option<JoinHandle<()>>>,
    runtime: Handle,
    events: mpsc::UnboundedSender<Event>,
}

impl Units {
    pub(crate) fn new(units: &[Unit], places: &Places, runtime: &Handle, events: mpsc::UnboundedSender<Event>) -> Self {
        let _entered = runtime.enter();
        reaper::reap_orphans();
        let parts: Vec<_> = units.iter().map(|unit| Arc::new(Part::new(unit, places))).collect();
        let jobs = parts.iter().map(|_| None).collect();
        Self {
            parts,
            jobs,
            runtime: runtime.clone(),
            events,
        }
    }

    pub(crate) fn begin(&mut self, unit: usize, job: u64, verb: Verb) {
        let part = self.parts[unit].clone();
        let events = self.events.clone();
        let task = self.runtime.spawn(async move {
            let outcome = part.perform(verb).await;
            // Nobody listens any more only when the agent ends.
            let _ = events.send(Event::Unit { unit, job, outcome });
        });
        // Questions go on beside a job; a new job takes the place of the one before.
        let job = matches!(verb, Verb::Start | Verb::Stop | Verb::Kill).then_some(task);
        if let Some(former) = job.and_then(|task| self.jobs[unit].replace(task)) {
            former.abort();
        }
    }
}

impl Part {
    fn new(unit: &Unit, places: &Places) -> Self {
        let control = match &unit.control {
            UnitControl::Systemd { unit } => Control::Systemd(Systemd::new(unit)),
            UnitControl::Command {
                start,
                stop,
                status,
                kill,
            } => Control::Command(Command::new(&unit.name, start, stop, status, kill, places)),
        };
        Self {
            name: unit.name.clone(),
            control,
            health: unit.health.clone(),
            probe_within: unit.health_every.clamp(Duration::from_secs(1), PROBE_LIMIT),
            stop_timeout: unit.stop_timeout,
        }
    }

    async fn perform(&self, verb: Verb) -> Outcome {
        match verb {
            Verb::Start => self.start().await,
            Verb::Stop => Outcome::Stopped(self.told("stopping", self.stop().await)),
            Verb::Kill => Outcome::Killed(self.told("killing", self.kill().await)),
            Verb::Look => Outcome::Seen(self.look().await),
            Verb::Check => Outcome::Seen(self.check().await),
        }
    }

    async fn start(&self) -> Outcome {
        info!(unit = self.name, "starting");
        let done = match &self.control {
            Control::Command(command) => command.start().await,
            Control::Systemd(systemd) => systemd.start().await,
        };
        match self.told("starting", done) {
            Ok(()) => Outcome::Started,
            Err(why) => Outcome::StartFailed(why),
        }
    }

    async fn stop(&self) -> Result<()> {
        info!(unit = self.name, "stopping");
        match &self.control {
            Control::Command(command) => command.stop(self.stop_timeout).await,
            Control::Systemd(systemd) => systemd.stop().await,
        }
    }

    async fn kill(&self) -> Result<()> {
        warn!(unit = self.name, "killing");
        match &self.control {
            Control::Command(command) => command.kill().await,
            Control::Systemd(systemd) => systemd.kill().await,
        }
    }

    async fn runs(&self) -> Result<bool> {
        match &self.control {
            Control::Command(command) => command.runs(PROBE_LIMIT).await,
            Control::Systemd(systemd) => systemd.runs().await,
        }
    }

    async fn look(&self) -> Seen {
        match self.runs().await {
            Ok(true) => Seen::Running,
            Ok(false) => Seen::NotRunning,
            Err(error) => Seen::Unclear(error.sentence()),
        }
    }

    /// A unit is well when it runs, as far as its control can tell, and its probe passes. The probe alone isn't enough:
    /// somebody else may be answering it.
    async fn check(&self) -> Seen {
        let probed = match &self.health {
            Some(health) => Some(probes::probe(health, self.probe_within).await),
            None => None,
        };
        let up = match (&self.control, &probed) {
            // What it has started may have left the cgroup, into a container for example: only the probe knows.
            (Control::Command(command), Some(_)) if !command.has_status() => Ok(()),
            (Control::Command(command), _) => command.up(PROBE_LIMIT).await,
            (Control::Systemd(systemd), _) => systemd.up().await,
        };
        let unwell = match (up, probed) {
            (Ok(()), None | Some(Ok(()))) => return Seen::Healthy,
            (_, Some(Err(unwell))) | (Err(unwell), None) => unwell,
            (Err(unwell @ Error::Unhealthy { .. }), Some(Ok(()))) if self.control.is_sure() => unwell,
            // A `status` command may fail for reasons of its own: with a probe that passes it counts as one failure.
            (Err(unwell @ Error::Unhealthy { .. }), Some(Ok(()))) => return Seen::Unhealthy(unwell.sentence()),
            // A control that doesn't answer says nothing about the unit.
            (Err(_), Some(Ok(()))) => return Seen::Healthy,
        };
        match self.look().await {
            Seen::NotRunning => Seen::NotRunning,
            _ => Seen::Unhealthy(unwell.sentence()),
        }
    }

    fn told(&self, doing: &str, done: Result<()>) -> std::result::Result<(), String> {
        done.map_err(|error| {
            let why = error.sentence();
            warn!(unit = self.name, "{doing}: {why}");
            why
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: &str = "/bin/true";
    const NO: &str = "/bin/false";

    fn part(status: &[&str], health: Option<&str>) -> Part {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let unit = Unit {
            name: "pbx".to_owned(),
            control: UnitControl::Command {
                start: words(&[YES]),
                stop: Vec::new(),
                status: words(status),
                kill: Vec::new(),
            },
            health: health.map(|program| Health::Command(words(&[program]))),
            health_every: Duration::from_secs(1),
            health_failures: 1,
            start_timeout: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(1),
        };
        let folder = tempfile::tempdir().unwrap();
        Part::new(&unit, &Places::beside(&folder.path().join("holdfast.sock")))
    }

    #[tokio::test]
    async fn a_probe_that_passes_does_not_make_a_stopped_unit_well() {
        let odd = part(&[NO], Some(YES));
        assert!(matches!(odd.check().await, Seen::Unhealthy(_)));
        assert_eq!(odd.look().await, Seen::NotRunning);
        assert_eq!(part(&[YES], Some(YES)).check().await, Seen::Healthy);
        assert_eq!(part(&[NO], None).check().await, Seen::NotRunning);
        assert_eq!(part(&[NO], Some(NO)).check().await, Seen::NotRunning);
    }

    #[tokio::test]
    async fn a_running_unit_whose_probe_fails_is_unwell() {
        assert!(matches!(part(&[YES], Some(NO)).check().await, Seen::Unhealthy(_)));
    }

    #[tokio::test]
    async fn only_the_probe_knows_where_the_control_can_not_tell() {
        assert_eq!(part(&[], Some(YES)).check().await, Seen::Healthy);
        assert_eq!(part(&["/no/such/program"], Some(YES)).check().await, Seen::Healthy);
    }
}
