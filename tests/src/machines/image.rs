//! A small system of this machine's own distribution, made once and shared by all machines of all tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::run_ok;

const SHARED: &str = "/var/cache/holdfast";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,procps,fuse3,libstdc++6";
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Its folder, to be laid under others and never written to.
pub(super) fn prepare() -> Result<PathBuf> {
    let suite = suite()?;
    let image = Path::new(SHARED).join(format!("machine-{suite}"));
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(SHARED)?;
    // Another test may be making it as well: the first that is done names it.
    let fresh = tempfile::Builder::new().prefix("machine-new-").tempdir_in(SHARED)?;
    let root = fresh.path().join("root");
    eprintln!(
        "making a system to boot (debootstrap {suite}); it is kept in {}",
        image.display()
    );
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite]);
    run_ok(command.arg(&root), LIMIT).context("is the package debootstrap installed (`make setup`)?")?;
    match fs::rename(&root, &image) {
        Err(error) if !image.exists() => Err(error).context("naming the new system"),
        _ => Ok(image),
    }
}

fn suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name
        .context("/etc/os-release names no VERSION_CODENAME")?
        .trim_matches('"')
        .to_owned())
}
