//! Each mistake is refused with the file, the line, the key and what would be right.

use std::fs;

use crate::folder::{Folder, GOOD, params};
use holdfast_config::load;
use holdfast_config::tls_files::first_end;
use rcgen::KeyPair;

/// The message of the refusal, its source included.
fn refusal(folder: &Folder) -> String {
    let error = load(&folder.config()).expect_err("must be refused");
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

/// Replaces one piece of the good file and checks that the message names the line, the key and these words.
fn refuses(piece: &str, instead: &str, line: usize, key: &str, words: &[&str]) {
    assert_eq!(GOOD.matches(piece).count(), 1, "{piece:?} must be in the file once");
    let folder = Folder::good();
    folder.write(&GOOD.replace(piece, instead));
    let message = refusal(&folder);
    has(&message, &[&format!("{}:{line}: {key}: ", folder.config().display())]);
    has(&message, words);
}

fn tls_refused(spoil: impl FnOnce(&Folder), line: usize, key: &str, words: &[&str]) {
    let folder = Folder::good();
    spoil(&folder);
    let message = refusal(&folder);
    has(&message, &[&format!("holdfast.toml:{line}: {key}: ")]);
    has(&message, words);
}

#[test]
fn the_good_file_is_good() {
    let folder = Folder::good();
    let config = load(&folder.config()).unwrap();
    assert_eq!(config.this, 0);
    assert_eq!(config.units.len(), 2);
    assert_eq!(config.tls.key, folder.path("node.key"));
}

#[test]
fn no_file() {
    let folder = Folder::good();
    fs::remove_file(folder.config()).unwrap();
    has(
        &refusal(&folder),
        &["holdfast.toml", "can't be read", "holdfast init", "No such file"],
    );
}

#[test]
fn not_toml() {
    refuses(
        "node = \"n1\"",
        "node = n1",
        2,
        "node",
        &["invalid", "TOML", "\"double quotes\""],
    );
    refuses("[timers]", "[timers", 25, "syntax", &["TOML", "[table]"]);
}

#[test]
fn unknown_keys() {
    refuses(
        "node = \"n1\"",
        "nodes = \"n1\"",
        2,
        "nodes",
        &["unknown key `nodes`", "`node`"],
    );
    refuses(
        "tick_ms = 50",
        "tick = 50",
        26,
        "timers.tick",
        &["unknown key `tick`", "`tick_ms`"],
    );
    let name = "name = \"n2\"";
    refuses(
        name,
        "name = \"n2\"\nport = 1",
        14,
        "cluster.nodes[1].port",
        &["unknown key `port`", "`replication_port`"],
    );
    refuses(
        "systemd",
        "sytemd",
        40,
        "unit[1].sytemd",
        &["unknown key `sytemd`", "`systemd`"],
    );
}

#[test]
fn wrong_types() {
    refuses(
        "tick_ms = 50",
        "tick_ms = \"50\"",
        26,
        "timers.tick_ms",
        &["invalid type", "u64"],
    );
    refuses(
        "tick_ms = 50",
        "tick_ms = -5",
        26,
        "timers.tick_ms",
        &["invalid value", "u64"],
    );
}

#[test]
fn versions() {
    refuses(
        "version = 1",
        "version = 2",
        1,
        "version",
        &["2 isn't known", "version = 1"],
    );
    refuses("version = 1", "", 1, "version", &["is missing", "version = 1"]);
}

#[test]
fn two_or_four_nodes() {
    let third = "[[cluster.nodes]]\nname = \"n3\"\naddress = \"10.0.0.133\"\n";
    refuses(third, "", 8, "cluster.nodes", &["2 nodes", "exactly three"]);
    let fourth = format!("{third}{}", third.replace("n3", "n4").replace("133", "134"));
    refuses(third, &fourth, 8, "cluster.nodes", &["4 nodes", "exactly three"]);
}

#[test]
fn nodes_that_are_not_distinct() {
    refuses(
        "name = \"n2\"",
        "name = \"n1\"",
        13,
        "cluster.nodes[1].name",
        &["\"n1\" is the name of two", "different"],
    );
    refuses(
        "10.0.0.133",
        "10.0.0.132",
        18,
        "cluster.nodes[2].address",
        &["both n2 and n3", "different addresses"],
    );
    refuses(
        "10.0.0.133",
        "fd00::1",
        18,
        "cluster.nodes[2].address",
        &["families", "all three IPv4"],
    );
}

#[test]
fn nodes_that_cannot_be() {
    refuses(
        "name = \"n2\"",
        "name = \"N 2\"",
        13,
        "cluster.nodes[1].name",
        &["\"N 2\"", "lower-case"],
    );
    refuses(
        "10.0.0.132",
        "pbx2.example",
        14,
        "cluster.nodes[1].address",
        &["no IP address", "10.0.0.131"],
    );
    refuses(
        "10.0.0.132",
        "0.0.0.0",
        14,
        "cluster.nodes[1].address",
        &["0.0.0.0", "static IP address"],
    );
    refuses(
        "node = \"n1\"",
        "node = \"n4\"",
        2,
        "node",
        &["no node is named \"n4\"", "n1, n2, n3"],
    );
    let ports = "10.0.0.132\"\nreplication_port = 7401";
    refuses(
        "10.0.0.132\"",
        ports,
        12,
        "cluster.nodes[1].control_port",
        &["7401", "two different ports"],
    );
    let port = "10.0.0.132\"\ncontrol_port = 70000";
    refuses(
        "10.0.0.132\"",
        port,
        15,
        "cluster.nodes[1].control_port",
        &["70000", "1 to 65535"],
    );
}

#[test]
fn addresses_that_cannot_be_the_vip() {
    let key = "vip.address";
    refuses(
        "10.0.0.130/24",
        "10.0.1.130/24",
        29,
        key,
        &["outside the network of n1", "all three nodes"],
    );
    refuses(
        "10.0.0.130/24",
        "10.0.0.130/30",
        29,
        key,
        &["outside the network", "all three nodes"],
    );
    refuses(
        "10.0.0.130/24",
        "10.0.0.132/24",
        29,
        key,
        &["static address of n2", "of its own"],
    );
    refuses("10.0.0.130/24", "10.0.0.130", 29, key, &["prefix", "10.0.0.130/24"]);
    refuses("10.0.0.130/24", "10.0.0.130/33", 29, key, &["prefix", "10.0.0.130/24"]);
    refuses(
        "10.0.0.130/24",
        "10.0.0.255/24",
        29,
        key,
        &["no address for a machine", "free address"],
    );
    refuses(
        "10.0.0.130/24\"",
        "10.0.0.130/24\"\ninterface = \"\"",
        30,
        "vip.interface",
        &["\"\"", "eth0"],
    );
}

#[test]
fn timers_out_of_range() {
    refuses(
        "tick_ms = 50",
        "tick_ms = 5",
        26,
        "timers.tick_ms",
        &["5 ms", "10 to 1000 ms"],
    );
    let (key, line) = ("timers.election_ticks", 26);
    refuses(
        "tick_ms = 50",
        "election_ticks = 4",
        line,
        key,
        &["4 can't be used", "5 to 1000"],
    );
    refuses(
        "tick_ms = 50",
        "election_ticks = 6",
        line,
        key,
        &["three times heartbeat_ticks (2)", "at least 7"],
    );
    refuses(
        "tick_ms = 50",
        "heartbeat_ticks = 0",
        line,
        "timers.heartbeat_ticks",
        &["0 can't", "1 to 100"],
    );
    refuses(
        "tick_ms = 50",
        "grace_ms = 90000",
        line,
        "timers.grace_ms",
        &["90000 ms", "0 to 60000 ms"],
    );
    let deadline = "[mount]\nrequest_deadline_ms = 2000\n[vip]";
    refuses(
        "[vip]",
        deadline,
        29,
        "mount.request_deadline_ms",
        &["not longer than", "more than 3000"],
    );
}

#[test]
fn a_watchdog_that_cannot_be_used() {
    let with = |lines: &str| format!("[watchdog]\n{lines}\n[vip]");
    let (device, timeout) = ("watchdog.device", "watchdog.timeout_s");
    refuses(
        "[vip]",
        &with("timeout_s = 10"),
        28,
        device,
        &["is missing", "/dev/watchdog"],
    );
    refuses("[vip]", &with("device = \"watchdog\""), 29, device, &["absolute"]);
    let short = "device = \"/dev/watchdog\"\ntimeout_s = 2";
    refuses("[vip]", &with(short), 30, timeout, &["2 s", "10 to 120 s"]);
}

#[test]
fn timers_that_break_the_vip_inequality() {
    let key = "vip.renew_min_lease_ms";
    let vip = |lines: &str| format!("10.0.0.130/24\"\n{lines}");
    let never = ["600 ms of lease would never be left", "less than 590", "lease 940"];
    refuses("10.0.0.130/24\"", &vip("renew_min_lease_ms = 600"), 30, key, &never);
    // The default R with a clock that makes leases too short; the key isn't written, so its table is named.
    refuses(
        "tick_ms = 50",
        "tick_ms = 20",
        28,
        key,
        &["550 ms of lease would never be left", "election_ticks"],
    );
    let longer = ["1300 ms is not less", "less than 1300"];
    refuses("10.0.0.130/24\"", &vip("renew_min_lease_ms = 1300"), 30, key, &longer);
    let third = ["400 ms is more than a third", "at most 333"];
    refuses(
        "10.0.0.130/24\"",
        &vip("renew_every_ms = 400"),
        30,
        "vip.renew_every_ms",
        &third,
    );
    let drift = ["drift apart", "at most 50"];
    refuses(
        "tick_ms = 50",
        "drift_permille = 60",
        26,
        "timers.drift_permille",
        &drift,
    );
    refuses(
        "10.0.0.130/24\"",
        &vip("valid_s = 4"),
        30,
        "vip.valid_s",
        &["4 s", "1 to 3 s"],
    );
}

#[test]
fn places_that_cannot_be() {
    let place = |text: &str| format!("{text}\n\n[vip]");
    let refused = |text: &str, key, words: &[&str]| refuses("[vip]", &place(text), 29, key, words);
    refused("[store]\npath = \"data\"", "store.path", &["\"data\"", "absolute"]);
    refused("[store]\npath = \"/srv/../etc\"", "store.path", &["\"..\"", "absolute"]);
    refused("[mount]\npath = \"/\"", "mount.path", &["\"/\"", "absolute"]);
    refused(
        "[mount]\npath = \"/var/lib/holdfast/\"",
        "mount.path",
        &["store.path too", "two different"],
    );
    refused(
        "[mount]\npath = \"/var/lib/holdfast/mnt\"",
        "mount.path",
        &["inside the other", "don't contain"],
    );
    refused(
        "[mount]\npath = \"/var/lib\"",
        "mount.path",
        &["inside the other", "don't contain"],
    );
    refused("[store]\nlog_mib = 63", "store.log_mib", &["63 MiB", "64 to 65536 MiB"]);
    refused(
        "[store]\nlog_mib = 65537",
        "store.log_mib",
        &["65537 MiB", "64 to 65536 MiB"],
    );
    let long = format!("node = \"n1\"\nsocket = \"/run/{}\"", "x".repeat(103));
    refuses("node = \"n1\"", &long, 3, "socket", &["108 bytes", "at most 107"]);
    let hidden = "node = \"n1\"\nsocket = \"/var/lib/portsip/s\"";
    refuses(
        "node = \"n1\"",
        hidden,
        3,
        "socket",
        &["inside mount.path", "outside /var/lib/portsip"],
    );
}

#[test]
fn units_that_cannot_be() {
    refuses(
        "name = \"pbx\"\nsys",
        "name = \"db\"\nsys",
        39,
        "unit[1].name",
        &["two units", "of its own"],
    );
    refuses(
        "[\"/usr/bin/docker\", \"start\", \"db\"]",
        "[]",
        33,
        "unit[0].start",
        &["empty", "absolute path"],
    );
    refuses(
        "/usr/bin/pgrep",
        "pgrep",
        35,
        "unit[0].status",
        &["\"pgrep\"", "absolute path"],
    );
    refuses(
        "stop = [\"/usr/bin/docker\", \"stop\", \"db\"]\n",
        "",
        31,
        "unit[0].stop",
        &["is missing", "start, stop"],
    );
    let both = "systemd = \"portsip.service\"\nkill = [\"/bin/kill\"]";
    refuses(
        "systemd = \"portsip.service\"",
        both,
        41,
        "unit[1].kill",
        &["beside systemd", "either"],
    );
    refuses(
        "portsip.service",
        "portsip",
        40,
        "unit[1].systemd",
        &["\"portsip\"", "portsip.service"],
    );
    refuses(
        "127.0.0.1:5432",
        "localhost",
        36,
        "unit[0].health_tcp",
        &["localhost", "127.0.0.1:5432"],
    );
    let tcp = "health_tcp = \"127.0.0.1:5432\"";
    refuses(
        tcp,
        "health_http = \"https://a/\"",
        36,
        "unit[0].health_http",
        &["https://a/", "http://HOST"],
    );
    let two = format!("{tcp}\nhealth_http = \"http://a/\"");
    refuses(tcp, &two, 37, "unit[0].health_http", &["second health check", "one of"]);
    let never = format!("{tcp}\nhealth_every_ms = 0");
    refuses(
        tcp,
        &never,
        37,
        "unit[0].health_every_ms",
        &["0 ms", "100 to 600000 ms"],
    );
}

#[test]
fn files_that_are_missing_or_no_certificates() {
    let remove = |name: &'static str| move |folder: &Folder| fs::remove_file(folder.path(name)).unwrap();
    tls_refused(
        remove("ca.pem"),
        21,
        "tls.ca",
        &["ca.pem can't be read", "holdfast init"],
    );
    tls_refused(
        remove("node.pem"),
        22,
        "tls.cert",
        &["node.pem can't be read", "holdfast init"],
    );
    tls_refused(
        remove("node.key"),
        23,
        "tls.key",
        &["node.key can't be read", "holdfast init"],
    );
    let garbage = |name: &'static str| move |folder: &Folder| fs::write(folder.path(name), "garbage").unwrap();
    tls_refused(garbage("ca.pem"), 21, "tls.ca", &["no certificate in PEM form"]);
    tls_refused(garbage("node.pem"), 22, "tls.cert", &["no certificate in PEM form"]);
    tls_refused(garbage("node.key"), 23, "tls.key", &["no private key in PEM form"]);
}

#[test]
fn of_all_certificates_the_first_to_run_out_is_named() {
    let folder = Folder::good();
    folder.certify(&params("n1", -1, 20));
    let config = load(&folder.config()).unwrap();
    let end = first_end(&config.tls).unwrap();
    assert_eq!(end.file, folder.path("node.pem"));
    let in_days = (end.unix_s - i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()) / 86_400;
    assert!((19..=20).contains(&in_days), "{end:?}");
    // While a CA is replaced, its file holds the old one and the new one.
    let old = Folder::good();
    let both = fs::read_to_string(folder.path("ca.pem")).unwrap() + &fs::read_to_string(old.path("ca.pem")).unwrap();
    fs::write(folder.path("ca.pem"), both).unwrap();
    assert_eq!(first_end(&load(&folder.config()).unwrap().tls), Some(end));
}

#[test]
fn certificates_out_of_their_time() {
    let expired = |folder: &Folder| folder.certify(&params("n1", -10, -1));
    tls_refused(
        expired,
        22,
        "tls.cert",
        &["expired on 2", "certificate in force", "clock"],
    );
    let early = |folder: &Folder| folder.certify(&params("n1", 1, 10));
    tls_refused(
        early,
        22,
        "tls.cert",
        &["isn't valid before 2", "certificate in force", "clock"],
    );
}

#[test]
fn certificates_of_somebody_else() {
    let other = |folder: &Folder| folder.certify(&params("n2", -1, 10));
    tls_refused(
        other,
        22,
        "tls.cert",
        &["certificate of \"n2, n2\"", "\"n1\" as its common name"],
    );
    let two_names = |folder: &Folder| {
        let mut params = params("n1", -1, 10);
        params
            .subject_alt_names
            .push(rcgen::SanType::DnsName("n2".try_into().unwrap()));
        folder.certify(&params);
    };
    tls_refused(two_names, 22, "tls.cert", &["n1, n1, n2", "only DNS name"]);
    tls_refused(
        Folder::change_ca,
        22,
        "tls.cert",
        &["isn't accepted with", "ca.pem", "holdfast init"],
    );
}

#[test]
fn keys_that_others_can_read_or_that_do_not_fit() {
    for mode in [0o640, 0o604, 0o660] {
        tls_refused(
            |folder| folder.key_mode(mode),
            23,
            "tls.key",
            &[&format!("mode {mode:04o}"), "chmod 600"],
        );
    }
    let foreign = |folder: &Folder| {
        fs::write(folder.path("node.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    };
    tls_refused(
        foreign,
        23,
        "tls.key",
        &["doesn't fit the certificate", "holdfast init"],
    );
}

#[test]
fn classes_that_cannot_be() {
    let with = |lines: &str| format!("[classes]\n{lines}\n[vip]");
    refuses(
        "[vip]",
        &with("\"a\" = \"fast\""),
        28,
        "classes",
        &["\"a\" = \"fast\"", "one of default"],
    );
    for path in ["", "/a", "../a", "a/../b", "."] {
        let line = format!("\"{path}\" = \"logs\"");
        refuses(
            "[vip]",
            &with(&line),
            28,
            "classes",
            &["can't be used", "below the mount"],
        );
    }
    let twice = "\"a//b\" = \"logs\"\n\"a/b\" = \"prompts\"";
    refuses("[vip]", &with(twice), 28, "classes", &["is given twice"]);
}
