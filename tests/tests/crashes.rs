//! PostgreSQL on the mount, killed again and again: the server alone, its whole family, the node. No committed
//! transaction is lost, none is half there, and its own tools find nothing wrong. `HOLDFAST_CYCLES` says how often.

mod common;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::watch::TEST_LIMIT;
use common::{PATIENCE, assert_same, lab_for, ready, seconds, wait_other};
use holdfast_tests::clock::{pause, wait_for};
use holdfast_tests::demo::postgresql::{self, AS_POSTGRES};
use holdfast_tests::lab::{LabOptions, Node};
use holdfast_tests::process::{ProcessId, run_ok, wait_child};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

const CYCLES: u64 = 10;
const TOOL: Duration = Duration::from_secs(120);
/// So many numbers are offered to a server; it is killed long before it has taken them.
const OFFERED: u64 = 200_000;

fn program(name: &str) -> PathBuf {
    postgresql::programs().unwrap().join(name)
}

fn as_postgres(program: &Path) -> Command {
    let [setpriv, options @ ..] = AS_POSTGRES;
    let mut command = Command::new(setpriv);
    command.args(options).arg(program).current_dir("/");
    command
}

/// A server on a node's mount, spoken to through a socket outside of it.
struct Server {
    process: Child,
    sockets: PathBuf,
}

impl Server {
    fn start(node: &Node, sockets: &Path) -> Self {
        let data = node.mnt().join("postgresql/data");
        // Left by a server that was killed; its process id may be somebody else's now.
        drop(fs::remove_file(data.join("postmaster.pid")));
        drop(fs::remove_file(sockets.join(".s.PGSQL.5432.lock")));
        let mut command = node.command("unshare").unwrap();
        let [setpriv, options @ ..] = AS_POSTGRES;
        command.args(["--ipc", "--", setpriv]).args(options);
        command.arg(program("postgres")).arg("-D").arg(&data);
        for setting in [
            "listen_addresses=",
            "dynamic_shared_memory_type=sysv",
            "shared_buffers=16MB",
            "max_wal_size=32MB",
            "checkpoint_timeout=30s",
            "log_min_messages=fatal",
        ] {
            command.args(["-c", setting]);
        }
        command
            .arg("-c")
            .arg(format!("unix_socket_directories={}", sockets.display()));
        let server = Self {
            process: command.current_dir("/").stdout(Stdio::null()).spawn().unwrap(),
            sockets: sockets.to_owned(),
        };
        wait_for("PostgreSQL to recover", PATIENCE * 2, || Ok(server.try_sql("SELECT 1"))).unwrap();
        server
    }

    fn psql(&self) -> Command {
        let mut command = as_postgres(&program("psql"));
        command.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-h"]);
        command.arg(&self.sockets);
        command
    }

    fn try_sql(&self, statement: &str) -> Option<String> {
        let said = run_ok(self.psql().args(["-c", statement]), TOOL).ok()?;
        Some(said.trim().to_owned())
    }

