//! One run from its seed to its end.

use super::clock::SECOND;
use super::figures::Figures;
use super::promises::Broken;
use super::world::{Options, What, Whom, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// After the last fault some node serves within this time, ...
const SERVES_WITHIN_US: u64 = 40 * SECOND;
/// ... and all three are alike within this.
const WELL_WITHIN_US: u64 = 120 * SECOND;

#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub broken: Option<Broken>,
    /// The last faults and what came of them.
    pub story: Vec<String>,
    /// Of all that happened.
    pub trace: String,
    pub figures: Figures,
    /// Numbers of the faults that were planned.
    pub planned: Vec<u32>,
}

pub fn run(options: &Options) -> Outcome {
    let mut world = World::new(options);
    let ended = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    if let Err(why) = ended {
        let text = why
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| why.downcast_ref::<&str>().map(ToString::to_string));
        let now_us = world.now_us;
        world.judge.blame(now_us, "nothing panics", text.unwrap_or_default());
    }
    world.figures.simulated_us = world.now_us;
    world.figures.lost = world.judge.received.lost;
    world.figures.checks = world.judge.agree.compared;
    Outcome {
        seed: options.seed,
        broken: world.judge.broken.clone(),
        story: world.story.iter().cloned().collect(),
        trace: world.trace.hash(),
        figures: world.figures.clone(),
        planned: world.plan.faults.iter().map(|fault| fault.number).collect(),
    }
}

fn live(world: &mut World) {
    let ends_us = world.plan.ends_us;
    world.run_until(ends_us, |_| false);
    if world.judge.broken.is_some() {
        return;
    }
    world.calm_down();
    let acknowledged = |world: &World| world.figures.received + world.figures.durable;
    let before = acknowledged(world);
    let began = world.now_us;
    let serves = world.run_until(began + SERVES_WITHIN_US, |world| acknowledged(world) > before + 20);
    if !serves {
        let why = world.is_well().err().unwrap_or_default();
        return world.judge.blame(
            world.now_us,
            "it recovers",
            format!("nothing is acknowledged any more: {why}"),
        );
    }
    world.clients.quiet = true;
    let well = world.run_until(began + WELL_WITHIN_US, |world| {
        world.clients.running.is_empty() && world.is_well().is_ok()
    });
    if !well {
        let why = world.is_well().err().unwrap_or_default();
        return world.judge.blame(world.now_us, "it recovers", why);
    }
    world.figures.well_after_us = world.now_us - began;
    world.judge_the_end();
}

impl World {
    /// Faults stop, and what they left behind is put right.
    fn calm_down(&mut self) {
        self.calm = true;
        self.tell("faults have stopped");
        self.net.heal();
        for id in 1..=3 {
            let now_us = self.now_us;
            let machine = &mut self.machines[id as usize - 1];
            machine.daemon_frozen_us = machine.daemon_frozen_us.min(now_us);
            machine.agent_frozen_us = machine.agent_frozen_us.min(now_us);
            (machine.disk_held_us, machine.away_until_us, machine.pbx_broken_until_us) = (0, 0, 0);
            machine.disk.lives();
            machine.disk.mend();
            let ill = machine
                .replica()
                .is_some_and(|replica| replica.out || replica.halted.is_some());
            let ill = ill || machine.has_faulty_reads || machine.disk.is_harmed();
            machine.has_faulty_reads = false;
            if ill {
                self.end(id, false);
            }
            self.schedule(1000, Whom::World, What::Start(id));
            self.schedule(1000, Whom::World, What::StartAgent(id));
        }
    }
}
