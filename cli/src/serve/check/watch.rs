//! While this node is active: do all three still hold the same? Asked every few seconds in which something was changed, and
//! every minute in which nothing was: a scrub may have found that a store isn't what was applied.

use super::super::shared::Shared;
use super::ask::Asker;
use super::compare;
use holdfast_replicator::clock::unix_ms;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_secs(2);
/// Of those, so many without a change in between are left out.
const IDLE: u32 = 15;

/// Replicas that don't hold the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Divergence {
    /// Nodes that agree, and who alone doesn't; empty: no two agree.
    pub(in super::super) groups: Vec<Vec<String>>,
    pub(in super::super) odd_one_out: Option<String>,
    pub(in super::super) since_unix_ms: u64,
}

pub(in super::super) async fn follow(shared: Arc<Shared>) {
    let mut compared = 0;
    // A block that is damaged differs, too, until it is mended a moment later.
    let mut suspected = false;
    let mut idle = 0;
    loop {
        tokio::time::sleep(if suspected { AGAIN } else { EVERY }).await;
        if !shared.is_active() {
            shared.set_divergence(None);
            (compared, suspected) = (0, false);
            continue;
        }
        // The question itself is an entry, too.
        let is_idle = shared.view().committed <= compared && shared.divergence().is_none() && !suspected;
        if is_idle && idle < IDLE {
            idle += 1;
            continue;
        }
        idle = 0;
        let mut asker = Asker::new(shared.clone());
        // Without an answer nothing is known, and nothing that was known is forgotten.
        let Ok(answers) = asker.digests().await else {
            continue;
        };
        compared = asker.at_index;
        let found = compare::digests(&answers).map(|difference| Divergence {
            groups: difference.groups(),
            odd_one_out: difference.odd_one_out(),
            since_unix_ms: unix_ms(),
        });
        // Who doesn't answer says nothing: what was known of it stays.
        let all = shared.members().len();
        let is_whole = answers.values().filter(|found| found.is_ok()).count() == all;
        if found.is_none() && !is_whole {
            suspected = false;
            continue;
        }
        let is_new = found.is_some() && shared.divergence().is_none();
        if is_new && !std::mem::replace(&mut suspected, true) {
            continue;
        }
        suspected = false;
        // With two that differ it isn't known which: what was found before, with the third, holds on.
        let odd = found.as_ref().map(|found| found.odd_one_out.as_deref());
        if odd != Some(None) {
            shared.set_odd_one_out(odd.flatten());
        }
        shared.set_divergence(found);
    }
}
