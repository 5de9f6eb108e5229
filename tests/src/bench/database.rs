//! PostgreSQL with its own benchmark.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::figures::Figure;
use crate::clock::now;
use crate::demo::postgresql::{AS_POSTGRES, postgres_ids, programs};
use crate::process::run_ok;

const SCALE: &str = "10";
const LIMIT: Duration = Duration::from_secs(180);

struct Server {
    bin: PathBuf,
    data: PathBuf,
    /// Socket and log, on the local disk.
    aside: tempfile::TempDir,
}

impl Server {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let [setpriv, options @ ..] = AS_POSTGRES;
        let mut command = Command::new(setpriv);
        command.args(options).arg(self.bin.join(program)).args(arguments);
        command.current_dir(self.aside.path()).env("LC_ALL", "C.UTF-8");
        run_ok(&mut command, LIMIT)
    }

    fn control(&self, arguments: &[&str]) -> Result<String> {
        let data = self.data.to_string_lossy();
        self.run("pg_ctl", &[&["-D", &*data, "-w", "-t", "120"], arguments].concat())
    }

    /// With the words that lead a client to the server.
    fn client(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let socket = self.aside.path().to_string_lossy();
        self.run(program, &[&["-h", &*socket, "-U", "bench"], arguments].concat())
    }

    fn measure(&self, length: Duration) -> Result<Vec<Figure>> {
        let began = now();
        self.client("pgbench", &["-q", "-i", "-s", SCALE, "postgres"])?;
        let mut figures = vec![Figure::less("pgbench -i -s 10", "s", began.elapsed().as_secs_f64())];
        let seconds = length.as_secs().max(1).to_string();
        for (clients, threads, row) in [("1", "1", "pgbench, 1 client"), ("8", "2", "pgbench, 8 clients")] {
            let said = self.client(
                "pgbench",
                &["-n", "-c", clients, "-j", threads, "-T", &seconds, "postgres"],
            )?;
            let rate = said
                .lines()
                .find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next());
            let rate = rate.with_context(|| format!("pgbench gave no rate: {said}"))?;
            figures.push(Figure::more(row, "TPS", rate.parse()?));
        }
        Ok(figures)
    }
}

pub fn postgresql(dir: &Path, length: Duration) -> Result<Vec<Figure>> {
    let (user, group) = postgres_ids()?;
    let aside = tempfile::Builder::new()
        .prefix("holdfast-bench-pg-")
        .tempdir_in("/var/tmp")?;
    for folder in [dir, aside.path()] {
        chown(folder, Some(user), Some(group)).with_context(|| format!("giving {} to postgres", folder.display()))?;
    }
    let server = Server {
        bin: programs()?,
        data: dir.join("data"),
        aside,
    };
    let data = server.data.to_string_lossy();
    let began = now();
    let make = ["-D", &*data, "-A", "trust", "-U", "bench", "--no-locale", "-E", "UTF8"];
    server.run("initdb", &make)?;
    let mut figures = vec![Figure::less("initdb", "s", began.elapsed().as_secs_f64())];
    let (log, socket) = (server.aside.path().join("log"), server.aside.path().display());
    let options = format!("-c listen_addresses='' -k {socket}");
    server.control(&["-l", &log.to_string_lossy(), "-o", &options, "start"])?;
    let measured = server.measure(length);
    let stopped = server.control(&["-m", "fast", "stop"]);
    figures.extend(measured.with_context(|| fs::read_to_string(&log).unwrap_or_default())?);
    stopped.map(|_| figures)
}
