//! `holdfast scrub`: has this node read all that it has stored, now, and shows what was found.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdfast_proto::control::{Scrub as State, ScrubRequest};

use crate::bar::Bar;
use crate::error::Result;
use crate::local::{Daemon, Target, block_on};
use crate::output;
use crate::words::{bytes, count};

const EVENT_WITHIN: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Scrub {
    #[command(flatten)]
    target: Target,
}

impl Scrub {
    pub fn run(self) -> Result<ExitCode> {
        block_on(async {
            let daemon = Daemon::connect(self.target.resolve()?).await?;
            let mut client = daemon.client();
            let mut bar = Bar::default();
            let mut events = daemon.answer(EVENT_WITHIN, client.scrub(ScrubRequest {})).await?;
            loop {
                let event = daemon
                    .next(EVENT_WITHIN, &mut events)
                    .await
                    .inspect_err(|_| output::progress(""))?;
                let state = event.scrub.unwrap_or_default();
                if !event.done {
                    output::progress(&progress(&state, &mut bar));
                    continue;
                }
                output::progress("");
                output::print(&outcome(&state, &event.damaged))?;
                let is_sound = event.damaged.is_empty() && !state.metadata_differ && state.unjudged == 0;
                return Ok(ExitCode::from(u8::from(!is_sound)));
            }
        })
    }
}

fn progress(state: &State, bar: &mut Bar) -> String {
    format!(
        "{}  {} of data and {} of metadata read; {} damaged, {} mended",
        bar.line(state.keys, state.keys_total),
        bytes(state.bytes),
        count(state.keys, "key"),
        state.found,
        state.mended
    )
}

fn outcome(state: &State, damaged: &[String]) -> String {
    let read = format!(
        "{} of data and {} of metadata read from this node's disk",
        bytes(state.bytes),
        count(state.keys, "key")
    );
    if state.found == 0 && damaged.is_empty() && !state.metadata_differ && state.unjudged == 0 {
        return format!("sound: {read}\n");
    }
    let verdict = match (damaged, state.metadata_differ) {
        ([], false) if state.unjudged > 0 => "not known",
        ([], false) => "mended",
        ([], true) => "different",
        _ => "damaged",
    };
    let mut text = format!(
        "{verdict}: {read}; {} damaged, {} mended from a peer\n",
        count(state.found, "block"),
        state.mended
    );
    for block in damaged {
        text += &format!("  not mended: {block}\n");
    }
    if state.unjudged > 0 {
        text += &format!(
            "  {} fitted no checksum while this node was doing again what it had done before it was stopped, or was changing them: \
             whether they are damaged isn't known. Scrub again when `holdfast status` shows it caught up.\n",
            count(state.unjudged, "block")
        );
    }
    if state.metadata_differ {
        text += "  The metadata (names, attributes, checksums) weren't what this node had applied: something else changed them. \
                 `holdfast check` says where it differs from the others, `holdfast check --repair` mends that.\n";
    }
    text += "  Look at the disk's health (`smartctl`): what rots once rots again.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_found() {
        let state = |found, mended| State {
            keys: 10,
            bytes: 1 << 20,
            found,
            mended,
            ..State::default()
        };
        assert!(outcome(&state(0, 0), &[]).starts_with("sound: "));
        let unsure = State {
            unjudged: 2,
            ..state(0, 0)
        };
        let text = outcome(&unsure, &[]);
        assert!(
            text.starts_with("not known: ") && text.contains("2 blocks fitted no"),
            "{text}"
        );
        let tampered = State {
            metadata_differ: true,
            ..state(0, 0)
        };
        let text = outcome(&tampered, &[]);
        assert!(
            text.starts_with("different: ") && text.contains("check --repair"),
            "{text}"
        );
        let text = outcome(&state(2, 2), &[]);
        assert!(
            text.starts_with("mended: ") && text.contains("2 blocks damaged, 2 mended"),
            "{text}"
        );
        let text = outcome(&state(2, 1), &["inode 7 (/a), block at 0: nobody has it".into()]);
        assert!(
            text.starts_with("damaged: ") && text.contains("not mended: inode 7 (/a)"),
            "{text}"
        );
    }
}