    fn sql(&self, statement: &str) -> String {
        let said = run_ok(self.psql().args(["-c", statement]), TOOL);
        said.unwrap_or_else(|error| panic!("{statement}: {error:#}"))
            .trim()
            .to_owned()
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = as_postgres(&program(name));
        command.arg("-h").arg(&self.sockets).args(arguments);
        run_ok(&mut command, TOOL).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// `-m immediate`, as `pg_ctl` does it, or without a word to the server or to any of its family.
    fn crash(mut self, how: Crash) {
        let server = self.process.id().to_string();
        let listed = Command::new("pgrep").args(["-P", &server]).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let family: Vec<_> = listed
            .lines()
            .filter_map(|pid| ProcessId::of(pid.parse().ok()?))
            .collect();
        match how {
            Crash::Immediate => drop(Command::new("kill").args(["-QUIT", &server]).status()),
            Crash::Server => {}
            Crash::Family => drop(Command::new("pkill").args(["-KILL", "-P", &server]).status()),
        }
        if !matches!(how, Crash::Immediate) {
            self.process.kill().unwrap();
        }
        assert!(wait_child(&mut self.process, PATIENCE).unwrap(), "the server goes");
        // Who is busy notices late that its server is gone, and writes until then. A new one must not begin beside it:
        // what would tell it, the shared memory, is another one's here.
        let gone = wait_for("the server's family to go", PATIENCE, || {
            Ok(family.iter().all(|process| !process.alive()).then_some(()))
        });
        gone.unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Crash {
    Immediate,
    Server,
    Family,
}

/// Commits numbers one after the other until the server goes; knows the last one whose commit was acknowledged.
struct Committer {
    process: Child,
    last: Arc<AtomicU64>,
    reader: std::thread::JoinHandle<()>,
}

impl Committer {
    fn start(server: &Server, after: u64) -> Self {
        let mut command = server.psql();
        let pipes = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = pipes.spawn().unwrap();
        let (mut statements, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for number in after + 1..after + OFFERED {
                // Three tables, one of them in a tablespace of its own: together or not at all.
                let transaction = format!(
                    "BEGIN; INSERT INTO one VALUES ({number}, repeat(md5('{number}'), 20)); \
                     UPDATE counter SET value = value + 1; INSERT INTO other VALUES ({number}); COMMIT;\n\\echo {number}\n"
                );
                if statements.write_all(transaction.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let last = Arc::new(AtomicU64::new(after));
        let into = Arc::clone(&last);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                if let Ok(number) = line.parse() {
                    into.store(number, Ordering::SeqCst);
                }
            }
        });
        Self { process, last, reader }
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    fn end(mut self) -> u64 {
        assert!(
            wait_child(&mut self.process, PATIENCE).unwrap(),
            "psql ends with its server"
        );
        self.reader.join().unwrap();
        self.last.load(Ordering::SeqCst)
    }
}

/// All that was acknowledged is there, and of each transaction everything or nothing. The last number.
fn verify(server: &Server, acknowledged: u64) -> u64 {
    let row = server.sql(
        "SELECT count(*), coalesce(max(number), 0), coalesce(bool_and(text = repeat(md5(number::text), 20)), true), \
         (SELECT value FROM counter), (SELECT count(*) FROM other), (SELECT coalesce(max(number), 0) FROM other) FROM one",
    );
    let fields: Vec<_> = row.split('|').collect();
    let [rows, last, sound, counter, others, last_other] = fields[..] else {
        panic!("six columns: {row}")
    };
    let number: u64 = last.parse().unwrap();
    assert!(
        number >= acknowledged,
        "{acknowledged} was acknowledged, and {number} is the last: {row}"
    );
    assert!(
        [rows, counter, others, last_other].iter().all(|field| *field == last) && sound == "t",
        "a transaction is half there: {row}"
    );
    number
}

fn initialise(active: &Node) {
    let folder = active.mnt().join("postgresql");
    fs::create_dir(&folder).unwrap();
    let (user, group) = postgresql::postgres_ids().unwrap();
    std::os::unix::fs::chown(&folder, Some(user), Some(group)).unwrap();
    let mut initdb = as_postgres(&program("initdb"));
    initdb.args([
        "--auth=trust",
        "--locale=C",
        "--encoding=UTF8",
        "--data-checksums",
        "-D",
    ]);
    run_ok(initdb.arg(folder.join("data")), TOOL).unwrap();
}

/// A tablespace is a symbolic link with an absolute path: here each node's mount lies elsewhere, on servers nowhere else.
fn point_tablespace(node: &Node) {
    let links = node.mnt().join("postgresql/data/pg_tblspc");
    for link in fs::read_dir(links).unwrap().map(|entry| entry.unwrap().path()) {
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(node.mnt().join("postgresql/space"), link).unwrap();
    }
}

#[test]
fn postgresql_loses_no_commit_and_tears_none_however_often_it_is_killed() {
    let cycles = std::env::var("HOLDFAST_CYCLES").map_or(CYCLES, |count| count.parse().expect("a number"));
    let seed: u64 =
        std::env::var("HOLDFAST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("seed {seed}, {cycles} cycles");
    let mut random = StdRng::seed_from_u64(seed);
    let sockets = TempDir::new_in("/var/tmp").unwrap();
    fs::set_permissions(sockets.path(), Permissions::from_mode(0o777)).unwrap();
    // A cycle takes a second or two, one that kills the node ten.
    let lab = lab_for(LabOptions::default(), TEST_LIMIT.max(seconds(30 * cycles)));
    let mut active = ready(&lab);
    initialise(&active);
    let mut server = Server::start(&active, sockets.path());
    let space = active.mnt().join("postgresql/space");
    run_ok(as_postgres(Path::new("mkdir")).arg(&space), TOOL).unwrap();
    server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    server.sql("CREATE TABLE one (number bigint PRIMARY KEY, text text)");
    server.sql("CREATE TABLE counter (value bigint)");
    server.sql("INSERT INTO counter VALUES (0)");
    server.sql("CREATE TABLE other (number bigint PRIMARY KEY USING INDEX TABLESPACE space) TABLESPACE space");

    let mut last = 0;
    for cycle in 0..cycles {
        println!("cycle {cycle}: {last} transactions");
        let committer = Committer::start(&server, last);
        let some = wait_for(
            "commits",
            PATIENCE,
            || Ok((committer.last() >= last + 20).then_some(())),
        );
        some.unwrap_or_else(|error| panic!("cycle {cycle}: {error:#}\n{}", lab.log_tails(30)));
        // Some crash while a table is being written anew, some during a checkpoint.
        let beside = ["VACUUM FULL one", "VACUUM FULL other", "CHECKPOINT", "SELECT 1"][random.random_range(0..4)];
        let beside = server
            .psql()
            .args(["-c", beside])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        pause(Duration::from_millis(random.random_range(0..300)));
        if cycle % 5 == 4 {
            active.kill().unwrap();
            let mut server_gone = server;
            drop(wait_child(&mut server_gone.process, PATIENCE));
            let acknowledged = committer.end();
            reap(beside);
            let former = active;
            active = wait_other(&lab, &former);
            former.start().unwrap();
            point_tablespace(&active);
            server = Server::start(&active, sockets.path());
            last = verify(&server, acknowledged);
            lab.wait_all_up_to_date(PATIENCE).unwrap();
        } else {
            let how = [Crash::Immediate, Crash::Server, Crash::Family][random.random_range(0..3)];
            server.crash(how);
            let acknowledged = committer.end();
            reap(beside);
            server = Server::start(&active, sockets.path());
            last = verify(&server, acknowledged);
        }
    }
    println!("{last} transactions");

    server.tool("pg_amcheck", &["--install-missing", "--heapallindexed", "--all"]);
    let backup = sockets.path().join("backup");
    let moved = sockets.path().join("space");
    let mapping = format!(
        "{}={}",
        active.mnt().join("postgresql/space").display(),
        moved.display()
    );
    server.tool(
        "pg_basebackup",
        &["-D", backup.to_str().unwrap(), "-c", "fast", "-T", &mapping],
    );
    run_ok(as_postgres(&program("pg_verifybackup")).arg(&backup), TOOL).unwrap();
    // And one that is made on the mount itself.
    let inside = active.mnt().join("postgresql/backup");
    server.tool("pg_basebackup", &["-D", inside.to_str().unwrap(), "-c", "fast", "-Ft"]);
    assert!(fs::metadata(inside.join("base.tar")).unwrap().len() > 1 << 20);
    Command::new("kill")
        .args(["-INT", &server.process.id().to_string()])
        .status()
        .unwrap();
    assert!(wait_child(&mut server.process, seconds(60)).unwrap());
    let mut checksums = as_postgres(&program("pg_checksums"));
    let said = run_ok(
        checksums
            .args(["--check", "-D"])
            .arg(active.mnt().join("postgresql/data")),
        TOOL,
    )
    .unwrap();
    assert!(said.contains("Bad checksums:  0"), "{said}");
    assert_same(&lab);
}

fn reap(mut process: Child) {
    drop(wait_child(&mut process, PATIENCE));
}
