//! What status says of this node stands in the journal, too: when it begins, with the advice, and when it is over.

use super::shared::Shared;
use super::status;
use holdfast_proto::control::Notice;
use holdfast_replicator::clock::boottime_ms;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);
/// What comes back sooner wasn't over.
const OVER_AFTER_MS: u64 = 15_000;

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Begins {
        what: String,
        advice: String,
        serious: bool,
    },
    Over {
        what: String,
    },
}

/// What is known to whoever reads the journal: its words, and when it was last true.
#[derive(Default)]
struct Told(BTreeMap<String, (String, u64)>);

/// Numbers in it change from look to look; those that belong to a name don't.
fn key(what: &str) -> String {
    let mut in_name = false;
    let stays = |letter: &char| {
        in_name = letter.is_alphabetic() || (in_name && (letter.is_ascii_digit() || *letter == '-'));
        in_name || !letter.is_ascii_digit()
    };
    what.chars().filter(stays).collect()
}

impl Told {
    fn look(&mut self, now_ms: u64, notices: Vec<Notice>) -> Vec<Line> {
        let mut lines = Vec::new();
        for Notice {
            what, advice, serious, ..
        } in notices
        {
            if self.0.insert(key(&what), (what.clone(), now_ms)).is_none() {
                lines.push(Line::Begins { what, advice, serious });
            }
        }
        self.0.retain(|_, (what, last_ms)| {
            let is_over = now_ms >= *last_ms + OVER_AFTER_MS;
            if is_over {
                lines.push(Line::Over {
                    what: std::mem::take(what),
                });
            }
            !is_over
        });
        lines
    }
}

pub(super) async fn follow(shared: Arc<Shared>) {
    let mut told = Told::default();
    loop {
        tokio::time::sleep(EVERY).await;
        let asked = shared.clone();
        // The disk is asked how full it is, and may hang.
        let Ok(status) = tokio::task::spawn_blocking(move || status::node(&asked)).await else {
            return;
        };
        for line in told.look(boottime_ms(), status.notices) {
            match line {
                Line::Begins {
                    what,
                    advice,
                    serious: true,
                } => tracing::warn!(advice, "{what}"),
                Line::Begins { what, advice, .. } => tracing::info!(advice, "{what}"),
                Line::Over { what } => tracing::info!("over: {what}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(what: &str) -> Notice {
        Notice {
            what: what.into(),
            serious: true,
            ..Notice::default()
        }
    }

    #[test]
    fn numbers_change_and_names_do_not() {
        assert_eq!(key("n2 is 7.00 s behind, 30 MiB"), key("n2 is 12.25 s behind, 5 MiB"));
        assert_ne!(key("no replication to n1"), key("no replication to n2"));
        assert_ne!(key("pbx10 is away"), key("pbx11 is away"));
        assert_ne!(key("pbx-1 is away"), key("pbx-2 is away"));
    }

    #[test]
    fn each_is_told_once_and_when_it_is_over() {
        let mut told = Told::default();
        let began = told.look(0, vec![notice("n2 is away for 1 s"), notice("the disk is full")]);
        assert_eq!(began.len(), 2);
        assert_eq!(told.look(1000, vec![notice("n2 is away for 2 s")]), []);
        assert_eq!(
            told.look(OVER_AFTER_MS, vec![notice("n2 is away for 15 s")]),
            [Line::Over {
                what: "the disk is full".into()
            }]
        );
        // Gone for a moment, and back: it never was over.
        assert_eq!(told.look(OVER_AFTER_MS + 1000, Vec::new()), []);
        assert_eq!(told.look(OVER_AFTER_MS + 2000, vec![notice("n2 is away for 1 s")]), []);
    }
}
