//! What a failover keeps and what it ends: nothing acknowledged is lost, there is one writer and one owner of the
//! address, and the former active node answers nothing any more.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::apart::apart;
use common::sampler::Sampler;
use common::{
    Appender, PATIENCE, Reader, SLACK, assert_records, assert_same, content, lab, read, ready, seconds, wait_other,
    write,
};
use common::{holds_vip, log, start, write_synced};
use holdfast_tests::clock::{now, pause, wait_for};
use holdfast_tests::lab::{Lab, LabOptions, Node, cluster_status};
use holdfast_tests::process::ProcessId;
use rustix::process::Signal;

/// Doesn't start where somebody says so.
const SLEEPER: &str = r#"
[[unit]]
name = "pbx"
start = ["/bin/sh", "-c", "test ! -e {dir}/broken && echo $$ > {dir}/pbx.pid && exec sleep 100000"]
stop = ["/bin/sh", "-c", "kill $(cat {dir}/pbx.pid)"]
status = ["/bin/sh", "-c", "kill -0 $(cat {dir}/pbx.pid)"]
"#;

/// An image that is missing there, a port that is taken: nobody is told until the PBX is to start.
#[test]
fn a_pbx_that_does_not_start_on_the_new_active_node_is_started_on_another() {
    let lab = lab(LabOptions {
        units: SLEEPER.into(),
        ..LabOptions::default()
    });
    let active = ready(&lab);
    let broken = lab.others(active.name())[0].clone();
    fs::write(broken.dir().join("broken"), "").unwrap();
    let switched = wait_for("the switch", PATIENCE, || {
        let words = ["holdfast", "switchover", "--to", broken.name()];
        Ok(active.exec_within(&words, seconds(60))?.status.success().then_some(()))
    });
    switched.unwrap();
    let served = wait_for("the PBX on another node", seconds(60), || {
        let view = lab.status()?;
        let next = view["active"].as_str().filter(|next| *next != broken.name());
        let is_well = |next: &&str| {
            let units = &cluster_status::entry(&view, next)["units"];
            units.to_string().contains("healthy")
        };
        Ok(next.filter(is_well).map(str::to_owned))
    });
    let next = served.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(40)));
    // And there it stays.
    pause(seconds(8));
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), next);
    let written = write(lab.node(&next).mnt().join("file"), *b"served").within(PATIENCE);
    written.expect("a write ends").unwrap();
}

fn pbx_is(state: &str, lab: &Lab, node: &str) -> anyhow::Result<bool> {
    let view = lab.status()?;
    let units = cluster_status::entry(&view, node)["units"].to_string();
    Ok(units.contains(&format!("\"{state}\"")))
}

/// An address that nobody has helps no operator; what is wrong may be mended meanwhile.
#[test]
fn a_node_on_which_the_pbx_failed_serves_where_no_other_can() {
    let lab = lab(LabOptions {
        units: SLEEPER.into(),
        ..LabOptions::default()
    });
    let first = ready(&lab);
    let others = lab.others(first.name());
    let (second, third) = (others[0].clone(), others[1]);
    wait_for("the PBX", PATIENCE, || {
        Ok(pbx_is("healthy", &lab, first.name())?.then_some(()))
    })
    .unwrap();
    third.kill().unwrap();
    for node in [&first, &second] {
        fs::write(node.dir().join("broken"), "").unwrap();
    }
    let pid = fs::read_to_string(first.dir().join("pbx.pid")).unwrap();
    let killed = Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
    assert!(killed.success());
    wait_for("a second node without a PBX", seconds(60), || {
        let is_active = lab.wait_active(PATIENCE)? == second.name();
        Ok((is_active && pbx_is("failed", &lab, second.name())?).then_some(()))
    })
    .unwrap();
    // What failed right before a file system ended is excused.
    pause(seconds(7));
    let mount = second.mnt().display().to_string();
    let ended = lab.exec(second.name(), &["umount", "--lazy", &mount]).unwrap();
    assert!(ended.status.success(), "{ended:?}");
    // Whichever of the two is elected now.
    for node in [&first, &second] {
        fs::remove_file(node.dir().join("broken")).unwrap();
    }
    let again = wait_for("the PBX on a node where it failed", seconds(60), || {
        let active = lab.wait_active(PATIENCE)?;
        Ok(pbx_is("healthy", &lab, &active)?.then_some(()))
    });
    again.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(40)));
}

