//! The daemons as systemd runs them, with the shipped unit files, on booted machines; the PBX is a unit of systemd.

use std::time::Duration;

use holdfast_tests::clock::wait_for;
use holdfast_tests::machines::{Machine, Machines};

/// The probe passes as soon as anything was ever written, running or not: that the unit runs has to be asked as well.
const CONFIGURATION: &str = r#"
[[unit]]
name = "pbx"
systemd = "pbx.service"
health_command = ["/usr/bin/test", "-s", "/var/lib/portsip/pbx.log"]
health_every_ms = 500
"#;

const PBX: &str = "
[Unit]
Description=Writes a line about its life into the shared folder

[Service]
ExecStart=/bin/sh -c 'echo begun on $(hostname) >> /var/lib/portsip/pbx.log; exec sleep infinity'
";

const PATIENCE: Duration = Duration::from_secs(60);

fn lines(machine: &Machine) -> Vec<String> {
    let log = machine.try_run("cat /var/lib/portsip/pbx.log").unwrap();
    log.lines().map(str::to_owned).collect()
}

#[track_caller]
fn wait_state(machine: &Machine, unit: &str, expected: &str) {
    let what = format!("{unit} to be {expected} on {}", machine.name());
    wait_for(&what, PATIENCE, || {
        Ok((machine.unit_state(unit)? == expected).then_some(()))
    })
    .unwrap();
}

fn runs_on_one_alone(machines: &Machines, active: &str) {
    for machine in machines.all() {
        let runs = machine.unit_state("pbx").unwrap() == "active";
        let has_vip = machine
            .try_run("ip addr show dev eth0")
            .unwrap()
            .contains(machines.vip());
        let expected = machine.name() == active;
        assert_eq!(
            (runs, has_vip),
            (expected, expected),
            "PBX and address on {}",
            machine.name()
        );
    }
}

/// One course, for booting takes its time.
#[test]
fn systemd_runs_the_daemons_and_the_agent_runs_the_pbx() {
    let mut machines = Machines::boot(CONFIGURATION, &[("pbx.service", PBX)]).unwrap();
    let first = machines.wait_active_other_than("nobody").unwrap();
    let name = first.name().to_owned();
    runs_on_one_alone(&machines, &name);
    assert_eq!(lines(first), [format!("begun on {name}")]);

    eprintln!("an agent that dies is started again and adopts the PBX");
    let pbx = first.main_process("pbx").unwrap();
    first
        .try_run("kill -9 $(systemctl show --property MainPID --value vip-agent)")
        .unwrap();
    machines.wait_active_other_than("nobody").unwrap();
    wait_state(first, "vip-agent", "active");
    assert_eq!(first.main_process("pbx").unwrap(), pbx);

    eprintln!("an agent that is restarted in order stops the PBX and starts it again");
    first.try_run("systemctl restart vip-agent").unwrap();
    wait_for("the PBX to be started again", PATIENCE, || {
        let now = first.main_process("pbx")?;
        Ok((now != 0 && now != pbx).then_some(()))
    })
    .unwrap();

    eprintln!("a PBX that dies is started again in place");
    first.try_run("systemctl kill --signal=KILL pbx").unwrap();
    wait_for("the PBX to be started again", PATIENCE, || {
        Ok((first.unit_state("pbx")? == "active" && lines(first).len() == 3).then_some(()))
    })
    .unwrap();
    assert_eq!(machines.status().unwrap()["active"], *name);

    eprintln!("a PBX started by hand on a standby is stopped");
    let standby = machines.all().iter().find(|machine| machine.name() != name).unwrap();
    standby.try_run("systemctl start pbx").unwrap();
    wait_for("the stray PBX to be gone", PATIENCE, || {
        Ok((standby.unit_state("pbx")? != "active").then_some(()))
    })
    .unwrap();

    eprintln!("a bus that was restarted meanwhile is asked anew; a daemon that is stopped hands the role over");
    first.try_run("systemctl restart dbus").unwrap();
    first.try_run("systemctl stop holdfast").unwrap();
    let second = machines.wait_active_other_than(&name).unwrap();
    assert_eq!(lines(second).len(), 4);
    assert_eq!(first.unit_state("pbx").unwrap(), "inactive");
    first.try_run("systemctl start holdfast").unwrap();
    wait_state(first, "holdfast", "active");
    runs_on_one_alone(&machines, second.name());

    eprintln!("a daemon that hangs is ended by systemd's watchdog, and starts again");
    let hung = second.main_process("holdfast").unwrap();
    second.try_run(&format!("kill -STOP {hung}")).unwrap();
    let third = machines
        .wait_active_other_than(second.name())
        .unwrap()
        .name()
        .to_owned();
    wait_for("the watchdog", PATIENCE, || {
        let now = second.main_process("holdfast")?;
        Ok((now != 0 && now != hung).then_some(()))
    })
    .unwrap();
    wait_for("all three nodes", PATIENCE, || {
        let status = machines.status()?;
        let nodes = status["nodes"].as_array().expect("a status has nodes");
        let well = nodes
            .iter()
            .all(|node| node["role"] == "active" || node["could_take_over"] == true);
        Ok((well && !status["active"].is_null()).then_some(()))
    })
    .unwrap();

    eprintln!("a machine dies");
    machines.kill(&third);
    let fourth = machines.wait_active_other_than(&third).unwrap();
    assert_eq!(lines(fourth).len(), 6);
}
