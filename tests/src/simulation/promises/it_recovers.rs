//! Once faults have stopped, within a bound a node serves, has the address, and all three have caught up and hold the same.

use super::{Judge, replicas_agree};
use crate::simulation::machine::Machine;
use crate::simulation::world::World;
use holdfast_replicator::roles::Role;

impl World {
    /// The one that serves, with its address.
    fn serving(&self) -> Result<u64, String> {
        let active = |id: &u64| {
            let machine = &self.machines[*id as usize - 1];
            let role = machine.replica().map(|replica| replica.role);
            matches!(role, Some(Role::Active { .. })) && machine.kernel.holds(self.now_us)
        };
        (1..=3)
            .find(active)
            .ok_or_else(|| format!("no node is active with the address; {}", self.objections()))
    }

    fn objections(&self) -> String {
        let of = |machine: &Machine| {
            let now_ms = machine.clock.at_ms(self.now_us);
            Some(format!(
                "n{}: {}",
                machine.id,
                machine.agent.as_ref()?.objections(now_ms)
            ))
        };
        self.machines.iter().filter_map(of).collect::<Vec<_>>().join("; ")
    }

    /// Why not all is well yet.
    pub(in crate::simulation) fn is_well(&self) -> Result<(), String> {
        self.copies_have_ended()?;
        let active = self.serving()?;
        let last = self.machines[active as usize - 1]
            .replica()
            .map_or(0, |replica| replica.core.last());
        for machine in &self.machines {
            let id = machine.id;
            let replica = machine.replica().ok_or_else(|| format!("n{id} doesn't run"))?;
            if let Some(why) = &replica.halted {
                return Err(format!("n{id} has halted: {why}"));
            }
            let (applied, forgetful) = (replica.store.applied().0, replica.core.is_forgetful());
            if applied != last || forgetful || !replica.is_redone() {
                let active = self.machines[active as usize - 1].replica();
                let needs = active.is_some_and(|replica| replica.needs_copy(id));
                let first = active.map_or(0, |replica| replica.core.first());
                return Err(format!(
                    "n{id} has applied {applied} of {last}, its log ends at {}, forgetful {forgetful}; the active node's begins at {first}, needs a copy {needs}",
                    replica.core.last()
                ));
            }
        }
        Ok(())
    }

    pub(in crate::simulation) fn judge_the_end(&mut self) {
        let now_us = self.now_us;
        let (order, received) = (self.judge.durable.at_the_end(), self.judge.received.at_the_end());
        let mended = self.mend();
        let agree = replicas_agree::at_the_end(&self.machines);
        let judge: &mut Judge = &mut self.judge;
        judge.judge(now_us, "what is durable stays", order);
        judge.judge(now_us, "what is received stays", received);
        judge.judge(now_us, "rot is mended", mended);
        judge.judge(now_us, "replicas agree", agree);
        for id in 1..=3 {
            self.compare_with_history(id);
        }
    }
}
