//! The whole agent, as a process in a network namespace, with a daemon of the test's own and real units.

mod common;
#[path = "common/daemon.rs"]
mod daemon;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use daemon::Daemon;
use holdfast_config::{Cluster, Config, Mount, Node, Scrub, Store, Timers, Tls, Unit, UnitControl, Vip};
use holdfast_proto::control::{AgentReport, Role};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use tokio::process::{Child, Command};

struct Stage {
    folder: tempfile::TempDir,
    daemon: Daemon,
    agent: Child,
}

/// Whatever a test leaves running ends here.
impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.agent.start_kill();
        for name in ["first", "second"] {
            if let Some(pid) = self.unit(name) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let cgroup = vip_agent::units_cgroup(&self.folder.path().join("daemon.sock")).expect("a cgroup v2 hierarchy");
        let begun = boot_ms();
        while cgroup.exists() && boot_ms() - begun < 2000 {
            for folder in [cgroup.join("first"), cgroup.join("second"), cgroup.clone()] {
                let _ = fs::write(folder.join("cgroup.kill"), "1");
                let _ = fs::remove_dir(folder);
            }
            std::thread::yield_now();
        }
    }
}

impl Stage {
    async fn set() -> Self {
        let (folder, config) = stage_folder();
        Self::set_with(folder, &config).await
    }

    async fn set_with(folder: tempfile::TempDir, config: &Config) -> Self {
        let daemon = Daemon::start(&folder.path().join("daemon.sock"));
        fs::write(&config.file, holdfast_config::render(config)).expect("written");
        let agent = start_agent(&config.file);
        let stage = Self { folder, daemon, agent };
        stage
            .until("the agent reports as a standby", 3000, |report| report.eligible)
            .await;
        stage
    }

    async fn set_active() -> Self {
        let stage = Self::set().await;
        stage.activate(7).await;
        stage
    }

    async fn activate(&self, term: u64) {
        self.daemon.say(Role::Promoting, term);
        self.until("all units healthy", 5000, |report| report.units_healthy_unix_ms > 0)
            .await;
        self.daemon.say(Role::Active, term);
    }

    async fn until(&self, what: &str, within_ms: u64, holds: impl Fn(&AgentReport) -> bool) -> AgentReport {
        let begun = boot_ms();
        while !holds(&self.daemon.report()) {
            assert!(
                boot_ms() - begun < within_ms,
                "waited {within_ms} ms until {what}: {:#?}",
                self.daemon.report()
            );
            sleep(10).await;
        }
        self.daemon.report()
    }

    /// Instant at which the address was seen to be gone.
    async fn address_gone(&self, within_ms: u64) -> u64 {
        let begun = boot_ms();
        while has(VIP).await {
            assert!(
                boot_ms() - begun < within_ms,
                "the address is still here after {within_ms} ms"
            );
            sleep(5).await;
        }
        boot_ms()
    }

    fn unit(&self, name: &str) -> Option<Pid> {
        pid_of(self.folder.path(), name).filter(|pid| runs(*pid))
    }

    fn agent_pid(&self) -> Pid {
        Pid::from_raw(self.agent.id().expect("running") as i32).expect("a process id")
    }

    /// What the units noted of their own beginnings and ends.
    fn story(&self) -> String {
        fs::read_to_string(self.folder.path().join("story"))
            .unwrap_or_default()
            .replace('\n', " ")
    }
}

fn stage_folder() -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    (folder, config)
}

fn start_agent(config: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vip-agent"));
    command
        .arg("--config")
        .arg(config)
        .kill_on_drop(true)
        .spawn()
        .expect("the agent starts")
}

