//! The mount point follows the role: the real file system where this node is active, a notice elsewhere.
//! A role always ends by aborting its FUSE connection and begins on a new one.

use super::shared::{MountKind, Shared, end};
use anyhow::bail;
use holdfast_fuse_mount::{MountError, Mounted, Options};
use holdfast_replicator::clock::{boottime_ms, unix_ms};
use holdfast_replicator::roles::Role;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a lost role waits for the agent to say that the PBX is dead.
const FENCE_MS: u64 = 5_000;
const RETRY: Duration = Duration::from_millis(500);

/// Before anything is started: the path must be absolute, and the device there.
pub(super) fn check_path(path: &Path) -> anyhow::Result<()> {
    if !Path::new("/dev/fuse").exists() {
        bail!("/dev/fuse isn't there: load the kernel's fuse module, or give this container the device");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("mounting {} takes root: start the daemon as root", path.display());
    }
    Ok(())
}

pub(super) async fn follow(shared: Arc<Shared>) {
    let mut view = shared.handle.view();
    let mut lost_since = None;
    loop {
        let role = view.take().role;
        match role {
            Role::Promoting { term } => {
                lost_since = None;
                if ensure(&shared, MountKind::Active).await {
                    shared.handle.mounted(term);
                }
            }
            Role::Active { term } | Role::HandOver { term } if !has(&shared, MountKind::Active) => {
                shared.handle.mount_ended(term);
            }
            Role::Active { .. } | Role::Suspended { .. } | Role::HandOver { .. } => {}
            Role::Lost { term } => {
                let since = *lost_since.get_or_insert_with(boottime_ms);
                if has(&shared, MountKind::Active) {
                    shared.end_mount().await;
                }
                if fenced(&shared, term) || boottime_ms() >= since + FENCE_MS {
                    shared.handle.fenced(term);
                }
            }
            Role::None => {
                lost_since = None;
                ensure(&shared, MountKind::Standby).await;
            }
        }
        // Also without a change: a mount that failed is tried again.
        if let Ok(false) = tokio::time::timeout(RETRY, view.changed()).await {
            return;
        }
    }
}

/// The PBX of the role's term is dead, or there is none.
fn fenced(shared: &Shared, term: u64) -> bool {
    !shared.needs_agent()
        || shared
            .inner()
            .agent
            .as_ref()
            .is_some_and(|report| report.released_term >= term)
}

fn has(shared: &Shared, kind: MountKind) -> bool {
    shared
        .inner()
        .mount
        .as_ref()
        .is_some_and(|(is, mount)| *is == kind && mount.is_alive())
}

/// Brings up the mount of this kind in place of another; false: it failed, and status says why.
async fn ensure(shared: &Arc<Shared>, kind: MountKind) -> bool {
    if has(shared, kind) {
        return true;
    }
    let begin = shared.clone();
    let begun = tokio::task::spawn_blocking(move || {
        let old = begin.inner().mount.take();
        if let Some((_, old)) = old {
            end(old);
        }
        mount(&begin, kind)
    });
    let outcome = match begun.await {
        Ok(outcome) => outcome,
        Err(panic) => {
            tracing::error!(%panic, "mounting panicked");
            return false;
        }
    };
    let mut inner = shared.inner();
    let fault = match outcome {
        Ok(mounted) => {
            inner.mount = Some((kind, Arc::new(mounted)));
            None
        }
        Err(error) => {
            let error = holdfast_storage::error::chain(&error);
            if inner.mount_fault.as_ref().is_none_or(|(known, _)| *known != error) {
                tracing::error!(error, "mounting failed; this node isn't eligible until it works");
            }
            let since = inner.mount_fault.as_ref().map_or_else(unix_ms, |(_, since)| *since);
            Some((error, since))
        }
    };
    let mounted = fault.is_none();
    inner.mount_fault = fault;
    drop(inner);
    shared.tell_agent_facts();
    mounted
}

fn mount(shared: &Arc<Shared>, kind: MountKind) -> Result<Mounted, MountError> {
    let path = &shared.config.mount.path;
    match kind {
        MountKind::Active => {
            let options = Options {
                deadline: shared.config.mount.request_deadline,
                classes: super::classes::rules(&shared.config),
                ..Options::default()
            };
            Mounted::active(path, Arc::new(shared.handle.clone()), options)
        }
        MountKind::Standby => {
            let asked = Arc::downgrade(shared);
            Mounted::standby(
                path,
                Arc::new(move || asked.upgrade().map_or_else(String::new, |shared| notice(&shared))),
            )
        }
    }
}

/// What the mount of a standby says.
fn notice(shared: &Shared) -> String {
    let here = &shared.node().name;
    match shared.active().filter(|active| active != here) {
        Some(active) => format!(
            "not active here ({here}); active is {active}: use the files there, or through the virtual address\n"
        ),
        None => format!("not active here ({here}); no active node is known: `holdfast status` says why\n"),
    }
}
