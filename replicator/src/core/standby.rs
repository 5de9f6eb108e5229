//! Which of the others could serve in this node's place.

use super::{Core, HERE_MS, Peer};
use crate::memory_log::OldEntries;
use holdfast_proto::stream::NodeState;
use holdfast_storage::types::LogIndex;

/// Why a node can't take the role over now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    NotReached,
    /// Its replica is known not to hold what the two others hold.
    Differs,
    /// It says so itself.
    NotEligible,
    Forgetful,
    /// This leader's log no longer has what it lacks: it gets a copy, from whoever is active.
    LeftBehind,
    /// So many bytes of the log are on their way to it.
    Behind(u64),
}

impl<O: OldEntries> Core<O> {
    /// `odd_one_out`: the node whose replica is known to differ.
    pub fn takes_over(&self, id: u64, now_ms: u64, odd_one_out: Option<u64>) -> Result<(), Unfit> {
        let state = self.peer(id).and_then(|peer| heard(peer, now_ms));
        match state.ok_or(Unfit::NotReached)? {
            _ if odd_one_out == Some(id) => Err(Unfit::Differs),
            state if !state.eligible => Err(Unfit::NotEligible),
            state if state.forgetful => Err(Unfit::Forgetful),
            _ if self.left_behind().contains(&id) => Err(Unfit::LeftBehind),
            _ if !self.is_up_to_date(id) => Err(Unfit::Behind(self.behind(id))),
            _ => Ok(()),
        }
    }

    /// Of those that could take over the one that is most up to date; the odd one out only if there is no other.
    pub fn best_standby(&self, now_ms: u64, odd_one_out: Option<u64>) -> Option<u64> {
        let fit = |(id, peer): (&u64, &Peer)| {
            let state = heard(peer, now_ms)?;
            let is_fit = self.takes_over(*id, now_ms, None).is_ok();
            is_fit.then_some((odd_one_out != Some(*id), state.last_index, *id))
        };
        self.peers.iter().filter_map(fit).max().map(|(.., id)| id)
    }

    /// Whether all peers are reached and say that they could serve.
    pub fn are_all_eligible(&self, now_ms: u64) -> bool {
        let says = |id: &u64| self.peer(*id).and_then(|peer| heard(peer, now_ms));
        self.config
            .peers
            .iter()
            .all(|id| says(id).is_some_and(|state| state.eligible))
    }

    /// Bytes that this node, with what is free here and the last entry applied, and the better standby can still take, besides what they
    /// have yet to apply.
    pub fn least_room(&self, (own, applied): (u64, LogIndex), free: impl Fn(&NodeState) -> u64) -> u64 {
        let states = self.peers.values().filter_map(|peer| peer.state);
        let standby = states.map(|state| self.room(free(&state), state.applied)).max();
        standby.unwrap_or(u64::MAX).min(self.room(own, applied.0))
    }
}

fn heard(peer: &Peer, now_ms: u64) -> Option<NodeState> {
    peer.state.filter(|_| peer.heard_ms + HERE_MS > now_ms)
}