fn config(folder: &Path) -> Config {
    let node = |name: &str, last: u8| Node::new(name, format!("10.99.0.{last}").parse().expect("an address"));
    let file = |name: &str| folder.join(name);
    let tls = Tls {
        ca: file("ca.pem"),
        cert: file("node.pem"),
        key: file("node.key"),
    };
    Config {
        file: file("holdfast.toml"),
        cluster: Cluster {
            name: "test".to_owned(),
            id: "0123456789abcdef0123456789abcdef".to_owned(),
            revision: 0,
            nodes: vec![node("n1", 1), node("n2", 2), node("n3", 3)],
        },
        this: 0,
        tls,
        store: Store {
            path: file("store"),
            ..Store::default()
        },
        mount: Mount {
            path: file("mount"),
            ..Mount::default()
        },
        scrub: Scrub::default(),
        classes: Vec::new(),
        timers: Timers {
            grace: Duration::from_millis(1500),
            ..Timers::default()
        },
        vip: Some(Vip::new(VIP.parse().expect("an address"), 24)),
        watchdog: None,
        socket: file("daemon.sock"),
        // The first stays in the foreground, the second leaves its start command behind, in a session of its own.
        units: vec![
            script(folder, "first", "$run"),
            script(folder, "second", "setsid sh -c \"$run\" & sleep 0.1"),
        ],
    }
}

/// A unit whose process notes its id, its start and its polite stop.
fn script(folder: &Path, name: &str, start: &str) -> Unit {
    let folder = folder.display();
    let run = format!(
        "echo $$ >{folder}/{name}.pid; echo start-{name} >>{folder}/story; echo hello from {name}; \
         trap 'echo stop-{name} >>{folder}/story; exit 0' TERM; while true; do sleep 0.05; done"
    );
    let start = start
        .replace("\"$run\"", &format!("\"{}\"", run.replace('$', "\\$")))
        .replace("$run", &run);
    let shell = |text: String| ["/bin/sh", "-c", &text].map(str::to_owned).to_vec();
    let control = UnitControl::Command {
        start: shell(start),
        stop: shell(format!("kill $(cat {folder}/{name}.pid)")),
        status: shell(format!("kill -0 $(cat {folder}/{name}.pid)")),
        kill: Vec::new(),
    };
    let mut unit = Unit::new(name, control);
    unit.health_every = Duration::from_millis(200);
    unit
}

