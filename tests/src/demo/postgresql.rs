//! PostgreSQL as a unit of the PBX: its data directory on the mount, run as user postgres.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::run_ok;

pub const PORT: u16 = 5432;
const INITDB_LIMIT: Duration = Duration::from_secs(90);
/// As the first words of a command: PostgreSQL refuses to run as root.
pub const AS_POSTGRES: [&str; 4] = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];

/// Folder of the newest PostgreSQL's programs, as Debian installs them.
pub fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("postgres").is_file())
        .max();
    newest
        .map(|(_, bin)| bin)
        .context("the demo needs PostgreSQL: install the package `postgresql`")
}

/// The start command of the unit: makes the database at its first start ever, then becomes the server.
pub fn serve(data: &Path) -> Result<()> {
    let bin = programs()?;
    if !data.exists() {
        make(&bin, data).context("making the database")?;
    }
    // vip-agent starts this unit on one node only, the one that holds the lease: a pid in there is of another node
    // (which in this lab shares the process ids of the machine, as real servers and containers don't).
    if let Err(error) = fs::remove_file(data.join("postmaster.pid"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).context("removing the former postmaster.pid");
    }
    // Shared memory of its own: it goes with the server, however that ends.
    let mut command = Command::new("unshare");
    command
        .args(["--ipc", "--"])
        .args(AS_POSTGRES)
        .arg(bin.join("postgres"))
        .arg("-D")
        .arg(data);
    for setting in [
        "listen_addresses=*",
        "unix_socket_directories=",
        "dynamic_shared_memory_type=sysv",
    ] {
        command.args(["-c", setting]);
    }
    for setting in [
        "shared_buffers=32MB",
        "max_connections=20",
        "log_min_messages=warning",
        "lc_messages=C",
    ] {
        command.args(["-c", setting]);
    }
    Err(command.exec()).context("starting PostgreSQL")
}

fn make(bin: &Path, data: &Path) -> Result<()> {
    let fresh = data.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).context("removing a half-made database")?;
    }
    // The directory above has the class of databases, which what is made in it inherits.
    fs::create_dir_all(data.parent().context("a folder around the database")?)?;
    fs::create_dir(&fresh)?;
    let (user, group) = postgres_ids()?;
    chown(&fresh, Some(user), Some(group))?;
    let mut initdb = as_postgres(&bin.join("initdb"));
    initdb.args([
        "--auth=trust",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
        "-D",
    ]);
    run_ok(initdb.arg(&fresh), INITDB_LIMIT)?;
    let mut access = OpenOptions::new().append(true).open(fresh.join("pg_hba.conf"))?;
    writeln!(access, "host all all 10.77.0.0/16 trust")?;
    access.sync_all()?;
    // A name leads to the database only when it is whole.
    fs::rename(&fresh, data).context("naming the database")
}

fn as_postgres(program: &Path) -> Command {
    let [setpriv, options @ ..] = AS_POSTGRES;
    let mut command = Command::new(setpriv);
    command.args(options).arg(program).current_dir("/");
    command
}

pub fn postgres_ids() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.context("there is no user postgres")?.split(':').collect();
    ensure!(
        fields.len() > 3,
        "the entry of user postgres in /etc/passwd is not whole"
    );
    Ok((fields[2].parse()?, fields[3].parse()?))
}
