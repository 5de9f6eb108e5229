//! A stopped node's store as a plain tree.

use std::path::Path;

pub fn run(config: &holdfast_config::Config, out: &Path) -> anyhow::Result<()> {
    anyhow::bail!(
        "exporting {} to {} isn't part of this build",
        config.store.path.display(),
        out.display()
    )
}
