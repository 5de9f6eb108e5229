//! At most one node accepts changes and answers: it has a role that does, and its lease runs by its own clock.

use crate::simulation::machine::Machine;

pub fn check(machines: &[Machine], now_us: u64) -> Result<(), String> {
    let writes = |machine: &&Machine| {
        machine
            .replica()
            .is_some_and(|replica| replica.may_answer(machine.clock.at_ms(now_us)))
    };
    let writers: Vec<String> = machines
        .iter()
        .filter(writes)
        .map(|machine| {
            let role = machine.replica().map(|replica| replica.role);
            format!("n{} ({role:?})", machine.id)
        })
        .collect();
    if writers.len() > 1 {
        return Err(format!("{} both accept changes", writers.join(" and ")));
    }
    Ok(())
}
