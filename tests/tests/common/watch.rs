//! Ends a test program that hangs: with what its labs' logs say, and with its mounts let go, so that what waits for
//! them can end too. Without it a thread in an uninterruptible wait keeps the whole run.

use std::io::{Write, stderr};
use std::path::PathBuf;
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::clock::{now, pause};
use holdfast_tests::lab::{Lab, take_down::take_down};

/// Several times what the longest test takes on a busy machine.
pub(crate) const TEST_LIMIT: Duration = Duration::from_secs(600);

static LABS: Mutex<Vec<(PathBuf, Instant)>> = Mutex::new(Vec::new());

/// From now on the lab may be up for `limit`.
pub(crate) fn watch(lab: &Lab, limit: Duration) {
    static WATCHER: Once = Once::new();
    WATCHER.call_once(|| drop(thread::spawn(watch_labs)));
    LABS.lock().unwrap().push((lab.dir().to_owned(), now() + limit));
}

fn watch_labs() {
    loop {
        pause(Duration::from_secs(5));
        let mut labs = LABS.lock().unwrap();
        labs.retain(|(dir, _)| Lab::open(dir).is_ok());
        if labs.iter().any(|(_, until)| *until < now()) {
            give_up(&labs);
        }
    }
}

fn give_up(labs: &[(PathBuf, Instant)]) -> ! {
    for lab in labs.iter().filter_map(|(dir, _)| Lab::open(dir).ok()) {
        let (dir, tails) = (lab.dir().display(), lab.log_tails(40));
        // Not eprintln: what a test prints is shown when the test ends.
        drop(writeln!(
            stderr(),
            "a test hangs; the logs of its lab at {dir}:\n{tails}"
        ));
        if let Err(error) = take_down(lab.dir(), false) {
            drop(writeln!(stderr(), "taking the lab at {dir} down: {error:#}"));
        }
    }
    std::process::exit(101);
}
