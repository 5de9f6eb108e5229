//! `holdfast config validate`: the daemon's own check, without the daemon.

use std::path::Path;

use crate::error::Result;
use crate::output;
use crate::words::count;

pub fn run(file: &Path) -> Result<()> {
    let config = holdfast_config::load(file)?;
    let vip = config
        .vip
        .as_ref()
        .map_or("no VIP".to_owned(), |vip| format!("VIP {}/{}", vip.address, vip.prefix));
    let node = &config.cluster.nodes[config.this];
    output::print(&format!(
        "{}: good: node {} ({}) of cluster {}, {vip}, {}\n",
        file.display(),
        node.name,
        node.address,
        config.cluster.name,
        count(config.units.len() as u64, "PBX unit"),
    ))?;
    Ok(())
}
