//! The last operations of a worker, for whoever has to understand a failure.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Display};

const KEPT: usize = 60;

#[derive(Default)]
pub(super) struct Story {
    told: VecDeque<String>,
    pub(super) operations: u64,
    /// Operations whose outcome a fault left open.
    pub(super) open: u64,
}

impl Story {
    pub(super) fn operation(&mut self, operation: &impl Debug) {
        self.operations += 1;
        self.tell(&format!("{operation:?}"));
    }

    pub(super) fn tell(&mut self, what: &str) {
        if self.told.len() == KEPT {
            self.told.pop_front();
        }
        self.told.push_back(format!("{:>7}  {what}", self.operations));
    }
}

impl Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
