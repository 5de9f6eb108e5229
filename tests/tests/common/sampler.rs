//! The demo's sampler as a process of its own: it looks at all nodes every 10 ms, and decides at the end whether two
//! ever held the address, or took writes, at the same time.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use holdfast_tests::demo::sampler::Verdict;
use holdfast_tests::lab::Lab;

use super::{seconds, start};

pub(crate) struct Sampler(Child);

impl Sampler {
    pub(crate) fn start(lab: &Lab) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-demo"));
        command
            .arg("watch")
            .arg(lab.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Ends the sampling; panics if a promise was seen broken.
    pub(crate) fn finish(mut self) {
        drop(self.0.stdin.take());
        let output = self.0.stdout.take().expect("a pipe");
        let line = start(move || BufReader::new(output).lines().next());
        let line = line
            .within(seconds(15))
            .flatten()
            .expect("the sampler says something")
            .unwrap();
        let verdict: Verdict = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(verdict.violations, Vec::<String>::new());
        assert!(verdict.looks > 100, "the sampler only looked {} times", verdict.looks);
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Not waited for: one of its writes may hang until the mounts are gone.
        drop(self.0.kill());
    }
}
