//! What a unit's commands write, line by line into this agent's log.
//!
//! It goes through a named pipe, opened by the commands for reading too: a service that writes to it doesn't die of SIGPIPE
//! when this agent ends, and the agent that is started next reads on.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, mkfifoat};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tracing::{info, warn};

use crate::error::{Error, Result};

/// Longer lines are cut into pieces: memory stays bounded whatever a unit writes.
const LINE_MAX: usize = 4096;

pub(super) struct Output {
    pipe: PathBuf,
    last: Arc<Mutex<String>>,
}

impl Output {
    /// Must be called inside a runtime: it hosts the reading task.
    pub(super) fn of_unit(run: &Path, unit: &str) -> Self {
        let output = Self {
            pipe: run.join(format!("{unit}.out")),
            last: Arc::default(),
        };
        match output.open(run) {
            Ok(receiver) => {
                tokio::spawn(read_lines(unit.to_owned(), receiver, output.last.clone()));
            }
            Err(error) => warn!(unit, "its output isn't logged: {}", error.sentence()),
        }
        output
    }

    fn open(&self, run: &Path) -> Result<pipe::Receiver> {
        let failed = |source| Error::Io {
            doing: format!("making the pipe {}", self.pipe.display()),
            source,
        };
        fs::create_dir_all(run).map_err(failed)?;
        match mkfifoat(rustix::fs::CWD, &self.pipe, Mode::RUSR | Mode::WUSR) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&self.pipe)
            .map_err(failed)
    }

    /// Without a pipe the output goes nowhere, which is better than not starting.
    pub(super) fn attach(&self, command: &mut Command) -> Result<()> {
        let failed = |source| Error::Io {
            doing: format!("opening {}", self.pipe.display()),
            source,
        };
        let both = OpenOptions::new().read(true).write(true).open(&self.pipe);
        let both = both
            .or_else(|_| OpenOptions::new().write(true).open("/dev/null"))
            .map_err(failed)?;
        command.stdout(both.try_clone().map_err(failed)?).stderr(both);
        Ok(())
    }

    pub(super) fn last_line(&self) -> Option<String> {
        let last = self.last.lock().ok()?;
        (!last.is_empty()).then(|| last.clone())
    }
}

async fn read_lines(unit: String, mut receiver: pipe::Receiver, last: Arc<Mutex<String>>) {
    let mut line = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = receiver.read(&mut buffer).await {
        for byte in &buffer[..length] {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() == LINE_MAX {
                say(&unit, &String::from_utf8_lossy(&line), &last);
                line.clear();
            }
        }
    }
}

fn say(unit: &str, line: &str, last: &Mutex<String>) {
    if line.trim().is_empty() {
        return;
    }
    info!(unit, "{line}");
    if let Ok(mut last) = last.lock() {
        last.clear();
        last.push_str(line);
    }
}
