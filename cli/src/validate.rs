//! `holdfast config validate`: the daemon's own check, without the daemon.

use std::path::Path;

use holdfast_config::tls_files::first_end;

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
    let until = first_end(&config.tls).map_or(String::new(), |end| format!(", certificates until {}", end.day));
    output::print(&format!(
        "{}: good: node {} ({}) of cluster {}, {vip}, {}{until}\n",
        file.display(),
        node.name,
        node.address,
        config.cluster.name,
        count(config.units.len() as u64, "PBX unit"),
    ))?;
    Ok(())
}
