//! A command that answers by its exit code.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::error::{Error, Result};

/// How much of its last words is repeated.
const SAID_MAX: usize = 200;

/// Runs to the end, or kills it with all its children when the time is over.
pub(crate) async fn run(words: &[String], within: Duration) -> Result<()> {
    let (program, arguments) = words.split_first().ok_or(Error::EmptyCommand)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().map_err(|source| Error::Spawn {
        command: words.join(" "),
        source,
    })?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let output = match tokio::time::timeout(within, child.wait_with_output()).await {
        Ok(output) => output.map_err(|source| Error::Io {
            doing: format!("waiting for `{}`", words.join(" ")),
            source,
        })?,
        Err(_) => {
            if let Some(group) = group {
                // It may have ended just now.
                let _ = kill_process_group(group, Signal::KILL);
            }
            return Err(Error::CommandSlow {
                command: words.join(" "),
                after: within,
            });
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = last_words(&output.stderr).or_else(|| last_words(&output.stdout));
    let said = said.map(|line| format!("; it said: {line}")).unwrap_or_default();
    Err(Error::CommandFailed {
        command: words.join(" "),
        status: output.status.to_string(),
        said,
    })
}

fn last_words(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().take(SAID_MAX).collect())
}
