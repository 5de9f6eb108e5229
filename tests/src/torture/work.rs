//! One worker: a process of its own, since an operating system treats the files of one process as one's.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail};
use clap::ValueEnum;
use rustix::process::Signal;

use super::data::Data;
use super::names::Names;
use super::place::Place;
use super::shared::Shared;
use super::story::Story;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The bytes of one file.
    Data,
    /// A small tree of names.
    Names,
    /// Records of one file, names of one folder: each worker's own beside those of the others.
    Shared,
}

pub(super) trait Work {
    /// One operation.
    fn step(&mut self) -> Result<(), String>;
    /// At the end: all of it, once more.
    fn finish(&mut self) -> Result<(), String>;
    fn story(self) -> Story;
}

fn drive(mut work: impl Work, go_on: impl Fn() -> bool) -> (Result<(), String>, Story) {
    let mut outcome = Ok(());
    while outcome.is_ok() && go_on() {
        outcome = work.step();
    }
    (outcome.and_then(|()| work.finish()), work.story())
}

/// Goes on until its input ends; then says `OPERATIONS OPEN`, the latter being those whose outcome a fault left open.
///
/// # Errors
/// What is wrong with the file system, with the last operations.
pub fn run(kind: Kind, seed: u64, place: &Place) -> Result<()> {
    // One that waits for a mount wouldn't notice for long that whoever started it was killed.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&stop);
    thread::spawn(move || {
        // Whoever started it has gone, or wants it to end.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        ended.store(true, Ordering::Relaxed);
    });
    let go_on = || !stop.load(Ordering::Relaxed);
    let (outcome, story) = match kind {
        Kind::Data => drive(Data::new(place, seed)?, go_on),
        Kind::Names => drive(Names::new(place, seed)?, go_on),
        Kind::Shared => drive(Shared::new(place, seed)?, go_on),
    };
    match outcome {
        Ok(()) => println!("{} {}", story.operations, story.open),
        Err(what) => bail!("{:?} in {}, seed {seed}: {what}\n{story}", kind, place.folder),
    }
    Ok(())
}
