//! What a daemon meets that isn't as it should be: each is refused or survived with a clear message, and nothing is
//! lost. What is wrong in a configuration file alone is tested in `config`.

mod common;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::disks::{self, Disk, Disks};
use common::{
    PATIENCE, assert_all_run, assert_same, content, lab, ready, seconds, start, wait_logged, write, write_synced,
};
use holdfast_tests::clock::wait_for;
use holdfast_tests::lab::{Lab, LabOptions, Node, cluster_status, mounts};
use holdfast_tests::process::run_ok;

/// A lab and one of its standbys, dead; and data that must be there at the end.
fn with_dead_standby() -> (Lab, Node) {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    write_synced(active.mnt().join("kept"), "kept")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let standby = lab.others(active.name())[0].clone();
    standby.kill().unwrap();
    (lab, standby)
}

fn assert_kept(lab: &Lab) {
    assert_same(lab);
    let active = lab.wait_ready(PATIENCE).unwrap();
    assert_eq!(content(&lab.node(&active).mnt().join("kept")), b"kept");
}

/// Starts the node's daemon, which must end by itself and say this.
fn assert_refuses(node: &Node, words: &[&str]) {
    // It may end before it was seen to run.
    let _ = node.start();
    wait_logged(node, "holdfast", words);
    let ended = wait_for("the daemon to end", seconds(20), || {
        Ok(node.daemon("holdfast").is_none().then_some(()))
    });
    ended.unwrap();
    node.kill().unwrap();
}

#[test]
fn a_mount_point_that_is_not_free_is_refused_until_it_is() {
    let (lab, standby) = with_dead_standby();
    mounts::remove_below(&standby.mnt(), seconds(10)).unwrap();
    mounts::open_mount_point(&standby.mnt()).unwrap();
    let precious = standby.mnt().join("precious");
    fs::write(&precious, "someone's").unwrap();
    standby.start().unwrap();
    wait_logged(&standby, "holdfast", &["is not empty", "precious"]);
    assert_eq!(fs::read(&precious).unwrap(), b"someone's");
    fs::remove_file(&precious).unwrap();
    // It is tried again by itself.
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    standby.kill().unwrap();
    mounts::remove_below(&standby.mnt(), seconds(10)).unwrap();
    run_ok(
        Command::new("mount")
            .args(["-t", "tmpfs", "someones"])
            .arg(standby.mnt()),
        seconds(10),
    )
    .unwrap();
    standby.start().unwrap();
    wait_logged(&standby, "holdfast", &["is in use", "someones"]);
    run_ok(Command::new("umount").arg(standby.mnt()), seconds(10)).unwrap();
    assert_kept(&lab);
}

/// The text of an identity file whose body was changed, with the right checksum.
fn identity(text: &str, from: &str, to: &str) -> String {
    let body = text.rsplit_once("blake3 ").expect("an identity").0;
    assert!(body.contains(from), "{body}");
    let body = body.replacen(from, to, 1);
    let sum = blake3::hash(body.as_bytes()).to_hex();
    format!("{body}blake3 {sum}\n")
}

#[test]
fn a_store_of_another_cluster_node_or_version_is_refused() {
    let (lab, standby) = with_dead_standby();
    let file = standby.files().store().join("identity");
    let own = fs::read_to_string(&file).unwrap();
    let cluster = own.lines().find_map(|line| line.strip_prefix("cluster ")).unwrap();
    let foreign = [
        (identity(&own, cluster, "another-one"), "belongs to cluster another-one"),
        (
            identity(&own, &format!("node {}", standby.name()), "node n9"),
            "belongs to node n9",
        ),
        (identity(&own, "format 2", "format 999"), "the store has format 999"),
        (own.replacen("node", "nodE", 1), "its checksum is wrong"),
    ];
    for (text, said) in foreign {
        fs::write(&file, text).unwrap();
        assert_refuses(&standby, &[said]);
    }
    fs::write(&file, own).unwrap();
    assert_kept(&lab);
}

