//! Never two machines with the virtual address.

use crate::simulation::machine::Machine;

pub fn check(machines: &[Machine], now_us: u64) -> Result<(), String> {
    let held: Vec<String> = machines
        .iter()
        .filter(|machine| machine.kernel.holds(now_us))
        .map(|machine| format!("n{}", machine.id))
        .collect();
    if held.len() > 1 {
        return Err(format!("{} both have the address", held.join(" and ")));
    }
    Ok(())
}
