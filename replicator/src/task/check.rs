//! Checks: an entry of the log asks each replica for a hash of one part; the answers go to whoever asked.

use super::Task;
use crate::clock::boottime_ms;
use crate::wire::PeerMessage;
use bytes::Bytes;
use holdfast_proto::stream;
use holdfast_storage::check::{Found, Part};
use holdfast_storage::effects::{CheckPart, Effect, Entry};
use holdfast_storage::types::{BLOCK, LogIndex, Term};
use tokio::sync::mpsc;

/// What a peer found, if it can be that.
pub(crate) fn told(part: stream::CheckPart) -> Result<Found, String> {
    let (sums, rest) = part.sums.as_chunks();
    let hash = |key: stream::KeyHash| Some((key.key, key.hash.as_ref().try_into().ok()?));
    let keys: Option<Vec<_>> = part.keys.into_iter().map(hash).collect();
    let is_whole = rest.is_empty() && (sums.is_empty() || sums.len() as u64 >= part.count.div_ceil(BLOCK));
    let keys = keys.filter(|_| is_whole).ok_or("its answer makes no sense")?;
    Ok(Found {
        hash: part.hash.to_vec(),
        count: part.count,
        next_data: part.next_data,
        next: part.next,
        sums: sums.to_vec(),
        keys,
        ..Found::default()
    })
}

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
            next: found.next,
            sums: Bytes::copy_from_slice(found.sums.as_flattened()),
            keys: found
                .keys
                .into_iter()
                .map(|(key, hash)| stream::KeyHash {
                    key,
                    hash: Bytes::copy_from_slice(&hash),
                })
                .collect(),
        };
        self.send_all(vec![(asked_by, PeerMessage::CheckPart(message))]);
    }

    pub(super) fn peer_found(&mut self, from: u64, part: stream::CheckPart) {
        if let Some(waiting) = self.state.checks.get(&part.id) {
            let (id, index) = (part.id, LogIndex(part.index));
            let found = if part.error.is_empty() {
                told(part)
            } else {
                Err(part.error)
            };
            let _ = waiting.send((from, Part { id, index, found }));
        }
    }
}