#[test]
fn what_was_acknowledged_survives_the_death_of_the_active_node() {
    let lab = lab(LabOptions::default());
    let mut active = ready(&lab);
    for round in 0..2 {
        let folder = format!("round-{round}");
        fs::create_dir(active.mnt().join(&folder)).unwrap();
        let path = |node: &Node, name: &str| node.mnt().join(&folder).join(name);
        let received = Appender::start(path(&active, "received"), false);
        let durable = Appender::start(path(&active, "durable"), true);
        received.wait_for(100);
        durable.wait_for(30);
        active.kill().unwrap();
        let next = wait_other(&lab, &active);
        assert_records(&path(&next, "received"), received.finish().0);
        assert_records(&path(&next, "durable"), durable.finish().0);
        assert_same(&lab);
        active = next;
    }
    assert_records(&active.mnt().join("round-0/durable"), 30);
}

/// Writes growing numbers into a file until it is told to stop, and notes when each was acknowledged.
fn number(path: PathBuf, from: u64, stop: Arc<AtomicBool>) -> Arc<Mutex<Vec<(u64, Instant)>>> {
    let written = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&written);
    apart(move || {
        for version in from.. {
            if stop.load(Ordering::SeqCst) || fs::write(&path, version.to_string()).is_err() {
                break;
            }
            into.lock().unwrap().push((version, now()));
            pause(Duration::from_millis(10));
        }
    });
    written
}

const SECOND_LIFE: u64 = 1_000_000;

/// No read of the old node that was asked after the new one's first write may be answered with what was before it.
fn assert_no_stale_read(answers: &[common::Answer], written: &[(u64, Instant)]) {
    let first = written.first().expect("the new active node has written").1;
    for answer in answers.iter().filter(|answer| answer.asked > first) {
        let text = String::from_utf8_lossy(&answer.content);
        // Between opening for truncation and the write the file is empty: the same life, then.
        let fresh = text.parse().is_ok_and(|version: u64| version >= SECOND_LIFE);
        assert!(
            fresh,
            "asked {:?} after the new node's first write, the old one answered {text:?}",
            answer.asked - first
        );
    }
}