/// Configuration folders of another cluster with the same names and addresses.
fn stranger(lab: &Lab) -> PathBuf {
    let out = lab.dir().join("n1/stranger");
    let mut command = lab.client_command("holdfast").unwrap();
    command.args(["init", "--cluster", "stranger"]);
    for node in lab.nodes() {
        command
            .arg("--node")
            .arg(format!("{}={}", node.name(), lab.id().address(node.name())));
    }
    command
        .arg("--vip")
        .arg(format!("{}/24", lab.vip()))
        .arg("--out")
        .arg(&out);
    run_ok(&mut command, seconds(30)).unwrap();
    out
}

fn edit(node: &Node, change: impl FnOnce(&mut toml::Table)) -> String {
    let file = node.files().config();
    let before = fs::read_to_string(&file).unwrap();
    let mut table: toml::Table = before.parse().unwrap();
    change(&mut table);
    fs::write(&file, toml::to_string(&table).unwrap()).unwrap();
    before
}

fn set(table: &mut toml::Table, section: &str, key: &str, value: &str) {
    table[section].as_table_mut().unwrap().insert(key.into(), value.into());
}

/// What `mkfs.ext4` makes on a small volume.
#[test]
fn a_file_system_that_can_t_hold_the_largest_file_is_refused() {
    let (lab, standby) = with_dead_standby();
    let store = standby.files().store();
    let folder = disks::folder();
    let aside = folder.path().join("aside");
    fs::rename(&store, &aside).unwrap();
    let mkfs = ["mkfs.ext4", "-q", "-F", "-b", "1024"];
    let disk = Disk::make(folder.path().join("image"), store.clone(), 300, &mkfs);
    assert_refuses(&standby, &["can't hold files of 16 TiB", "mkfs.ext4 -b 4096"]);
    assert!(disk.unmount(), "the daemon has ended");
    fs::remove_dir(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    standby.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert_kept(&lab);
}

/// A new store under the mount point would have a vote, and two of them begin an empty file system.
#[test]
fn a_store_whose_volume_is_not_mounted_is_missed() {
    let disks = Disks::ext4([700; 3]);
    let lab = lab(disks.options());
    let active = ready(&lab);
    write_synced(active.mnt().join("kept"), "kept")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let standby = lab.others(active.name())[0].clone();
    standby.kill().unwrap();
    let disk = disks.of(standby.name());
    assert!(disk.unmount(), "the daemon has ended");
    assert_refuses(&standby, &["had a volume of its own", "RequiresMountsFor="]);
    disk.mount();
    standby.start().unwrap();
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    assert_kept(&lab);
    drop(lab);
    drop(disks);
}

#[test]
fn a_peer_with_a_wrong_certificate_or_cluster_is_refused() {
    let (lab, standby) = with_dead_standby();
    let active = lab.wait_ready(PATIENCE).unwrap();
    let active = lab.node(&active).clone();
    let theirs = stranger(&lab).join(standby.name());
    let text: toml::Table = fs::read_to_string(theirs.join("holdfast.toml"))
        .unwrap()
        .parse()
        .unwrap();
    // Its certificates are another CA's.
    let own = edit(&standby, |table| {
        for key in ["ca", "cert", "key"] {
            let path = theirs.join(text["tls"][key].as_str().unwrap());
            set(table, "tls", key, path.to_str().unwrap());
        }
    });
    standby.start().unwrap();
    wait_logged(
        &active,
        "holdfast",
        &["a connection on the replication port was closed"],
    );
    wait_logged(&standby, "holdfast", &["not connected"]);
    goes_on_without_the_stranger(&lab, &active);
    standby.kill().unwrap();
    // Its certificates are right, its cluster is another one, and so is its store.
    fs::write(standby.files().config(), &own).unwrap();
    let empty = standby.dir().join("store-of-a-stranger");
    edit(&standby, |table| {
        set(table, "cluster", "id", text["cluster"]["id"].as_str().unwrap());
        set(table, "store", "path", empty.to_str().unwrap());
    });
    standby.start().unwrap();
    wait_logged(&active, "holdfast", &["it belongs to cluster"]);
    goes_on_without_the_stranger(&lab, &active);
    standby.kill().unwrap();
    fs::write(standby.files().config(), &own).unwrap();
    assert_kept(&lab);
}

/// The active node accepts writes, and the stranger isn't counted among the standbys.
fn goes_on_without_the_stranger(lab: &Lab, active: &Node) {
    write_synced(active.mnt().join("meanwhile"), "x")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    // Status may show for a moment what the node said before it was killed.
    let refused = (0..20).any(|_| {
        holdfast_tests::clock::pause(Duration::from_millis(500));
        lab.wait_all_up_to_date(Duration::ZERO).is_err()
    });
    assert!(refused, "the stranger is no standby");
}

/// Connects from a place that is no node and sends this; what comes back doesn't matter.
fn throw(lab: &Lab, to: SocketAddr, garbage: Vec<u8>) {
    let netns = lab.client_netns();
    let sent = start(move || {
        netns.enter_thread().unwrap();
        let mut stream = TcpStream::connect_timeout(&to, seconds(3)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // It may be closed before all is sent.
        drop(stream.write_all(&garbage));
        drop(stream.read(&mut [0; 256]));
    });
    sent.within(seconds(10)).expect("the connection ends");
}

#[test]
fn garbage_on_the_ports_is_survived() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    let table: toml::Table = fs::read_to_string(active.files().config()).unwrap().parse().unwrap();
    let ports = |node: &toml::Value| {
        ["replication_port", "control_port"].map(|key| u16::try_from(node[key].as_integer().unwrap()).unwrap())
    };
    let before: Vec<_> = lab
        .nodes()
        .iter()
        .map(|node| node.daemon("holdfast").unwrap().id)
        .collect();
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let http = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let noise: Vec<u8> = (0..100_000_u32)
        .flat_map(|at| blake3::hash(&at.to_le_bytes()).as_bytes()[..4].to_vec())
        .collect();
    for (node, entry) in lab.nodes().iter().zip(table["cluster"]["nodes"].as_array().unwrap()) {
        for port in ports(entry) {
            let to = SocketAddr::new(lab.id().address(node.name()).into(), port);
            for garbage in [
                vec![],
                vec![0xFF; 4096],
                client_hello.clone(),
                http.clone(),
                noise.clone(),
            ] {
                throw(&lab, to, garbage);
            }
        }
        wait_logged(node, "holdfast", &["a connection on the replication port was closed"]);
    }
    let after: Vec<_> = lab
        .nodes()
        .iter()
        .filter_map(|node| Some(node.daemon("holdfast")?.id))
        .collect();
    assert_eq!(after, before, "every daemon lives");
    write_synced(active.mnt().join("file"), "x")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    assert_eq!(lab.wait_active(PATIENCE).unwrap(), active.name());
    assert_same(&lab);
}

#[test]
fn a_full_disk_is_said_before_anything_diverges() {
    let disks = Disks::ext4([360; 3]);
    let lab = lab(disks.options());
    let active = ready(&lab);
    write_synced(active.mnt().join("kept"), "kept")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    // A store that makes room of its own (a compaction ended) takes writes again, and is filled again.
    let mut refused = None;
    for number in 0..500 {
        let chunk: Vec<u8> = (0..250_000_u32).flat_map(|at| (at ^ number).to_le_bytes()).collect();
        let file = active.mnt().join(format!("fill-{number}"));
        let outcome = write_synced(file, chunk).within(PATIENCE).expect("a write ends");
        let Err(error) = outcome else { continue };
        assert_eq!(
            error.raw_os_error(),
            Some(libc::ENOSPC),
            "after {number} MB: {error}\n{}",
            lab.log_tails(10)
        );
        let mnt = active.mnt();
        let shown = start(move || rustix::fs::statvfs(&mnt).map(|shown| shown.f_bavail));
        let shown = shown.within(PATIENCE).expect("statfs ends").unwrap();
        refused = Some((number, shown));
        if shown == 0 {
            break;
        }
    }
    let (count, shown) = refused.expect("500 MB don't fit into 360");
    assert_eq!(shown, 0, "`df` shows room that can't be written");
    assert!(count > 20, "only {count} MB fitted");
    assert_all_run(&lab);
    let view = lab.status().unwrap();
    assert!(
        cluster_status::active(&view).is_some(),
        "a full disk ends the role: {view:#}"
    );
    assert_same(&lab);
    assert_eq!(content(&active.mnt().join("kept")), b"kept");
    // What makes room is allowed.
    for number in 0..=count {
        let file = active.mnt().join(format!("fill-{number}"));
        let removed = start(move || fs::remove_file(file))
            .within(PATIENCE)
            .expect("unlink ends");
        match removed {
            // One that was refused when it was created.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.unwrap_or_else(|error| panic!("removing a file on a full disk: {error}")),
        }
    }
    let again = wait_for("room for writing", PATIENCE, || {
        Ok(write(active.mnt().join("again"), vec![1; 1 << 20])
            .within(PATIENCE)
            .and_then(Result::ok))
    });
    again.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.log_tails(10)));
    assert_same(&lab);
    drop(lab);
    drop(disks);
}

