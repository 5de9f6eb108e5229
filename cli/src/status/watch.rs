//! `--watch`: the same place on the screen, once a second.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{ask, exit_code, json, text};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::output::{self, Reader};

const SHOW_CURSOR: &str = "\x1b[?25h";

/// Until Ctrl-C, or until nobody reads any more; the exit code is that of the last look.
pub(super) async fn run(socket: &Path, as_json: bool) -> Result<ExitCode> {
    let on_screen = output::is_terminal() && !as_json;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = ExitCode::from(2);
    if on_screen {
        output::print("\x1b[?25l\x1b[2J")?;
    }
    loop {
        let look = async {
            seconds.tick().await;
            ask(socket.to_path_buf()).await
        };
        let answer = tokio::select! {
            answer = look => answer,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(Error::Runtime)?;
                break;
            }
        };
        last = answer.as_ref().map_or(ExitCode::from(2), exit_code);
        let page = page(answer, as_json);
        let page = if on_screen { redraw(&page) } else { page };
        if output::print(&page)? == Reader::Gone {
            break;
        }
    }
    if on_screen {
        output::print(SHOW_CURSOR)?;
    }
    Ok(last)
}

fn page(answer: Result<holdfast_proto::control::ClusterStatus>, as_json: bool) -> String {
    match (answer, as_json) {
        (Ok(status), true) => format!("{}\n", json(&status)),
        (Ok(status), false) => format!("{}\n", text(&status, &Clock::read())),
        (Err(error), true) => format!("{}\n", serde_json::json!({ "error": error.to_string() })),
        (Err(error), false) => format!("{error}\n"),
    }
}

/// Over what stands there, each line cleared to its end: a screen that is cleared first would flicker.
fn redraw(page: &str) -> String {
    let lines: String = page.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}
