//! The daemon's memory stays near what it uses. glibc gives each of its many threads an arena of its own and keeps in each
//! what was once needed: after some catch-ups that was several times as much as is in use.

use std::time::Duration;

/// Enough that the loop, the apply thread and the others seldom wait for each other.
const ARENAS: i32 = 3;
const GIVE_BACK_EVERY: Duration = Duration::from_secs(30);

/// To be called while there is one thread.
pub(super) fn few_arenas() {
    // SAFETY: sets a number inside the allocator. Refused, all works as well, with more memory.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

pub(super) async fn give_back() {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        // SAFETY: has no arguments that could be wrong. Whoever allocates from the arena that is being walked waits for
        // it: 0.3 to 3 ms, and 23 once, on a machine whose processors were all busy.
        let _ = tokio::task::spawn_blocking(|| unsafe { libc::malloc_trim(0) }).await;
    }
}