const BATCH_MAGIC: &[u8] = b"HFBATCH\x01";

/// The last batch of a stopped node's log: its segment and where it begins. As `storage::log` describes the format.
fn last_batch(store: &Path) -> (PathBuf, u64) {
    let mut last = None;
    for entry in fs::read_dir(store.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let number = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        let bytes = fs::read(&path).unwrap();
        for (at, block) in (0..).zip(bytes.chunks(4096)) {
            let field = |from: usize| u64::from_le_bytes(block[from..from + 8].try_into().unwrap());
            if block.starts_with(BATCH_MAGIC) && field(24) == number {
                let found = (field(32), path.clone(), at * 4096);
                last = last.max(Some(found));
            }
        }
    }
    let (_number, path, offset) = last.expect("a log with a batch");
    (path, offset)
}

#[test]
fn a_torn_tail_of_the_log_is_cut() {
    let lab = lab(LabOptions::default());
    let active = ready(&lab);
    write_synced(active.mnt().join("kept"), "kept")
        .within(PATIENCE)
        .unwrap()
        .unwrap();
    let victim = lab.others(active.name())[0].clone();
    let appender = common::Appender::start(active.mnt().join("records"), true);
    appender.wait_for(30);
    victim.kill().unwrap();
    let (segment, offset) = last_batch(&victim.files().store());
    let file = OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset + 130).unwrap();
    file.write_all_at(&[!byte[0]], offset + 130).unwrap();
    file.sync_all().unwrap();
    victim.start().unwrap();
    wait_logged(&victim, "holdfast", &["the end of the log was cut"]);
    lab.wait_all_up_to_date(PATIENCE).unwrap();
    let (acknowledged, error) = appender.finish();
    assert!(error.is_none(), "{error:?}");
    common::assert_records(&active.mnt().join("records"), acknowledged);
    assert_kept(&lab);
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (lab, standby) = with_dead_standby();
    let key: toml::Table = fs::read_to_string(standby.files().config()).unwrap().parse().unwrap();
    let key = key["tls"]["key"].as_str().unwrap().to_owned();
    let mode = |mode: &str| run_ok(Command::new("chmod").args([mode, &key]), seconds(5)).unwrap();
    mode("644");
    assert_refuses(&standby, &[&key]);
    mode("600");
    assert_kept(&lab);
}
