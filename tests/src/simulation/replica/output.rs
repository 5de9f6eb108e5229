//! The end of each round: what is handed to the threads and the peers, and who is answered.

use super::{Event, Replica, Turn};
use holdfast_replicator::core::Output;
use holdfast_replicator::wire::PeerMessage;

impl Replica {
    /// The end of each round, until nothing that was waited for has gone on.
    pub fn round(&mut self, turn: &mut Turn<'_>) {
        self.flush(turn);
        while self.must_look_again(turn) {
            self.flush(turn);
        }
        self.begin_work(turn);
        self.wake(turn);
    }

    pub(super) fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.out {
            return;
        }
        let applied = self.store.applied();
        if applied.0 > self.core.applied {
            self.core.applied_to(applied);
        }
        self.look_at_log();
        self.output(turn);
        self.step_role(turn);
        self.step_handover(turn);
        if self.gate.may_answer(turn.now_ms) {
            self.release_held(turn);
            self.drain(turn);
        }
        self.output(turn);
        self.hurry(turn);
        if self.gate.may_answer(turn.now_ms) {
            self.sequencer.progress(self.core.received(), self.core.committed());
        }
        self.publish(turn);
    }

    fn look_at_log(&mut self) {
        let most = self.threads.log_total() - self.threads.log.geometry().segment_bytes;
        self.core.log_room = most.saturating_sub(self.threads.log.used());
        self.threads.asked |= self.core.take_log_full();
    }

    fn must_look_again(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.out {
            return false;
        }
        let waits = self.sequencer.is_full() || (self.core.is_leader() && !self.core.has_applied_own_term());
        if let Some(committed) = self.unapplied.due(turn.now_ms, waits) {
            self.threads.carry_out(committed);
        }
        self.threads.apply_awaited = waits;
        waits && self.store.applied().0 > self.core.applied
    }

    fn output(&mut self, turn: &mut Turn<'_>) {
        if self.sequencer.may_linger(turn.now_ms) {
            return;
        }
        self.sequencer.linger.handed_out();
        loop {
            let output = self.core.output();
            let more = output.more;
            self.hand_out(output, turn);
            if !more {
                return;
            }
        }
    }

    fn hand_out(&mut self, output: Output, turn: &mut Turn<'_>) {
        for persist in output.persist {
            if let Some(first) = persist.entries.first() {
                self.memory.split_off(&first.index.0);
            }
            let terms = persist.entries.iter().map(|entry| (entry.index.0, entry.term.0));
            self.memory.extend(terms);
            self.gather.push(persist, turn.now_ms);
        }
        self.send_all(output.send, turn);
        turn.committed.extend(output.committed.iter().cloned());
        self.unapplied.push(output.committed, turn.now_ms);
        for wanted in output.fetch {
            let takes = turn.random.between(100, 20_000);
            turn.later.push((takes, Event::Entries(wanted)));
        }
        if let Some(why) = output.broken {
            self.fail(why, turn);
        }
    }

    fn hurry(&mut self, turn: &mut Turn<'_>) {
        let mut now = std::mem::take(&mut self.sync_now);
        if self.sequencer.urgency.take() && self.core.is_leader() && self.core.last() > self.sync_asked {
            now = true;
            self.sync_asked = self.core.last();
            let peers = (1..=3).filter(|peer| *peer != self.id);
            self.send_all(peers.map(|peer| (peer, PeerMessage::SyncNow)).collect(), turn);
        }
        if now {
            self.gather.hurry();
        }
        if let Some(persists) = self.gather.due(turn.now_ms) {
            self.threads.write(persists);
        }
    }

    pub(super) fn send_all(&self, messages: Vec<(u64, PeerMessage)>, turn: &mut Turn<'_>) {
        let pins = self.pins();
        for (to, mut message) in messages {
            if let PeerMessage::State(state) = &mut message {
                state.third_store = pins.vouches(to);
            }
            if !pins.is_strange(to) {
                turn.send.push((to, message));
            }
        }
    }

    fn publish(&mut self, turn: &mut Turn<'_>) {
        let now = (
            self.role,
            self.core.leader(),
            self.gate.lease_until_ms(),
            self.handover.is_some(),
            turn.now_ms / 50,
        );
        turn.publish |= now != self.shown;
        self.shown = now;
    }

    /// When something that was held back must go on.
    fn wake(&mut self, turn: &mut Turn<'_>) {
        if self.out {
            return;
        }
        let held = [
            self.gather.left_ms(turn.now_ms),
            self.unapplied.left_ms(turn.now_ms),
            self.sequencer.linger.left_ms(turn.now_ms),
        ];
        if let Some(left) = held.into_iter().flatten().min() {
            let at = turn.now_ms + left;
            if self.wakes_at_ms == 0 || at < self.wakes_at_ms {
                self.wakes_at_ms = at;
                turn.later.push((left * 1000 + 100, Event::Wake));
            }
        }
    }
}
