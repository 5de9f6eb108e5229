//! How the demo's units are told to vip-agent, and the commands that it calls for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use rustix::process::Signal;
use toml::{Table, Value};

use super::postgresql;
use super::unit::{logger, recorder};
use crate::process::ProcessId;

/// What vip-agent calls. A start command stays in the foreground and notes its process in the pid file.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// PostgreSQL with its data at DATA.
    Postgresql { data: PathBuf, pid_file: PathBuf },
    /// Fifty calls being recorded into FOLDER.
    Recorder {
        folder: PathBuf,
        acks: PathBuf,
        pid_file: PathBuf,
    },
    /// A log being written in FOLDER.
    Logger {
        folder: PathBuf,
        acks: PathBuf,
        pid_file: PathBuf,
    },
    /// Asks a unit to stop; PostgreSQL by disconnecting its clients, which SIGTERM would wait for.
    Stop {
        pid_file: PathBuf,
        #[arg(long)]
        fast: bool,
    },
    /// Exit code 0 while the unit runs.
    Status { pid_file: PathBuf },
}

impl Service {
    /// Whether the answer is yes; only `Status` ever says no.
    pub fn run(self) -> Result<bool> {
        match self {
            Self::Postgresql { data, pid_file } => {
                note(&pid_file)?;
                postgresql::serve(&data)?;
            }
            Self::Recorder { folder, acks, pid_file } => {
                note(&pid_file)?;
                recorder(&folder, &acks)?;
            }
            Self::Logger { folder, acks, pid_file } => {
                note(&pid_file)?;
                logger(&folder, &acks)?;
            }
            Self::Stop { pid_file, fast } => {
                if let Some(process) = noted(&pid_file)? {
                    process.signal(if fast { Signal::INT } else { Signal::TERM })?;
                }
            }
            Self::Status { pid_file } => return Ok(noted(&pid_file)?.is_some_and(ProcessId::alive)),
        }
        Ok(true)
    }
}

/// Notes the calling process in its pid file.
pub fn note(pid_file: &Path) -> Result<()> {
    let own = ProcessId::own().context("reading /proc/self/stat")?;
    fs::write(pid_file, serde_json::to_vec(&own)?).with_context(|| format!("writing {}", pid_file.display()))
}

fn noted(pid_file: &Path) -> Result<Option<ProcessId>> {
    match fs::read(pid_file) {
        Ok(text) => Ok(Some(
            serde_json::from_slice(&text).with_context(|| format!("reading {}", pid_file.display()))?,
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", pid_file.display())),
    }
}

/// The `[[unit]]` tables for the lab; `demo` is this program. Notes of what was acknowledged lie beside the mount.
pub fn units(demo: &Path) -> Result<String> {
    let recorder = ["unit", "recorder", "{mnt}/pbx/recordings", "{dir}/recorder.acks"];
    let logger = ["unit", "logger", "{mnt}/log", "{dir}/logger.acks"];
    tables([
        database(demo)?,
        unit(demo, "recorder", &recorder),
        unit(demo, "logger", &logger),
    ])
}

/// As one text.
pub fn tables(units: impl IntoIterator<Item = Table>) -> Result<String> {
    let all = Value::Array(units.into_iter().map(Value::Table).collect());
    Ok(toml::to_string(&Table::from_iter([("unit".to_owned(), all)]))?)
}

/// PostgreSQL, served by a program that has `Service` as its command `unit`.
pub fn database(program: &Path) -> Result<Table> {
    let pg_isready = postgresql::programs()?
        .join("pg_isready")
        .to_string_lossy()
        .into_owned();
    let mut database = unit(program, "postgresql", &["unit", "postgresql", "{mnt}/postgresql/data"]);
    let probe = [
        pg_isready.as_str(),
        "-q",
        "-h",
        "127.0.0.1",
        "-t",
        "1",
        "-U",
        "postgres",
    ];
    database.insert("health_command".into(), words(probe));
    database.insert("health_every_ms".into(), Value::Integer(250));
    // The first start makes the database.
    database.insert("start_timeout_ms".into(), Value::Integer(120_000));
    database.insert("health_failures".into(), Value::Integer(8));
    if let Some(Value::Array(stop)) = database.get_mut("stop") {
        stop.push(Value::from("--fast"));
    }
    Ok(database)
}

/// A unit that such a program starts by these words and the path of the pid file.
pub fn unit(program: &Path, name: &str, start: &[&str]) -> Table {
    let (program, pid_file) = (program.to_string_lossy(), format!("{{dir}}/{name}.pid"));
    let start = [&*program]
        .into_iter()
        .chain(start.iter().copied())
        .chain([pid_file.as_str()]);
    Table::from_iter([
        ("name".to_owned(), Value::from(name)),
        ("start".to_owned(), words(start)),
        ("stop".to_owned(), words([&program, "unit", "stop", &pid_file])),
        ("status".to_owned(), words([&program, "unit", "status", &pid_file])),
    ])
}

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(words.into_iter().map(Value::from).collect())
}
