//! Takes leave of processes that units left behind.
//!
//! A PBX process whose parent ended is handed to this agent instead of to process 1, and is reaped here: where process 1 is
//! slow or absent (in containers), a dead process would stay in the process table for seconds, and a `status` command that asks for
//! its process id would go on saying that it runs. The agent's own commands are reaped by those who wait for them, at once;
//! what is still dead on a second look is nobody's.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use tracing::warn;

const EVERY: Duration = Duration::from_millis(100);

/// Must be called inside a runtime: it hosts the task.
pub(super) fn reap_orphans() {
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        warn!(%error, "units' orphans go to process 1");
        return;
    }
    tokio::spawn(async {
        let mut dead_before = BTreeSet::new();
        loop {
            tokio::time::sleep(EVERY).await;
            let dead: BTreeSet<i32> = children().into_iter().filter(|pid| is_dead(*pid)).collect();
            for pid in dead.intersection(&dead_before).filter_map(|pid| Pid::from_raw(*pid)) {
                // Somebody may have been faster after all.
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
            dead_before = dead;
        }
    });
}

fn children() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn is_dead(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}
