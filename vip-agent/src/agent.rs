//! The one loop: events in, duties out. It runs on a thread of its own with real-time priority, together with the netlink
//! socket and the connection to the daemon, so that neither units nor probes can delay a renewal.

use std::collections::{BTreeSet, VecDeque};
use std::thread;
use std::time::Duration;

use holdfast_config::Config;
use holdfast_proto::control::AgentReport;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::announce::announce;
use crate::clock::{self, BootMs};
use crate::core::{AddressEvent, Core, Duty, Event, Policy};
use crate::error::{Error, Result};
use crate::follow::follow;
use crate::netlink::Netlink;
use crate::notify::Notify;
use crate::question::Question;
use crate::realtime;
use crate::report::Reporter;
use crate::units::{Places, Units};
use crate::watchdog::Watchdog;

/// Duties that depend on time alone are at most so late: a small part of the slack in the VIP arithmetic.
const TICK: Duration = Duration::from_millis(20);
/// A shutdown that can't be completed ends this long after every unit had its time to stop.
const SHUTDOWN_SLACK: Duration = Duration::from_secs(15);

/// Resolves when the operator wants the agent to end.
pub type Shutdown = oneshot::Receiver<()>;

/// Runs until `shutdown`; returns once nothing is held any more. Must be called inside a runtime, which the units' commands
/// and probes run on.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let units_runtime = Handle::current();
    let (done, ended) = oneshot::channel();
    let thread = thread::Builder::new().name("vip".to_owned()).spawn(move || {
        // The receiver is there as long as this function's caller waits.
        let _ = done.send(run_thread(&config, shutdown, &units_runtime));
    });
    thread.map_err(|source| Error::Io {
        doing: "starting the thread that renews the address".to_owned(),
        source,
    })?;
    ended.await.unwrap_or_else(|_| {
        // The address runs out by itself; what this process knew about the units is lost.
        error!("the thread that renews the address has panicked");
        std::process::abort()
    })
}

fn run_thread(config: &Config, shutdown: Shutdown, units_runtime: &Handle) -> Result<()> {
    realtime::ask_for_priority();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io {
        doing: "starting a runtime".to_owned(),
        source,
    })?;
    runtime.block_on(async { Agent::new(config, units_runtime)?.run(shutdown).await })
}

struct Agent {
    core: Core,
    /// Absent: no address is managed.
    netlink: Option<Netlink>,
    /// Open while the network is asked for another owner of the address.
    question: Option<Question>,
    units: Units,
    reporter: Reporter,
    reports: watch::Sender<AgentReport>,
    events: mpsc::UnboundedReceiver<Event>,
    notify: Notify,
    watchdog: Option<Watchdog>,
    /// It isn't fed any more: this machine is going to be reset.
    doomed: bool,
    told_alive: BootMs,
    /// How long a shutdown may take.
    shutdown_within: Duration,
    shutdown_since: Option<BootMs>,
    phase: String,
    notices: BTreeSet<String>,
}

impl Agent {
    fn new(config: &Config, units_runtime: &Handle) -> Result<Self> {
        let now = clock::now();
        let (event_sender, events) = mpsc::unbounded_channel();
        let core = Core::new(Policy::from(config), now);
        let reporter = Reporter::new(config);
        let (reports, report_receiver) = watch::channel(reporter.report(&core, now));
        let netlink = config.vip.as_ref().map(Netlink::open).transpose()?;
        tokio::spawn(follow(config.socket.clone(), report_receiver, event_sender.clone()));
        let stops: Duration = config.units.iter().map(|unit| unit.stop_timeout).sum();
        Ok(Self {
            core,
            netlink,
            question: None,
            units: Units::new(
                &config.units,
                &Places::beside(&config.socket),
                units_runtime,
                event_sender,
            ),
            reporter,
            reports,
            events,
            notify: Notify::from_environment(),
            watchdog: config.watchdog.as_ref().map(Watchdog::new),
            doomed: false,
            told_alive: BootMs(0),
            shutdown_within: stops + SHUTDOWN_SLACK,
            shutdown_since: None,
            phase: String::new(),
            notices: BTreeSet::new(),
        })
    }