fn pid_of(folder: &Path, name: &str) -> Option<Pid> {
    let text = fs::read_to_string(folder.join(format!("{name}.pid"))).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_promotion_then_a_lease_that_is_not_renewed() {
    in_namespace(|| async {
        let ear = arp_ear();
        let before = own_routes().await;
        let stage = Stage::set().await;
        let not_before = boot_ms() + 700;
        stage.daemon.set(|facts| facts.vip_not_before_ms = not_before);
        stage.daemon.say(Role::Promoting, 7);
        while !has(VIP).await {
            assert!(boot_ms() < not_before + 500, "the address is late");
            sleep(5).await;
        }
        assert!(
            boot_ms() >= not_before,
            "the address came before the former owner's was gone"
        );
        let report = stage
            .until("all units healthy", 5000, |report| report.units_healthy_unix_ms > 0)
            .await;
        stage.daemon.say(Role::Active, 7);
        assert!(
            report.vip_held && report.eligible && report.vip_since_unix_ms > 0,
            "{report:#?}"
        );
        assert_eq!(
            (report.vip.as_str(), report.interface.as_str()),
            ("10.99.0.100/24", "v0")
        );
        assert_eq!(source_towards("192.0.2.1").await.to_string(), VIP);
        assert_eq!(stage.story(), "start-first start-second ");
        sleep(1500).await;
        assert_eq!(arps_heard(&ear), 10, "five times, as request and as reply");

        let lease_until = stage.daemon.silent();
        let gone = stage.address_gone(3000).await;
        assert!(
            gone < lease_until + 200,
            "the address was gone {} ms after the lease",
            gone - lease_until
        );
        assert_eq!(source_towards("192.0.2.1").await.to_string(), STATIC);
        assert_eq!(own_routes().await, before);
        while boot_ms() < lease_until + 1400 {
            assert!(
                stage.unit("first").is_some() && stage.unit("second").is_some(),
                "killed in the grace"
            );
            sleep(20).await;
        }
        while stage.unit("first").is_some() || stage.unit("second").is_some() {
            assert!(boot_ms() < lease_until + 1500 + 500, "the PBX outlived the grace");
            sleep(10).await;
        }
        let report = stage.until("released", 1000, |report| report.released_term == 7).await;
        assert!(!report.vip_held);
        assert_eq!(stage.story(), "start-first start-second ", "nobody was asked politely");
    });
}

#[test]
fn a_handover_stops_in_order_and_confirms() {
    in_namespace(|| async {
        let stage = Stage::set_active().await;
        assert_eq!(stage.daemon.report().released_term, 0);
        stage.daemon.say(Role::Handover, 7);
        let report = stage.until("released", 5000, |report| report.released_term == 7).await;
        assert!(!has(VIP).await && !report.vip_held);
        assert!(stage.unit("first").is_none() && stage.unit("second").is_none());
        assert_eq!(stage.story(), "start-first start-second stop-second stop-first ");
        stage.daemon.say(Role::Standby, 8);
        stage
            .until("a standby again", 2000, |report| {
                report.eligible && report.phase.contains("standby")
            })
            .await;
    });
}

#[test]
fn an_agent_that_died_adopts_what_it_left_and_one_that_is_stopped_leaves_nothing() {
    in_namespace(|| async {
        let mut stage = Stage::set_active().await;
        let units = (stage.unit("first"), stage.unit("second"));
        stage.agent.kill().await.expect("killed");
        stage.agent = start_agent(&stage.folder.path().join("holdfast.toml"));
        let pid = u64::from(stage.agent.id().expect("running"));
        let adopted = |report: &AgentReport| report.pid == pid && report.vip_held && report.units_healthy_unix_ms > 0;
        stage.until("adopted", 3000, adopted).await;
        assert_eq!((stage.unit("first"), stage.unit("second")), units);
        assert_eq!(stage.story(), "start-first start-second ");

        kill_process(stage.agent_pid(), Signal::TERM).expect("asked to stop");
        let ended = tokio::time::timeout(Duration::from_secs(5), stage.agent.wait()).await;
        assert!(ended.expect("ends in time").expect("waited for").success());
        assert!(!has(VIP).await);
        assert_eq!(stage.story(), "start-first start-second stop-second stop-first ");
        assert!(!ip("route show").await.contains(VIP));
    });
}

#[test]
fn an_agent_that_hangs_loses_the_address_to_the_kernel() {
    in_namespace(|| async {
        let before = own_routes().await;
        let stage = Stage::set_active().await;
        kill_process(stage.agent_pid(), Signal::STOP).expect("stopped");
        let hung = boot_ms();
        let gone = stage.address_gone(3000).await;
        assert!(
            gone - hung < 1300,
            "the address outlived a hung agent by {} ms",
            gone - hung
        );
        assert_eq!(own_routes().await, before);
        kill_process(stage.agent_pid(), Signal::CONT).expect("continued");
    });
}

#[test]
fn a_unit_that_dies_is_started_again_once() {
    in_namespace(|| async {
        let stage = Stage::set_active().await;
        let first = stage.unit("first").expect("running");
        kill_process(first, Signal::KILL).expect("killed");
        let report = stage.until("noticed", 3000, |report| !report.notices.is_empty()).await;
        assert!(report.notices[0].what.contains("restarted in place"), "{report:#?}");
        stage
            .until("healthy again", 3000, |report| {
                report.units.iter().all(|unit| unit.state == "healthy")
            })
            .await;
        let again = stage.unit("first").expect("running again");
        assert_ne!(again, first);
        kill_process(again, Signal::KILL).expect("killed");
        let report = stage.until("not eligible", 3000, |report| !report.eligible).await;
        assert!(
            report.not_eligible_because[0].contains("unit first has failed"),
            "{report:#?}"
        );
        assert!(has(VIP).await, "the address stays until the daemon decides");
    });
}

/// Hears all ARP, among them what comes in at the other end of the cable.
fn arp_ear() -> Socket {
    let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol.into())).expect("a packet socket");
    socket.set_nonblocking(true).expect("set");
    socket
}

fn arps_heard(ear: &Socket) -> usize {
    let mut count = 0;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
    while let Ok((length, from)) = ear.recv_from(&mut buffer) {
        // SAFETY: the kernel has filled that many bytes.
        let bytes: Vec<u8> = buffer[..length]
            .iter()
            .map(|byte| unsafe { byte.assume_init() })
            .collect();
        let incoming = outgoing_flag(&from) != libc::PACKET_OUTGOING;
        let sender = &bytes[14..18];
        count += usize::from(incoming && sender == [10, 99, 0, 100]);
    }
    count
}