/// Takes a lock of each kind on the file, says so, and holds them.
const HOLD_LOCKS: &str = r"
import fcntl, sys, time
held = [open(sys.argv[1] + kind, 'w') for kind in ('.flock', '.record')]
fcntl.flock(held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.lockf(held[1], fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 50)
print('held', flush=True)
time.sleep(1000)
";

/// A process that holds the locks; it ends with this value.
struct Holder(Child);

impl Holder {
    /// None if a lock couldn't be had.
    fn start(node: &Node) -> Option<Self> {
        let child = Command::new("python3")
            .args(["-c", HOLD_LOCKS])
            .arg(node.mnt().join("lock"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut holder = Self(child);
        let mut said = String::new();
        let mut output = BufReader::new(holder.0.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        (said == "held\n").then_some(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn locks_end_with_their_node_and_with_their_process() {
    let lab = lab(LabOptions::default());
    let old = ready(&lab);
    let first = Holder::start(&old).expect("nobody else has the locks");
    assert!(Holder::start(&old).is_none(), "a second process holds the same locks");
    drop(first);
    let third = Holder::start(&old).expect("the locks of a process end with it");
    old.kill().unwrap();
    let new = wait_other(&lab, &old);
    let fourth = Holder::start(&new).expect("the locks of the former active node are gone");
    drop((third, fourth));
    assert_same(&lab);
}

#[test]
fn a_file_open_on_a_stopped_nodes_mount_holds_nothing_up() {
    let lab = lab(LabOptions::default());
    let old = ready(&lab);
    let path = old.mnt().join("open");
    let (opened, is_open) = channel();
    let (end, ended) = channel::<()>();
    apart(move || {
        let file = fs::File::create(path).unwrap();
        opened.send(()).unwrap();
        let _at_the_end = ended.recv();
        drop(file);
    });
    is_open.recv().unwrap();
    old.pause().unwrap();
    let began = now();
    let new = wait_other(&lab, &old);
    write_synced(new.mnt().join("new"), "x")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    assert!(began.elapsed() < PATIENCE);
    old.resume().unwrap();
    drop(end);
    assert_same(&lab);
}

#[test]
fn a_cut_active_node_falls_silent_and_gives_the_address_up() {
    let lab = lab(LabOptions::default());
    let old = ready(&lab);
    let stop = Arc::new(AtomicBool::new(false));
    number(old.mnt().join("number"), 1, Arc::clone(&stop));
    wait_for("the address on the active node", PATIENCE, || {
        Ok(holds_vip(&lab, old.name()).then_some(()))
    })
    .unwrap();
    let sampler = Sampler::start(&lab);
    let reader = Reader::start(old.mnt().join("number"));
    pause(seconds(1));
    lab.cut(old.name()).unwrap();
    let cut = now();
    wait_for("the cut node to lose the address", seconds(20), || {
        Ok((!holds_vip(&lab, old.name())).then_some(()))
    })
    .unwrap();
    // At most the lease and the lifetime of the address; the rest is a busy machine's.
    assert!(
        cut.elapsed() < seconds(3) + SLACK,
        "the address was there for {:?}",
        cut.elapsed()
    );
    let new = wait_other(&lab, &old);
    let written = number(new.mnt().join("number"), SECOND_LIFE, Arc::clone(&stop));
    wait_for("the address on the new node", PATIENCE, || {
        Ok(holds_vip(&lab, new.name()).then_some(()))
    })
    .unwrap();
    let pinged = lab
        .client(&["ping", "-q", "-c", "3", "-W", "1", &lab.vip().to_string()])
        .unwrap();
    assert!(pinged.status.success(), "the address answers on the new node");
    pause(seconds(4));
    // By now the grace is over: the old mount must not even hang any more.
    let answer = read(old.mnt().join("number"))
        .within(seconds(10))
        .expect("the lost role's mount has ended");
    assert!(answer.is_err(), "the cut node answered {answer:?}");
    lab.heal().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    // What it had sequenced alone is gone, and that is said.
    let said = old.exec_within(&["holdfast", "status"], seconds(20)).unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    let is_said = said.contains("dropped when it followed the active node") && said.contains("/number");
    assert!(is_said, "{said}");
    stop.store(true, Ordering::SeqCst);
    sampler.finish();
    assert_no_stale_read(&reader.finish(), &written.lock().unwrap());
    assert_same(&lab);
}

fn unit_pid(node: &Node) -> Option<i32> {
    fs::read_to_string(node.dir().join("pbx.pid")).ok()?.trim().parse().ok()
}

/// The PBX's process on a node, once it runs.
fn unit(node: &Node) -> ProcessId {
    let found = wait_for("the PBX unit", PATIENCE, || Ok(unit_pid(node).and_then(ProcessId::of)));
    found.unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn a_cut_shorter_than_the_grace_leaves_the_pbx_running() {
    let options = LabOptions {
        units: SLEEPER.into(),
        ..LabOptions::default()
    };
    let options = options
        .set("timers.grace_ms", 12_000)
        .set("mount.request_deadline_ms", 20_000);
    let lab = lab(options);
    let active = ready(&lab);
    let pbx = unit(&active);
    // The switch reboots: nobody reaches anyone, and the lease runs out.
    for node in lab.nodes() {
        lab.cut(node.name()).unwrap();
    }
    let waiting = write(active.mnt().join("waits"), "over the cut");
    wait_for("the role to be suspended", seconds(10), || {
        let view = cluster_status::of_node(&active)?;
        Ok((cluster_status::entry(&view, active.name())["role"] == "suspended").then_some(()))
    })
    .unwrap();
    assert!(pbx.alive(), "a suspended role leaves the PBX alone");
    lab.heal().unwrap();
    let again = lab.wait_active(PATIENCE).unwrap();
    assert_eq!(again, active.name(), "the others let the suspended node stand first");
    assert!(
        matches!(waiting.within(PATIENCE), Some(Ok(()))),
        "a held request is answered"
    );
    pause(seconds(2));
    assert!(pbx.alive(), "the PBX runs on:\n{}", log(&active, "vip-agent"));
    assert_eq!(unit(&active), pbx);
}

#[test]
fn without_a_majority_nothing_is_acknowledged_and_all_waiters_end() {
    let deadline = seconds(6);
    let lab = lab(LabOptions::default().set("mount.request_deadline_ms", 6000));
    let active = ready(&lab);
    let path = |name: &str| active.mnt().join(name);
    fs::write(path("before"), "kept").unwrap();
    let durable = Appender::start(path("durable"), true);
    durable.wait_for(20);
    for standby in lab.others(active.name()) {
        standby.kill().unwrap();
    }
    let alone = now();
    let writers = [
        write(path("one"), "x"),
        write_synced(path("two"), "y"),
        write(path("before"), "changed"),
    ];
    let folder = path("folder");
    let folder = start(move || fs::create_dir(folder));
    for (at, writer) in writers.iter().enumerate() {
        let outcome = writer
            .within(deadline + SLACK)
            .unwrap_or_else(|| panic!("writer {at} still waits"));
        let errno = outcome.expect_err("nothing is acknowledged").raw_os_error();
        // A write that came when the mount had ended already sees the end of the connection, or of the role.
        let known = [libc::EIO, libc::ENOTCONN, libc::ECONNABORTED, libc::EAGAIN, libc::EROFS];
        assert!(known.contains(&errno.unwrap_or(0)), "writer {at}: errno {errno:?}");
    }
    folder
        .within(deadline + SLACK)
        .expect("mkdir ends")
        .expect_err("nothing is acknowledged");
    assert!(alone.elapsed() < deadline + SLACK);
    let (acknowledged, error) = durable.finish();
    assert!(error.is_some());
    for standby in lab.others(active.name()) {
        standby.start().unwrap();
    }
    let next = lab.wait_ready(PATIENCE).unwrap();
    assert_records(&lab.node(&next).mnt().join("durable"), acknowledged);
    assert_same(&lab);
}

#[test]
fn a_switchover_keeps_every_byte_and_never_has_two_owners() {
    let lab = lab(LabOptions::default());
    let mut active = ready(&lab);
    let sampler = Sampler::start(&lab);
    for round in 0..2 {
        let name = format!("records-{round}");
        let appender = Appender::start(active.mnt().join(&name), round == 1);
        appender.wait_for(30);
        let to = lab.others(active.name())[0].clone();
        let output = lab
            .exec(active.name(), &["holdfast", "switchover", "--to", to.name()])
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let next = wait_other(&lab, &active);
        assert_eq!(next.name(), to.name());
        assert_records(&next.mnt().join(&name), appender.finish().0);
        wait_for("the address on the new node", PATIENCE, || {
            Ok(holds_vip(&lab, next.name()).then_some(()))
        })
        .unwrap();
        active = next;
    }
    sampler.finish();
    assert_same(&lab);
}

/// Nothing serves without it, though the daemon is well.
#[test]
fn a_mount_that_somebody_ends_is_brought_up_again() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let kept = write_synced(active.mnt().join("before"), b"kept");
    kept.within(PATIENCE).unwrap().unwrap();
    let mount = active.mnt().display().to_string();
    let ended = lab.exec(active.name(), &["umount", "--lazy", &mount]).unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let again = wait_for("a file system on the active node", PATIENCE, || {
        let node = lab.node(&lab.wait_ready(PATIENCE)?).clone();
        Ok(fs::read(node.mnt().join("before"))
            .is_ok_and(|found| found == b"kept")
            .then_some(node))
    });
    let again = again.unwrap();
    let too = write_synced(again.mnt().join("after"), b"too");
    too.within(PATIENCE).unwrap().unwrap();
    assert!(lab.nodes().iter().any(|node| {
        node.log_tails(400)
            .contains("was unmounted or aborted by something else")
    }));
    assert_same(&lab);
}

/// Its node would keep a role that nobody can reach: the address has run out.
#[test]
fn a_role_without_an_agent_goes_where_one_is() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let kept = write_synced(active.mnt().join("before"), b"kept");
    kept.within(PATIENCE).unwrap().unwrap();
    active.signal_daemon("vip-agent", Signal::STOP).unwrap();
    let next = wait_other(&lab, &active);
    assert_eq!(content(&next.mnt().join("before")), b"kept");
    wait_for("the address there", PATIENCE, || {
        Ok(holds_vip(&lab, next.name()).then_some(()))
    })
    .unwrap();
    assert!(!holds_vip(&lab, active.name()));
    active.signal_daemon("vip-agent", Signal::CONT).unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert!(!holds_vip(&lab, active.name()));
}

/// What a node lacks is on its way to it for ten seconds. Heartbeats that waited behind that would end the lease, and with it the role.
#[test]
fn catching_up_over_a_slow_link_costs_no_lease() {
    let lab = lab(LabOptions {
        log_mib: 256,
        ..LabOptions::default()
    });
    let active = ready(&lab);
    let others = lab.others(active.name());
    let (behind, away) = (others[0].clone(), others[1].clone());
    behind.kill().unwrap();
    for file in 0..10 {
        let content: Vec<u8> = (file..file + 1_200_000_u32).flat_map(u32::to_le_bytes).collect();
        let written = write_synced(active.mnt().join(format!("large-{file}")), content);
        written.within(PATIENCE).unwrap().unwrap();
    }
    let suspensions = || active.log_tails(1000).matches("suspended: no majority").count();
    let before = suspensions();
    lab.slow_down(40).unwrap();
    behind.start().unwrap();
    let lacks = || -> anyhow::Result<Option<u64>> {
        let view = lab.status()?;
        let entry = cluster_status::entry(&view, behind.name());
        Ok(entry["lag_bytes"].as_u64().filter(|_| entry["reachable"] == true))
    };
    let many = || Ok(lacks()?.filter(|bytes| *bytes > 16 << 20));
    wait_for("a node that catches up", PATIENCE, many).unwrap();
    away.kill().unwrap();
    let since = now();
    let few = wait_for("its end", seconds(90), || Ok(lacks()?.filter(|bytes| *bytes < 1 << 20)));
    few.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(40)));
    // Longer than any lease.
    assert!(since.elapsed() > seconds(2), "{:?}", since.elapsed());
    assert_eq!(suspensions(), before, "{}", lab.log_tails(40));
    assert!(holds_vip(&lab, active.name()));
    let written = write_synced(active.mnt().join("after"), b"after");
    written.within(PATIENCE).unwrap().unwrap();
}

#[test]
fn a_standby_that_was_away_catches_up() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let away = lab.others(active.name())[0].clone();
    away.kill().unwrap();
    let appender = Appender::start(active.mnt().join("records"), false);
    for file in 0..8 {
        let content: Vec<u8> = (file..file + 1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        write_synced(active.mnt().join(format!("large-{file}")), content)
            .within(PATIENCE)
            .unwrap()
            .unwrap();
    }
    fs::rename(active.mnt().join("large-7"), active.mnt().join("large-0")).unwrap();
    away.start().unwrap();
    appender.wait_for(200);
    let (acknowledged, error) = appender.finish();
    assert!(
        error.is_none(),
        "a standby's comings and goings disturb nobody: {error:?}"
    );
    assert_same(&lab);
    // And it can take over.
    let third = lab.others(active.name())[1].clone();
    third.kill().unwrap();
    active.kill().unwrap();
    third.start().unwrap();
    let next = wait_other(&lab, &active);
    assert_records(&next.mnt().join("records"), acknowledged);
}

/// A node that crashed may lack what it had confirmed from memory. Started out of everybody's reach and stopped in order it still does.
#[test]
fn an_end_in_order_vouches_for_nothing_that_a_crash_took() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let node = lab.others(active.name())[0].clone();
    let leaves_the_mark = || {
        node.signal_daemon("holdfast", Signal::TERM).unwrap();
        let ended = || Ok(node.daemon("holdfast").is_none().then_some(()));
        wait_for("the daemon to end", PATIENCE, ended).unwrap();
        node.dir().join("store/clean-stop").exists()
    };
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert!(leaves_the_mark(), "it lacked nothing:\n{}", node.log_tails(20));

    node.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    node.kill().unwrap();
    lab.cut(node.name()).unwrap();
    node.start().unwrap();
    wait_for("the daemon to answer", PATIENCE, || {
        Ok(cluster_status::is_live(&node).then_some(()))
    })
    .unwrap();
    assert!(
        !leaves_the_mark(),
        "it can't know what it lacks:\n{}",
        node.log_tails(20)
    );

    lab.heal().unwrap();
    node.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    wait_for("the node to have again what it had", PATIENCE, || {
        let forgetful = cluster_status::entry(&lab.status()?, node.name())["forgetful"].as_bool();
        Ok((forgetful == Some(false)).then_some(()))
    })
    .unwrap();
    assert!(leaves_the_mark(), "it has all of it again:\n{}", node.log_tails(20));
}

#[test]
fn a_paused_active_node_wakes_up_without_the_role() {
    let lab = lab(LabOptions::default());
    let old = ready(&lab);
    let stop = Arc::new(AtomicBool::new(false));
    number(old.mnt().join("number"), 1, Arc::clone(&stop));
    let reader = Reader::start(old.mnt().join("number"));
    let sampler = Sampler::start(&lab);
    pause(seconds(1));
    old.pause().unwrap();
    let frozen = now();
    let new = wait_other(&lab, &old);
    let written = number(new.mnt().join("number"), SECOND_LIFE, Arc::clone(&stop));
    pause(seconds(5).saturating_sub(frozen.elapsed()));
    old.resume().unwrap();
    pause(seconds(3));
    let asked = read(old.mnt().join("number"))
        .within(seconds(10))
        .expect("the resumed node's mount answers");
    assert!(asked.is_err(), "the resumed node answered {asked:?}");
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    stop.store(true, Ordering::SeqCst);
    sampler.finish();
    assert_no_stale_read(&reader.finish(), &written.lock().unwrap());
    assert_same(&lab);
}

#[test]
fn when_the_durable_logs_alone_decide_status_names_the_files_that_may_lack_bytes() {
    let lab = lab(LabOptions::default().set("timers.forgetful_wait_ms", 2000));
    let active = ready(&lab);
    let call = active.mnt().join("pbx/call.wav");
    fs::create_dir(active.mnt().join("pbx")).unwrap();
    write_synced(active.mnt().join("early"), "x")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    let appender = Appender::start(call, false);
    appender.wait_for(200);
    for node in lab.nodes() {
        node.pause().unwrap();
    }
    for node in lab.nodes() {
        node.kill().unwrap();
    }
    drop(appender.finish());
    let [first, second, _] = lab.nodes() else {
        panic!("three nodes")
    };
    first.start().unwrap();
    second.start().unwrap();
    lab.wait_active(PATIENCE).unwrap();
    let named = wait_for("the notice", PATIENCE, || {
        let status = lab.status()?.to_string();
        Ok(status.contains("the durable logs alone decided").then_some(status))
    });
    let status = named.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(20)));
    assert!(status.contains("/pbx/call.wav"), "{status}");
    assert_same(&lab);
}
