//! What the rest of the daemon sees of the loop.

use super::Task;
use crate::view::View;
use std::sync::Arc;

impl Task {
    pub(super) fn name(&self, id: u64) -> String {
        self.settings
            .names
            .get(&id)
            .cloned()
            .unwrap_or_else(|| format!("number {id}"))
    }

    pub(super) fn publish(&mut self, now: u64) {
        let role = self.role();
        // The last sign of life of another node's leadership: a failover to this node begins there.
        if self.core.leader().is_some() && !self.core.is_leader() {
            self.state.own_before = self.core.leader_heard_ms;
        }
        let changed = {
            let shown = self.channels.view.borrow();
            shown.role != role
                || (shown.leader != self.core.leader() && !self.state.out)
                || shown.lease_until_ms != self.gate.lease_until_ms()
                || shown.handover.is_some() != self.state.switch.is_some()
                || now >= shown.at_ms + 50
        };
        if !changed {
            return;
        }
        let leader = self.core.leader().and_then(|id| self.core.peer(id)?.state);
        let behind = leader
            .filter(|leader| leader.last_index > self.core.last())
            .map_or(0, |leader| leader.lag_bytes.max(1));
        self.state.lag.look(now, behind);
        for (id, view) in &mut self.state.peers {
            if let Some(peer) = self.core.peer(*id) {
                view.heard_ms = peer.heard_ms;
                if let Some(state) = peer.state {
                    (view.last_index, view.eligible, view.forgetful) =
                        (state.last_index, state.eligible, state.forgetful);
                }
            }
        }
        let view = View {
            at_ms: now,
            role,
            term: self.core.term(),
            // Who leads the others isn't known to a node that doesn't listen.
            leader: self.core.leader().filter(|_| !self.state.out),
            candidate: self.core.leader().is_none() || self.state.out,
            sequenced: self.core.last(),
            durable: self.core.durable(),
            committed: self.core.committed(),
            applied: self.store.applied().0,
            checkpointed: self.store.checkpointed().0,
            first: self.core.first(),
            lease_until_ms: self.gate.lease_until_ms(),
            vip_not_before_ms: self.state.vip_not_before_ms,
            forgetful: self.core.is_forgetful(),
            durable_alone_ms: self.core.durable_alone_ms(),
            peers: self.state.peers.clone(),
            lag: self.state.lag,
            left_behind: self.core.left_behind(),
            halted: self.state.halted.clone(),
            disk: self.state.disk.clone(),
            full: self.sequencer.full,
            failover: self.state.failover.clone(),
            handover: self.state.switch.as_ref().map(|switch| {
                let handover = &switch.handover;
                format!("{:?} to {}", handover.step, self.name(handover.to)).to_lowercase()
            }),
            waiting: self.sequencer.waiting(),
            has_room: self.has_room(),
            unapplied: self.core.unapplied(),
            room: self.state.room,
        };
        self.channels.view.send_replace(Arc::new(view));
    }
}
