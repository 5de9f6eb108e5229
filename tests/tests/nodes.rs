//! Nodes are replaced, moved, taken out, and given other certificates, while the cluster is in use.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Appender, PATIENCE, assert_records, assert_same, lab, ready, seconds, wait_logged};
use holdfast_tests::clock::{pause, wait_for};
use holdfast_tests::lab::{Lab, LabOptions, Node};

/// Whether it succeeded, and all that it said.
fn call(node: &Node, words: &[&str]) -> (bool, String) {
    let config = node.files().config();
    let config = ["--config", config.to_str().expect("UTF-8")];
    called(node, &[&["holdfast", "node"], words, &config].concat())
}

fn called(node: &Node, words: &[&str]) -> (bool, String) {
    let output = node.exec_within(words, seconds(60)).unwrap();
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    (output.status.success(), said.concat())
}

#[track_caller]
fn refused(outcome: (bool, String), because: &str) {
    let (done, said) = outcome;
    assert!(!done && said.contains(because), "{because} isn't in: {said}");
}

#[track_caller]
fn done(outcome: (bool, String)) -> String {
    assert!(outcome.0, "{}", outcome.1);
    outcome.1
}

fn ca(lab: &Lab) -> String {
    lab.dir().join("conf/ca").display().to_string()
}

fn spare(lab: &Lab, node: &Node) -> String {
    lab.id().spare(node.name()).to_string()
}

fn give_address(node: &Node, address: &str) {
    let words = ["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"];
    done(called(node, &words));
}

fn take_address(node: &Node, address: &str) {
    done(called(
        node,
        &["ip", "address", "del", &format!("{address}/24"), "dev", "eth0"],
    ));
}

fn status(node: &Node) -> String {
    called(node, &["holdfast", "status"]).1
}

fn wait_status(node: &Node, words: &str) {
    let seen = wait_for("the words in the status", PATIENCE, || {
        Ok(status(node).contains(words).then_some(()))
    });
    seen.unwrap_or_else(|error| panic!("{error:#}: {words:?} isn't in:\n{}", status(node)));
}

/// A node that was just started isn't fit yet.
fn switch(from: &Node, to: &Node) {
    let switched = wait_for("the switch", PATIENCE, || {
        Ok(called(from, &["holdfast", "switchover", "--to", to.name()])
            .0
            .then_some(()))
    });
    switched.unwrap();
}

fn stop(node: &Node) {
    node.signal_daemon("holdfast", rustix::process::Signal::TERM).unwrap();
    let ended = wait_for("the end of the daemon", PATIENCE, || {
        Ok(node.daemon("holdfast").is_none().then_some(()))
    });
    ended.unwrap();
}

fn token_of(said: &str) -> String {
    let line = said.lines().find(|line| line.starts_with("holdfast-join-"));
    line.unwrap_or_else(|| panic!("no token in: {said}")).to_owned()
}

/// On the new machine: the paths of the lab's nodes differ.
fn join(node: &Node, token: &str) -> (bool, String) {
    let path = |name: &str| node.dir().join(name).display().to_string();
    let words = [
        "holdfast",
        "join",
        token,
        "--into",
        &path("."),
        "--store",
        &path("store"),
    ];
    let more = ["--mount", &path("mnt"), "--socket", &path("holdfast.sock")];
    called(node, &[words.as_slice(), &more].concat())
}

/// What the machine that died would be if somebody repaired it: its store and its configuration, elsewhere in the lab.
struct Old {
    folder: PathBuf,
    /// As it was when the machine died.
    configuration: String,
}

impl Old {
    fn keep(node: &Node) -> Self {
        let folder = node.dir().with_extension("old");
        fs::create_dir(&folder).unwrap();
        fs::rename(node.dir().join("store"), folder.join("store")).unwrap();
        fs::create_dir(folder.join("mnt")).unwrap();
        let (from, to) = (node.dir().display().to_string(), folder.display().to_string());
        let text = fs::read_to_string(node.files().config()).unwrap();
        let configuration = text.replace(&format!("{from}/"), &format!("{to}/"));
        fs::remove_file(node.files().config()).unwrap();
        Self { folder, configuration }
    }

