//! `holdfast check`: asks for a comparison of the three replicas and shows what differs where; or looks at one stopped store.

mod store;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdfast_proto::control::check_event::Event;
use holdfast_proto::control::{CheckDifference, CheckProgress, CheckRequest, CheckVerdict};
use serde_json::json;

use crate::bar::Bar;
use crate::error::Result;
use crate::local::{Daemon, Target, block_on};
use crate::output;
use crate::words::{bytes, count};

/// Between two events lies the reading of a few MiB on each node.
const EVENT_WITHIN: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Check {
    /// One JSON document at the end instead of text
    #[arg(long)]
    json: bool,
    /// Stop after so many ranges of keys and blocks
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_ranges: u64,
    /// Compare one digest of all metadata and checksums: at once, without reading data
    #[arg(long, conflicts_with_all = ["repair", "full"])]
    quick: bool,
    /// Compare all metadata and read all data from the disks; so it is without --quick
    #[arg(long)]
    full: bool,
    /// Put right what two nodes have alike and the third otherwise, while they are in use
    #[arg(long)]
    repair: bool,
    /// Look at the store of a stopped node instead, with nothing but its disk: do its metadata fit together, does its data
    /// fit its checksums. With --repair, what can be put right without a peer is
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "full", "max_ranges", "socket", "config"])]
    store: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// What the comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Same,
    Different,
    /// No difference seen, but not everything was compared.
    Incomplete,
}

impl Outcome {
    fn of(verdict: &CheckVerdict, differences: &[CheckDifference]) -> Self {
        if verdict.differences > verdict.mended || (verdict.differences == 0 && !differences.is_empty()) {
            Self::Different
        } else if !verdict.not_checked.is_empty() {
            Self::Incomplete
        } else if verdict.same {
            Self::Same
        } else {
            Self::Different
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Incomplete => "incomplete",
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Same => 0,
            Self::Different => 1,
            Self::Incomplete => 2,
        }
    }
}

impl Check {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(store) = &self.store {
            return store::run(store, self.repair, self.json);
        }
        Ok(self.compare()?)
    }

    fn compare(self) -> Result<ExitCode> {
        block_on(async {
            let daemon = Daemon::connect(self.target.resolve()?).await?;
            let mut client = daemon.client();
            let request = CheckRequest {
                max_ranges: self.max_ranges,
                repair: self.repair,
                quick: self.quick,
            };
            let mut events = daemon.answer(EVENT_WITHIN, client.check(request)).await?;
            let (mut differences, mut bar) = (Vec::new(), Bar::default());
            loop {
                let event = match daemon.next(EVENT_WITHIN, &mut events).await {
                    Ok(event) => event.event,
                    Err(error) => {
                        output::progress("");
                        if self.json {
                            output::print(&format!("{:#}\n", broken_off_json(&error, &differences)))?;
                        }
                        return Err(error);
                    }
                };
                match event {
                    Some(Event::Progress(progress)) => output::progress(&progress_line(&progress, &mut bar)),
                    Some(Event::Difference(difference)) => {
                        output::progress("");
                        if !self.json {
                            output::print(&difference_lines(&difference))?;
                        }
                        differences.push(difference);
                    }
                    Some(Event::Verdict(verdict)) => {
                        output::progress("");
                        let outcome = Outcome::of(&verdict, &differences);
                        let text = if self.json {
                            format!("{:#}\n", verdict_json(outcome, &verdict, &differences))
                        } else {
                            verdict_lines(outcome, &verdict)
                        };
                        output::print(&text)?;
                        return Ok(ExitCode::from(outcome.exit_code()));
                    }
                    // Of a newer daemon.
                    None => {}
                }
            }
        })
    }
}

/// How much data there is is known when all metadata have been compared, which comes first.
fn progress_line(progress: &CheckProgress, bar: &mut Bar) -> String {
    let keys = count(progress.keys, "key");
    if progress.bytes == 0 {
        return format!(
            "compared {keys} of metadata, which name {} of data",
            bytes(progress.bytes_total)
        );
    }
    format!(
        "{}  {} of {} compared, and {keys} of metadata",
        bar.line(progress.bytes, progress.bytes_total),
        bytes(progress.bytes),
        bytes(progress.bytes_total)
    )
}

fn difference_lines(difference: &CheckDifference) -> String {
    let path = if difference.path.is_empty() {
        String::new()
    } else {
        format!(" ({})", difference.path)
    };
    let odd = match difference.odd_one_out.as_str() {
        "" => "no two nodes agree".to_owned(),
        odd => format!("{odd} is the odd one out"),
    };
    let mut line = format!(
        "differs: {}{path}: {odd} [{}]\n",
        difference.what,
        difference.groups.join(" | ")
    );
    if !difference.mended.is_empty() {
        line += &format!("  {}\n", difference.mended);
    }
    line
}

fn compared(verdict: &CheckVerdict) -> String {
    format!(
        "{} of data read from disk on each node and {} of metadata, at log index {}",
        bytes(verdict.bytes),
        count(verdict.keys, "key"),
        verdict.at_index
    )
}

