//! Checks: an entry of the log asks each replica for a hash of one part; the answers go to whoever asked.

use super::Task;
use crate::clock::boottime_ms;
use crate::wire::PeerMessage;
use holdfast_proto::stream;
use holdfast_storage::check::{Found, Part};
use holdfast_storage::effects::{CheckPart, Effect, Entry};
use holdfast_storage::types::{LogIndex, Term};
use tokio::sync::mpsc;

impl Task {
    pub(super) fn begin_check(
        &mut self,
        part: CheckPart,
        parts: mpsc::UnboundedSender<(u64, Part)>,
    ) -> Result<u64, String> {
        if !self.role().accepts() {
            return Err("this node is not active".into());
        }
        self.state.next_check += 1;
        let id = self.settings.id << 56 | (boottime_ms() & 0xffff_ffff) << 20 | self.state.next_check & 0xf_ffff;
        let entry = Entry {
            term: Term(self.core.term()),
            effects: vec![Effect::Check { id, part }],
        };
        let index = self
            .core
            .propose(entry.encode())
            .ok_or("the log takes no more entries just now")?;
        self.store.overlay.sequence(index, &entry.effects);
        self.sequencer.urgency.now();
        self.state.checks.insert(id, parts);
        self.core.tell_commits(true);
        Ok(index.0)
    }

    /// This replica's own finding: to whoever asked.
    pub(super) fn found(&mut self, part: Part) {
        let asked_by = part.id >> 56;
        if asked_by == self.settings.id {
            if let Some(waiting) = self.state.checks.get(&part.id) {
                let _ = waiting.send((self.settings.id, part));
            }
            return;
        }
        let (found, error) = match part.found {
            Ok(found) => (found, String::new()),
            Err(error) => (Found::default(), error),
        };
        // The index is the entry's; the asker knows which question it answers.
        let message = stream::CheckPart {
            id: part.id,
            index: part.index.0,
            hash: found.hash.into(),
            count: found.count,
            error,
            next_data: found.next_data,
        };
        self.send_all(vec![(asked_by, PeerMessage::CheckPart(message))]);
    }

    pub(super) fn peer_found(&mut self, from: u64, part: stream::CheckPart) {
        if let Some(waiting) = self.state.checks.get(&part.id) {
            let found = if part.error.is_empty() {
                Ok(Found {
                    hash: part.hash.to_vec(),
                    count: part.count,
                    next_data: part.next_data,
                    ..Found::default()
                })
            } else {
                Err(part.error)
            };
            let _ = waiting.send((
                from,
                Part {
                    id: part.id,
                    index: LogIndex(part.index),
                    found,
                },
            ));
        }
    }
}