    async fn run(mut self, mut shutdown: Shutdown) -> Result<()> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.notify.ready();
        while !self.ended() {
            let event = tokio::select! {
                biased;
                // A sender that was dropped means the same.
                _ = &mut shutdown, if !self.core.shutting_down() => Event::Shutdown,
                // What the daemon says is judged before the time that has passed since it spoke last.
                Some(event) = self.events.recv() => event,
                _ = tick.tick() => Event::Tick,
            };
            self.handle(event).await;
            self.feed_watchdog();
            self.tell();
        }
        if let Some(watchdog) = self.watchdog.filter(|_| !self.core.may_linger()) {
            watchdog.end();
        }
        Ok(())
    }

    /// One event, and all that follows from it: duties on the address answer with events of their own at once, and what
    /// follows from those goes first, since it may be that the address has to go.
    async fn handle(&mut self, event: Event) {
        let mut duties = VecDeque::from(self.core.step(clock::now(), event));
        while let Some(duty) = duties.pop_front() {
            for event in self.perform(duty).await {
                let urgent = self.core.step(clock::now(), event);
                urgent.into_iter().rev().for_each(|duty| duties.push_front(duty));
            }
        }
    }

    async fn perform(&mut self, duty: Duty) -> Vec<Event> {
        let done = match (duty, &mut self.netlink) {
            (Duty::Unit { unit, job, verb }, _) => {
                self.units.begin(unit, job, verb);
                return Vec::new();
            }
            (_, None) => return Vec::new(),
            (Duty::AddVip | Duty::RenewVip, Some(netlink)) => {
                self.question = None;
                put(netlink, duty).await
            }
            (Duty::AskForVip { anew }, Some(netlink)) => {
                let question = self.question.take().filter(|_| !anew);
                let (question, other) = ask(netlink, question).await;
                self.question = question;
                vec![AddressEvent::Asked { other }]
            }
            (Duty::DropVip, Some(netlink)) => drop_vip(netlink).await,
            (Duty::ReadVip, Some(netlink)) => read(netlink).await,
            (Duty::Announce, Some(netlink)) => tell_network(netlink).await,
            (Duty::SetSource, Some(netlink)) => source(netlink.set_source().await, AddressEvent::SourceSet),
            (Duty::ClearSource, Some(netlink)) => source(netlink.clear_source().await, AddressEvent::SourceCleared),
        };
        done.into_iter().map(Event::Address).collect()
    }

    fn feed_watchdog(&mut self) {
        let (Some(watchdog), now) = (&mut self.watchdog, clock::now()) else {
            return;
        };
        if self.core.stuck(now.boot) {
            if !self.doomed {
                error!(
                    "the PBX of a lost role can't be killed: the watchdog isn't fed any more and resets this machine"
                );
            }
            self.doomed = true;
            return;
        }
        self.doomed = false;
        watchdog.feed(now.boot);
        self.core.note_watchdog(now, watchdog.trouble().as_deref());
    }

    /// Reports to the daemon and to the log whatever changed, and shows systemd that the loop turns.
    fn tell(&mut self) {
        let now = clock::now();
        let report = self.reporter.report(&self.core, now);
        if report.phase != self.phase {
            info!("{}", report.phase);
            self.phase.clone_from(&report.phase);
        }
        let notices: BTreeSet<String> = report
            .notices
            .iter()
            .map(|notice| format!("{}; {}", notice.what, notice.advice))
            .collect();
        for notice in notices.difference(&self.notices) {
            warn!("{notice}");
        }
        self.notices = notices;
        self.reports.send_if_modified(|last| {
            let changed = *last != report;
            *last = report;
            changed
        });
        if self
            .notify
            .watchdog_every
            .is_some_and(|every| now.boot.since(self.told_alive) >= every)
        {
            self.told_alive = now.boot;
            self.notify.alive();
        }
    }

    fn ended(&mut self) -> bool {
        if !self.core.shutting_down() {
            return false;
        }
        let now = clock::now().boot;
        let since = *self.shutdown_since.get_or_insert_with(|| {
            self.notify.stopping();
            now
        });
        let late = now.since(since) >= self.shutdown_within;
        if late {
            error!("ending although not all units could be stopped; the address runs out by itself");
        }
        late || self.core.finished()
    }
}

async fn put(netlink: &mut Netlink, duty: Duty) -> Vec<AddressEvent> {
    let asked = clock::now().boot;
    match netlink.put_address().await {
        Ok(()) if duty == Duty::AddVip => [vec![AddressEvent::Renewed { asked }], read(netlink).await].concat(),
        Ok(()) => vec![AddressEvent::Renewed { asked }],
        Err(error) => vec![AddressEvent::Failed { what: error.sentence() }],
    }
}

async fn drop_vip(netlink: &mut Netlink) -> Vec<AddressEvent> {
    match netlink.drop_address().await {
        Ok(present) => vec![seen(netlink, present).await],
        Err(error) => vec![AddressEvent::Failed { what: error.sentence() }],
    }
}

async fn read(netlink: &mut Netlink) -> Vec<AddressEvent> {
    match netlink.read_address().await {
        Ok(present) => vec![seen(netlink, present).await],
        Err(error) => vec![AddressEvent::Failed { what: error.sentence() }],
    }
}

async fn seen(netlink: &Netlink, present: bool) -> AddressEvent {
    let interface = netlink.find_interface().await;
    AddressEvent::Read {
        present,
        has_link: interface.as_ref().is_ok_and(|found| found.has_link),
        interface: interface.map(|found| found.name).map_err(|error| error.sentence()),
    }
}

/// Where it can't be asked, nobody answers: the arithmetic of lease and lifetimes stands alone then.
async fn ask(netlink: &Netlink, question: Option<Question>) -> (Option<Question>, Option<String>) {
    let opened = match question {
        Some(open) => Ok(open),
        None => match netlink.find_interface().await {
            Ok(interface) => Question::open(netlink.address(), &interface),
            Err(error) => Err(error),
        },
    };
    let asked = opened.and_then(|mut question| question.ask().map(|other| (Some(question), other)));
    asked.unwrap_or_else(|error| {
        warn!("{}", error.sentence());
        (None, None)
    })
}

async fn tell_network(netlink: &Netlink) -> Vec<AddressEvent> {
    let told = match netlink.find_interface().await {
        Ok(interface) => announce(netlink.address(), &interface),
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        warn!("{}", error.sentence());
    }
    Vec::new()
}

fn source(done: Result<()>, well: AddressEvent) -> Vec<AddressEvent> {
    match done {
        Ok(()) => vec![well],
        Err(error) => vec![AddressEvent::SourceFailed { what: error.sentence() }],
    }
}