    /// For some seconds; what it logged.
    fn run(&self, node: &Node) -> String {
        let log = self.folder.join("log");
        fs::write(self.folder.join("holdfast.toml"), &self.configuration).unwrap();
        let mut command = node.command("holdfast").unwrap();
        command
            .arg("serve")
            .arg("--config")
            .arg(self.folder.join("holdfast.toml"));
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut daemon = command.spawn().unwrap();
        pause(seconds(4));
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        daemon.wait().unwrap();
        fs::read_to_string(log).unwrap()
    }
}

fn not_heard(logged: &str) {
    assert!(
        logged.contains("in this node's configuration, and this comes from"),
        "{logged}"
    );
    assert!(!logged.contains("the store is to be copied"), "{logged}");
}

#[test]
fn a_new_machine_takes_the_place_of_a_dead_one() {
    let lab = lab(LabOptions {
        agent: false,
        ..LabOptions::default()
    });
    let active = ready(&lab);
    let dead = lab.others(active.name())[0].clone();
    let (ca, address, name) = (ca(&lab), spare(&lab, &dead), dead.name().to_owned());
    let replace = ["replace", &name, "--addr", &address, "--ca", &ca];
    refused(call(&active, &replace), "answers, so it isn't gone");
    refused(call(&dead, &replace), "is this very node");
    let records = active.mnt().join("records");
    let load = Appender::start(records.clone(), true);
    load.wait_for(50);
    dead.kill().unwrap();
    wait_status(&active, &format!("{name}: not reached"));

    // Another cluster's CA, before anything was changed.
    let other = active.dir().join("other");
    let other_out = other.display().to_string();
    let nodes = [
        "--node",
        "n1=10.0.0.1",
        "--node",
        "n2=10.0.0.2",
        "--node",
        "n3=10.0.0.3",
    ];
    let init = [
        &["holdfast", "init", "--cluster", "lab", "--out", &other_out],
        nodes.as_slice(),
    ]
    .concat();
    done(called(&active, &init));
    let wrong = ["replace", &name, "--addr", &address, "--ca", &format!("{other_out}/ca")];
    refused(call(&active, &wrong), "isn't accepted");
    refused(call(&active, &["replace", "n9", "--ca", &ca]), "no node is named");
    let taken = lab.id().address(active.name()).to_string();
    refused(
        call(&active, &["replace", &name, "--addr", &taken, "--ca", &ca]),
        "is the address of both",
    );

    let old = Old::keep(&dead);
    let said = done(call(&active, &replace));
    let third = lab.others(active.name())[1].clone();
    assert!(
        said.contains("It is in use on") && said.contains(third.name()),
        "{said}"
    );
    let token = token_of(&said);
    // It comes back before the new one is there: it is told nothing but that, and gets no copy in the other's place.
    not_heard(&old.run(&dead));
    refused(join(&dead, &token[..token.len() - 4]), "copy it as a whole");
    refused(join(&dead, &token), &format!("hasn't the address {address}"));
    give_address(&dead, &address);
    fs::create_dir(dead.dir().join("store")).unwrap();
    fs::write(dead.dir().join("store/file"), "somebody's").unwrap();
    refused(join(&dead, &token), "isn't empty");
    assert!(
        !dead.files().config().exists(),
        "nothing is written before all is right"
    );
    fs::remove_dir_all(dead.dir().join("store")).unwrap();
    let said = done(join(&dead, &token));
    assert!(said.contains("systemctl enable --now holdfast vip-agent"), "{said}");
    refused(join(&dead, &token), "this machine is a node already");
    dead.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();

    // The machine that was given up comes back: it is heard nowhere, and the new one isn't disturbed.
    not_heard(&old.run(&dead));
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let (written, error) = load.finish();
    assert!(error.is_none(), "{error:?}");
    switch(&active, &dead);
    assert_records(&dead.mnt().join("records"), written);
    assert_same(&lab);
}

/// A file that not even root changes, for as long as this lives.
struct Fixed(PathBuf);

impl Fixed {
    fn new(file: PathBuf) -> Self {
        Self::set("+i", &file);
        Self(file)
    }

    fn set(flag: &str, file: &Path) {
        let set = std::process::Command::new("chattr").arg(flag).arg(file).status();
        assert!(set.expect("chattr is there").success());
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        Self::set("-i", &self.0);
    }
}