fn verdict_lines(outcome: Outcome, verdict: &CheckVerdict) -> String {
    let compared = if verdict.keys == 0 && verdict.bytes == 0 {
        format!("the digests of all that was applied, at log index {}", verdict.at_index)
    } else {
        compared(verdict)
    };
    let mut text = match outcome {
        Outcome::Same if verdict.mended > 0 => format!(
            "same now: {} mended in {compared}\n",
            count(verdict.mended, "difference")
        ),
        Outcome::Same => format!("same: {compared}\n"),
        Outcome::Different => format!(
            "different: {} in {compared}{}\n  Don't switch over to a node that is the odd one out before it is mended: \
             `holdfast check --repair`, and see `A difference` in the runbook.\n",
            count(verdict.differences, "difference"),
            match verdict.mended {
                0 => String::new(),
                mended => format!("; {mended} of them mended"),
            }
        ),
        Outcome::Incomplete if verdict.mended > 0 => format!(
            "incomplete: {} mended in {compared}, no other found\n",
            count(verdict.mended, "difference")
        ),
        Outcome::Incomplete => format!("incomplete: no difference found in {compared}\n"),
    };
    for node in &verdict.not_checked {
        text += &format!("  not checked: {node}\n");
    }
    // A node's name comes first; what was to be left out anyway needs nobody.
    let is_of_a_node = |what: &String| !what.starts_with("data behind");
    if outcome == Outcome::Incomplete && verdict.not_checked.iter().any(is_of_a_node) {
        text += "  Bring these nodes back (`holdfast status` says what they lack), then check again.\n";
    }
    text
}

/// What was found until it ended early: as the verdict's, but without what only the end tells.
fn broken_off_json(why: &impl std::fmt::Display, differences: &[CheckDifference]) -> serde_json::Value {
    json!({
        "verdict": "broken off",
        "same": false,
        "why": why.to_string(),
        "differences": differences.iter().map(difference_json).collect::<Vec<_>>(),
    })
}

fn difference_json(difference: &CheckDifference) -> serde_json::Value {
    json!({
        "what": difference.what,
        "path": (!difference.path.is_empty()).then_some(&difference.path),
        "groups": difference.groups,
        "mended": (!difference.mended.is_empty()).then_some(&difference.mended),
        "odd_one_out": (!difference.odd_one_out.is_empty()).then_some(&difference.odd_one_out),
    })
}

fn verdict_json(outcome: Outcome, verdict: &CheckVerdict, differences: &[CheckDifference]) -> serde_json::Value {
    json!({
        "verdict": outcome.word(),
        "same": outcome == Outcome::Same,
        "at_index": verdict.at_index,
        "bytes": verdict.bytes,
        "keys": verdict.keys,
        "difference_count": verdict.differences,
        "mended_count": verdict.mended,
        "differences": differences.iter().map(difference_json).collect::<Vec<_>>(),
        "not_checked": verdict.not_checked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(same: bool, differences: u64, not_checked: &[&str]) -> CheckVerdict {
        let not_checked = not_checked.iter().map(ToString::to_string).collect();
        CheckVerdict {
            same,
            differences,
            not_checked,
            at_index: 42,
            bytes: 1 << 30,
            keys: 7,
            mended: 0,
        }
    }

    #[test]
    fn outcomes() {
        assert_eq!(Outcome::of(&verdict(true, 0, &[]), &[]), Outcome::Same);
        assert_eq!(Outcome::of(&verdict(false, 1, &[]), &[]), Outcome::Different);
        assert_eq!(Outcome::of(&verdict(false, 1, &["n3: down"]), &[]), Outcome::Different);
        assert_eq!(Outcome::of(&verdict(true, 0, &["n3: down"]), &[]), Outcome::Incomplete);
        assert_eq!(Outcome::of(&verdict(false, 0, &[]), &[]), Outcome::Different);
    }

    #[test]
    fn a_difference_names_the_odd_one() {
        let difference = CheckDifference {
            what: "data of inode 17 at 4096, 4096 bytes".into(),
            path: "pbx/a.wav".into(),
            groups: vec!["n1+n3".into(), "n2".into()],
            odd_one_out: "n2".into(),
            mended: String::new(),
        };
        let line = difference_lines(&difference);
        for part in ["inode 17", "pbx/a.wav", "n2 is the odd one out", "n1+n3 | n2"] {
            assert!(line.contains(part), "{line}");
        }
        let json = verdict_json(
            Outcome::Different,
            &verdict(false, 1, &[]),
            std::slice::from_ref(&difference),
        );
        assert_eq!(json["same"], false);
        assert_eq!(json["differences"][0]["odd_one_out"], "n2");
        let json = broken_off_json(&"n1 went away", std::slice::from_ref(&difference));
        assert_eq!(
            (&json["verdict"], &json["why"]),
            (&json!("broken off"), &json!("n1 went away"))
        );
        assert_eq!(json["differences"][0]["path"], "pbx/a.wav");
        let none = CheckDifference {
            what: "metadata".into(),
            ..CheckDifference::default()
        };
        assert!(difference_lines(&none).contains("no two nodes agree"));
    }

    #[test]
    fn an_incomplete_check_says_who_is_missing() {
        let text = verdict_lines(Outcome::Incomplete, &verdict(true, 0, &["n3: not reached"]));
        assert!(
            text.contains("not checked: n3: not reached") && text.contains("holdfast status"),
            "{text}"
        );
    }
}