fn outgoing_flag(from: &socket2::SockAddr) -> u8 {
    // SAFETY: a packet socket's peer is a sockaddr_ll.
    unsafe { (*from.as_ptr().cast::<libc::sockaddr_ll>()).sll_pkttype }
}

/// A pipe in the place of the device: what was written into it since the last look.
struct FakeWatchdog(fs::File);

impl FakeWatchdog {
    fn make(path: &Path) -> Self {
        let made = std::process::Command::new("mkfifo")
            .arg(path)
            .status()
            .expect("mkfifo runs");
        assert!(made.success());
        let both_ways = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .expect("opened");
        rustix::io::ioctl_fionbio(&both_ways, true).expect("doesn't block");
        Self(both_ways)
    }

    fn written(&mut self) -> Vec<u8> {
        let mut all = vec![0; 64];
        let length = std::io::Read::read(&mut self.0, &mut all).unwrap_or(0);
        all.truncate(length);
        all
    }
}

/// What `status` says of it never ends, whatever is killed.
fn immortal(folder: &Path) -> Unit {
    let mut unit = script(folder, "first", "$run");
    if let UnitControl::Command { status, .. } = &mut unit.control {
        *status = vec!["/bin/true".to_owned()];
    }
    unit
}

#[test]
fn the_watchdog_is_fed_until_a_pbx_outlives_its_role_and_can_not_be_killed() {
    in_namespace(|| async {
        let (folder, mut config) = stage_folder();
        let mut watchdog = FakeWatchdog::make(&folder.path().join("watchdog"));
        config.watchdog = Some(holdfast_config::Watchdog::new(
            folder.path().join("watchdog").to_str().expect("a path in UTF-8"),
        ));
        config.units.truncate(1);
        let mut stage = Stage::set_with(folder, &config).await;
        stage.activate(7).await;
        sleep(2500).await;
        let fed = watchdog.written();
        assert!(
            (2..=5).contains(&fed.len()) && fed.iter().all(|byte| *byte == 0),
            "{fed:?}"
        );

        // A PBX that dies with its role is no reason to reset anything, and an agent that ends in order says good-bye.
        stage.daemon.say(Role::Lost, 7);
        stage.until("released", 5000, |report| report.released_term == 7).await;
        sleep(3500).await;
        assert!(watchdog.written().len() >= 3, "still fed");
        kill_process(stage.agent_pid(), Signal::TERM).expect("asked to stop");
        stage.agent.wait().await.expect("waited for");
        assert_eq!(watchdog.written().last(), Some(&b'V'));

        config.units = vec![immortal(stage.folder.path())];
        fs::write(&config.file, holdfast_config::render(&config)).expect("written");
        stage.daemon.say(Role::Standby, 8);
        stage.agent = start_agent(&config.file);
        // Found at the start, and not to be killed either: fed all the same.
        sleep(17_000).await;
        assert!(watchdog.written().len() >= 15, "reset for what was there before");
        stage.daemon.say(Role::Active, 9);
        sleep(1500).await;
        watchdog.written();
        stage.daemon.say(Role::Lost, 9);
        sleep(14_000).await;
        assert!(watchdog.written().len() >= 10, "the PBX still had time to die");
        sleep(5500).await;
        watchdog.written();
        sleep(2500).await;
        assert_eq!(watchdog.written(), [], "fed although the PBX of a lost role runs");
    });
}

#[test]
fn a_watchdog_that_is_not_there_is_said() {
    in_namespace(|| async {
        let (folder, mut config) = stage_folder();
        config.watchdog = Some(holdfast_config::Watchdog::new("/dev/no-such-watchdog"));
        let stage = Stage::set_with(folder, &config).await;
        let said = |report: &AgentReport| {
            report
                .notices
                .iter()
                .any(|notice| notice.what.contains("/dev/no-such-watchdog failed"))
        };
        stage.until("a notice", 3000, said).await;
    });
}