/// Or each of the two that go on would count another machine of that name.
#[test]
fn a_new_machine_counts_only_when_all_go_by_its_place() {
    let lab = lab(LabOptions {
        agent: false,
        ..LabOptions::default()
    });
    let active = ready(&lab);
    let [dead, third] = [0, 1].map(|at| lab.others(active.name())[at].clone());
    let (ca, address, name) = (ca(&lab), spare(&lab, &dead), dead.name().to_owned());
    let replace = ["replace", &name, "--addr", &address, "--ca", &ca];
    dead.kill().unwrap();
    wait_status(&active, &format!("{name}: not reached"));
    let old = Old::keep(&dead);
    let fixed = Fixed::new(third.files().config());
    // Its connections end a moment later.
    let said = wait_for("the replacement", PATIENCE, || {
        Ok(Some(call(&active, &replace)).filter(|(done, _)| *done))
    });
    let said = done(said.unwrap());
    assert!(
        said.contains(&format!("{}: it hasn't taken this over", third.name())),
        "{said}"
    );
    give_address(&dead, &address);
    done(join(&dead, &token_of(&said)));
    dead.start().unwrap();
    wait_status(
        &dead,
        &format!(
            "{} doesn't go by the addresses that {} has",
            third.name(),
            active.name()
        ),
    );
    refused(
        call(&third, &["remove", &name]),
        "hasn't taken over the newest addresses",
    );
    // The old one can come to nothing either: it isn't heard where the new place is known.
    not_heard(&old.run(&dead));
    drop(fixed);
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert_same(&lab);
}

#[test]
fn all_nodes_move_to_other_addresses_one_after_the_other() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let [first, second] = [0, 1].map(|at| lab.others(active.name())[at].clone());
    let records = active.mnt().join("records");
    let load = Appender::start(records.clone(), false);
    load.wait_for(50);
    let to = spare(&lab, &active);
    refused(
        call(&first, &["move", active.name(), "--addr", &to]),
        "is active, and would be cut off",
    );
    refused(
        call(&first, &["move", first.name(), "--addr", "10.0.0"]),
        "write --addr ADDRESS",
    );
    refused(
        call(&first, &["move", first.name(), "--addr", "fd00::1"]),
        "of different families",
    );

    let before = fs::read_to_string(second.files().config()).unwrap();
    stop(&second);
    wait_status(&active, &format!("{}: not reached", second.name()));
    let moving = ["move", first.name(), "--addr", &spare(&lab, &first)];
    refused(
        call(&active, &moving),
        &format!("both others are needed, and {} doesn't answer", second.name()),
    );
    second.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    relocate(&lab, &first, &active);
    // One that was away meanwhile hears of it from the others.
    stop(&second);
    fs::write(second.files().config(), before).unwrap();
    second.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let text = fs::read_to_string(second.files().config()).unwrap();
    assert!(text.contains(&spare(&lab, &first)), "{text}");
    relocate(&lab, &second, &active);
    let (written, error) = load.finish();
    assert!(error.is_none(), "{error:?}");
    assert_records(&records, written);
    switch(&active, &first);
    relocate(&lab, &active, &first);
    assert_same(&lab);
    switch(&first, &active);
    let shown = status(&second);
    for node in lab.nodes() {
        assert!(shown.contains(&spare(&lab, node)), "{shown}");
    }
    assert!(!shown.contains('!'), "{shown}");
    assert_records(&records, written);
}

/// As the runbook has it.
fn relocate(lab: &Lab, node: &Node, asked: &Node) {
    let (to, from) = (spare(lab, node), lab.id().address(node.name()).to_string());
    let said = done(call(asked, &["move", node.name(), "--addr", &to]));
    assert!(said.contains("It is in use on"), "{said}");
    let text = fs::read_to_string(node.files().config()).unwrap();
    assert!(text.contains(&to), "its own file has it, too: {text}");
    wait_status(node, &format!("this node is to be at {to}"));
    stop(node);
    // In this order: with the first address of a network the kernel takes those away that came after it.
    take_address(node, &from);
    give_address(node, &to);
    node.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
}

