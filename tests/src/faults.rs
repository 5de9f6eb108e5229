//! Random faults of a lab's nodes, links and single daemons, drawn from a seed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::Signal;

use crate::clock::{pause, wait_for};
use crate::lab::Lab;
use crate::process::run_ok;

const SWITCH_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    Kill(String),
    /// Killed, and its store is gone for good.
    NewDisk(String),
    KillDaemon(String, &'static str),
    PauseDaemon(String, &'static str),
    Pause(String),
    Cut(String),
    CutBetween(String, String),
    CutAll,
    Switch(String),
}

impl Act {
    /// Its kind, for a count of them.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "node killed",
            Self::NewDisk(_) => "disk replaced",
            Self::KillDaemon(..) => "daemon killed",
            Self::PauseDaemon(..) => "daemon paused",
            Self::Pause(_) => "node paused",
            Self::Cut(_) => "node cut off",
            Self::CutBetween(..) => "link between two cut",
            Self::CutAll => "all nodes cut off",
            Self::Switch(_) => "planned switch",
        }
    }

    /// Whether a node forgets by it what it hadn't synced.
    pub fn loses_memory(&self) -> bool {
        matches!(self, Self::Kill(_) | Self::NewDisk(_) | Self::KillDaemon(..))
    }

    /// In words, with the node that was active then.
    pub fn told(&self, active: &str) -> String {
        let role = |node: &str| if node == active { " (active)" } else { "" };
        match self {
            Self::Kill(node) => format!("{node}{} killed", role(node)),
            Self::NewDisk(node) => format!("{node}{} killed, its disk replaced", role(node)),
            Self::KillDaemon(node, daemon) => format!("{daemon} of {node}{} killed", role(node)),
            Self::PauseDaemon(node, daemon) => format!("{daemon} of {node}{} paused", role(node)),
            Self::Pause(node) => format!("{node}{} paused", role(node)),
            Self::Cut(node) => format!("{node}{} cut off", role(node)),
            Self::CutBetween(one, other) => {
                format!("link {one}{} to {other}{} cut", role(one), role(other))
            }
            Self::CutAll => "all nodes cut off".into(),
            Self::Switch(node) => format!("switch away from {node}"),
        }
    }
}

/// Draws faults and carries them out.
pub struct Faults<'a> {
    lab: &'a Lab,
    random: StdRng,
}

impl<'a> Faults<'a> {
    pub fn new(lab: &'a Lab, seed: u64) -> Self {
        Self {
            lab,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn draw(&mut self, active: &str) -> Act {
        let names: Vec<String> = self.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
        // The active node is struck as often as both others together.
        let node = if self.random.random_bool(0.5) {
            active.to_owned()
        } else {
            names[self.random.random_range(0..names.len())].clone()
        };
        let other = names.iter().find(|name| **name != node).cloned();
        let other = other.expect("there are three nodes");
        let daemon = ["holdfast", "vip-agent"][self.random.random_range(0..2)];
        match self.random.random_range(0..100) {
            0..16 => Act::Kill(node),
            16..22 => Act::NewDisk(node),
            22..30 => Act::KillDaemon(node, daemon),
            30..38 => Act::PauseDaemon(node, daemon),
            38..53 => Act::Pause(node),
            53..70 => Act::Cut(node),
            70..79 => Act::CutBetween(node, other),
            79..83 => Act::CutAll,
            _ => Act::Switch(active.to_owned()),
        }
    }

    fn strike(&self, act: &Act) -> Result<()> {
        match act {
            Act::Kill(node) => self.lab.node(node).kill(),
            Act::NewDisk(node) => {
                let node = self.lab.node(node);
                node.kill()?;
                let store = node.dir().join("store");
                std::fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))
            }
            Act::KillDaemon(node, daemon) => self.lab.node(node).kill_daemon(daemon),
            Act::PauseDaemon(node, daemon) => self.lab.node(node).signal_daemon(daemon, Signal::STOP),
            Act::Pause(node) => self.lab.node(node).pause(),
            Act::Cut(node) => self.lab.cut(node),
            Act::CutBetween(one, other) => self.lab.cut_between(one, other),
            Act::CutAll => self.lab.nodes().iter().try_for_each(|node| self.lab.cut(node.name())),
            // A standby that has just come back may not be able to take over yet, and it says so.
            Act::Switch(node) => wait_for("a switchover", SWITCH_LIMIT, || {
                let mut command = self.lab.node(node).command("holdfast")?;
                run_ok(command.arg("switchover"), SWITCH_LIMIT).map(Some)
            })
            .map(drop),
        }
    }

    /// Undoes them all; what was killed is started again.
    fn mend(&self, acts: &[Act]) -> Result<()> {
        self.lab.heal()?;
        for act in acts {
            match act {
                Act::Kill(node) | Act::NewDisk(node) | Act::KillDaemon(node, _) => {
                    self.lab.node(node).start().map(drop)?;
                }
                Act::PauseDaemon(node, daemon) => {
                    // It may have ended itself meanwhile, or its watchdog has.
                    drop(self.lab.node(node).signal_daemon(daemon, Signal::CONT));
                    self.lab.node(node).start()?;
                }
                Act::Pause(node) => self.lab.node(node).resume()?,
                Act::Cut(_) | Act::CutBetween(..) | Act::CutAll | Act::Switch(_) => {}
            }
        }
        Ok(())
    }

    /// One fault, sometimes a second while it lasts, held for a while and mended. Only one node at a time loses its
    /// memory: then even what nobody has synced must survive, if all three were up to date before.
    ///
    /// # Errors
    /// If the lab can't do it, or undo it: its words.
    pub fn round(&mut self, active: &str) -> Result<Vec<Act>> {
        let first = self.draw(active);
        let mut acts = vec![first.clone()];
        self.strike(&first)?;
        if !first.loses_memory() && self.random.random_bool(0.3) {
            let second = self.draw(active);
            if !second.loses_memory() && !matches!(second, Act::Switch(_)) && second != first {
                self.pause(0, 3000);
                self.strike(&second)?;
                acts.push(second);
            }
        }
        // Within the grace, about it, and far beyond.
        let longest = [300, 2000, 6000, 15_000][self.random.random_range(0..4)];
        self.pause(100, longest);
        self.mend(&acts)?;
        Ok(acts)
    }

    /// A while between two lengths, in ms.
    pub fn pause(&mut self, from_ms: u64, to_ms: u64) {
        pause(Duration::from_millis(self.random.random_range(from_ms..=to_ms)));
    }
}
