//! Takes leave of processes that units left behind.
//!
//! A PBX process whose parent ended is handed to this agent instead of to process 1, and is reaped here: where process 1 is
//! slow or absent (in containers), a dead process would stay in the process table for seconds, and a `status` command that asks for
//! its process id would go on saying that it runs. The agent's own commands are reaped by those who wait for them, at once;
//! what is still dead on a second look is nobody's.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, getpid, set_child_subreaper, waitid, waitpid};
use tracing::warn;

const EVERY: Duration = Duration::from_millis(100);

/// Must be called inside a runtime: it hosts the task.
pub(super) fn reap_orphans() {
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        warn!(%error, "units' orphans go to process 1");
        return;
    }
    tokio::spawn(async {
        let mut dead_before = Vec::new();
        loop {
            tokio::time::sleep(EVERY).await;
            let dead: Vec<Pid> = children().into_iter().filter(|child| is_dead(*child)).collect();
            for child in dead.iter().filter(|child| dead_before.contains(*child)) {
                // Somebody may have been faster after all.
                let _ = waitpid(Some(*child), WaitOptions::NOHANG);
            }
            dead_before = dead;
        }
    });
}

fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let numbers = |list: String| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    lists
        .flat_map(numbers)
        .filter_map(|number| Pid::from_raw(number.parse().ok()?))
        .collect()
}

/// Asked of the kernel as the parent: reading /proc could wait for a process that is stuck on the mount.
fn is_dead(child: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(child), options).is_ok_and(|ended| ended.is_some())
}