#[test]
fn a_node_that_was_taken_out_is_not_heard_until_it_is_taken_in() {
    let lab = lab(LabOptions {
        agent: false,
        ..LabOptions::default()
    });
    let active = ready(&lab);
    let [gone, other] = [0, 1].map(|at| lab.others(active.name())[at].clone());
    refused(call(&active, &["remove", gone.name()]), "answers, so it isn't gone");
    stop(&gone);
    wait_status(&active, &format!("{}: not reached", gone.name()));
    stop(&other);
    wait_status(&active, &format!("{}: not reached", other.name()));
    refused(call(&active, &["remove", gone.name()]), "both others are needed");
    other.start().unwrap();
    let active = lab.node(&lab.wait_ready(PATIENCE).unwrap()).clone();
    let asked = if active.name() == gone.name() {
        other.clone()
    } else {
        active.clone()
    };
    wait_status(&asked, "is active");
    let removed = wait_for("the removal", PATIENCE, || {
        Ok(call(&asked, &["remove", gone.name()]).0.then_some(()))
    });
    removed.unwrap();
    wait_status(&asked, &format!("{} was taken out of the cluster", gone.name()));
    let shown = status(&asked);
    assert!(!shown.contains('!') && !shown.contains("no replication"), "{shown}");
    done(called(&asked, &["holdfast", "check"]));
    gone.start().unwrap();
    wait_logged(&gone, "holdfast", &["was removed from the cluster"]);
    refused(call(&asked, &["remove", other.name()]), "answers, so it isn't gone");
    refused(
        call(&asked, &["move", gone.name(), "--addr", "10.0.0.9"]),
        "was removed",
    );
    done(call(&asked, &["replace", gone.name(), "--ca", &ca(&lab)]));
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert_same(&lab);
}

fn certificate(node: &Node) -> Vec<u8> {
    let conf = node.dir().with_file_name("conf").join(node.name()).join("node.pem");
    fs::read(conf).unwrap()
}

/// The CA itself is exchanged: at the end nothing of the old one is accepted, and no daemon was started anew.
#[test]
fn certificates_are_exchanged_without_an_interruption() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let daemons = || {
        lab.nodes()
            .iter()
            .map(|node| node.daemon("holdfast").expect("runs").id.pid)
            .collect::<Vec<_>>()
    };
    let (before, term) = (daemons(), lab.status().unwrap()["term"].clone());
    let records = active.mnt().join("records");
    let load = Appender::start(records.clone(), true);
    load.wait_for(50);

    let had = certificate(&active);
    done(call(&active, &["certify", "--ca", &ca(&lab)]));
    assert_ne!(certificate(&active), had);
    wait_logged(&active, "holdfast", &["addresses and certificates were read anew"]);

    let new = lab.dir().join("new");
    let nodes = [
        "--node",
        "n1=10.0.0.1",
        "--node",
        "n2=10.0.0.2",
        "--node",
        "n3=10.0.0.3",
    ];
    let out = new.display().to_string();
    let init = [
        &["holdfast", "init", "--cluster", "lab", "--out", &out],
        nodes.as_slice(),
    ]
    .concat();
    done(called(&active, &init));
    let new_ca = format!("{out}/ca");
    refused(call(&active, &["certify", "--ca", &new_ca]), "isn't accepted");
    let old_pem = fs::read_to_string(lab.dir().join("conf/ca/ca.pem")).unwrap();
    let new_pem = fs::read_to_string(new.join("ca/ca.pem")).unwrap();
    let trust = |text: &str| {
        for node in lab.nodes() {
            put(&lab.dir().join("conf").join(node.name()).join("ca.pem"), text);
        }
        pause(seconds(3));
    };
    trust(&format!("{old_pem}{new_pem}"));
    for node in lab.nodes() {
        done(call(node, &["certify", "--ca", &new_ca]));
    }
    pause(seconds(3));
    trust(&new_pem);
    // Nothing that was agreed before counts any more: each connection is made anew.
    for node in lab.others(active.name()) {
        lab.cut(node.name()).unwrap();
        pause(seconds(5));
        lab.heal().unwrap();
        lab.wait_all_up_to_date(PATIENCE).unwrap();
    }
    // A file that can't be used changes nothing, and is said.
    let key = lab.dir().join("conf").join(active.name()).join("node.key");
    let had = fs::read_to_string(&key).unwrap();
    put(&key, "no key");
    wait_status(&active, "what the configuration's files say isn't in use");
    put(&key, &had);
    let quiet = wait_for("the end of the notice", PATIENCE, || {
        Ok((!status(&active).contains("isn't in use")).then_some(()))
    });
    quiet.unwrap();

    let (written, error) = load.finish();
    assert!(error.is_none(), "{error:?}");
    assert_eq!((daemons(), lab.status().unwrap()["term"].clone()), (before, term));
    assert_records(&records, written);
    assert_same(&lab);
}

/// At once, with the mode that it had.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("put");
    fs::copy(path, &new).unwrap();
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}
