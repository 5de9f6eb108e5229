//! What keeps the renewing thread on time on a machine that is busy or short of memory. All of it is asked for; an agent that
//! doesn't get it still works, since the kernel drops an address that isn't renewed.

use rustix::mm::{MlockAllFlags, mlockall};
use tracing::warn;

/// Pages that were touched once stay in memory.
pub fn lock_memory() {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(flags) {
        warn!(%error, "memory isn't locked: under memory pressure a renewal may be late and the address dropped for a while; \
               allow it with LimitMEMLOCK=infinity");
    }
}

/// Real-time priority for the calling thread; what it starts begins at normal priority.
pub(crate) fn ask_for_priority() {
    // SAFETY: sched_param is plain data and outlives the call; 0 names the calling thread.
    let done = unsafe {
        let parameter = libc::sched_param { sched_priority: 10 };
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameter)
    };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        warn!(%error, "no real-time priority: on a busy machine a renewal may be late and the address dropped for a while; \
               allow it with LimitRTPRIO=10 or CAP_SYS_NICE");
    }
}
