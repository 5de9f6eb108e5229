//! One power cut: which nodes, what becomes of their disks' caches, how long it lasts, drawn from a seed; and carrying
//! it out.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::clock::{now, pause};
use crate::lab::Lab;
use crate::lab::disk::{Cache, Disk};
use crate::signals::Interrupt;

/// Longer than the durable logs wait for a third node (`timers`, 10 s unless set).
const LATE: Duration = Duration::from_secs(12);

#[derive(Debug, Clone)]
pub struct Cut {
    /// In the order in which they fall: some milliseconds lie between them.
    pub nodes: Vec<String>,
    pub caches: Vec<Cache>,
    /// The node that was active then.
    pub active: String,
    pub off: Duration,
    /// The last of several nodes comes back so much later than the others.
    pub late: Duration,
}

impl Cut {
    /// Of one node it is the active one as often as both others together.
    pub fn draw(random: &mut StdRng, names: &[String], active: &str) -> Self {
        let count = [1, 1, 2, 2, 3][random.random_range(0..5)];
        Self::of(count, random, names, active)
    }

    pub fn of(count: usize, random: &mut StdRng, names: &[String], active: &str) -> Self {
        let mut left = names.to_vec();
        let mut nodes = Vec::new();
        if random.random_bool(0.25) {
            nodes.push(active.to_owned());
            left.retain(|name| name != active);
        }
        while nodes.len() < count {
            nodes.push(left.remove(random.random_range(0..left.len())));
        }
        let caches = nodes.iter().map(|_| Cache::ALL[random.random_range(0..3)]).collect();
        // Shorter than the active role's grace, about it, and longer.
        let longest = [300, 2000, 5000][random.random_range(0..3)];
        let off = Duration::from_millis(random.random_range(50..=longest));
        let late = match random.random_range(0..20) {
            _ if count == 1 => Duration::ZERO,
            0 => LATE,
            1..8 => Duration::from_millis(random.random_range(0..3000)),
            _ => Duration::ZERO,
        };
        Self {
            nodes,
            caches,
            active: active.to_owned(),
            off,
            late,
        }
    }

    /// Whether it leaves a majority that goes on.
    pub fn leaves_a_majority(&self) -> bool {
        self.nodes.len() < 2
    }

    pub fn told(&self) -> String {
        let node = |(name, cache): (&String, &Cache)| {
            let role = if *name == self.active { ", active" } else { "" };
            format!("{name}{role} (cache {})", cache.name())
        };
        let nodes: Vec<String> = self.nodes.iter().zip(&self.caches).map(node).collect();
        let mut told = format!("{} off for {:.1} s", nodes.join(" + "), self.off.as_secs_f64());
        if !self.late.is_zero() {
            let last = self.nodes.last().map_or("", String::as_str);
            told += &format!(", {last} {:.1} s longer", self.late.as_secs_f64());
        }
        told
    }

    /// Power goes. First the cables: nothing that a node says while it dies is heard. Then its disk, in the midst of
    /// whatever it is doing. Its processes last: until then nothing that they can still do reaches anyone.
    ///
    /// Returns the moment before the first, and the one after which no node is there any more.
    pub fn strike(&self, lab: &Lab, random: &mut StdRng) -> Result<(Instant, Instant)> {
        let began = now();
        lab.cut_together(&self.nodes)?;
        for (name, cache) in self.nodes.iter().zip(&self.caches) {
            Disk::of(lab.find(name)?.files())
                .cut(*cache, random)
                .with_context(|| format!("cutting the power of {name}"))?;
        }
        for name in &self.nodes {
            lab.find(name)?.kill()?;
        }
        Ok((began, now()))
    }

    /// Power is back, for all but the last if that one is late. Returns the moment.
    pub fn end(&self, lab: &Lab, interrupt: &Interrupt) -> Result<Instant> {
        let (last, others) = self.nodes.split_last().context("a cut of no node")?;
        let began = now();
        let together = if self.late.is_zero() { &self.nodes[..] } else { others };
        boot(lab, together, interrupt)?;
        if !self.late.is_zero() {
            pause(self.late);
            boot(lab, std::slice::from_ref(last), interrupt)?;
        }
        Ok(began)
    }
}

/// Networks and disks before any daemon: machines that boot at the same time.
fn boot(lab: &Lab, names: &[String], interrupt: &Interrupt) -> Result<()> {
    let _step = interrupt.step()?;
    for name in names {
        lab.reboot_network(name)?;
        Disk::of(lab.find(name)?.files())
            .restore()
            .with_context(|| format!("giving {name} its disk back"))?;
    }
    names.iter().try_for_each(|name| lab.find(name)?.start().map(drop))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::Cut;

    #[test]
    fn a_seed_draws_the_same_cuts_and_every_kind_of_them() {
        let names: Vec<String> = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
        let drawn = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let cuts: Vec<Cut> = (0..100).map(|_| Cut::draw(&mut random, &names, "n2")).collect();
            cuts
        };
        let told = |cuts: &[Cut]| cuts.iter().map(Cut::told).collect::<Vec<_>>();
        assert_eq!(told(&drawn(1)), told(&drawn(1)));
        for count in 1..=3 {
            assert!(drawn(1).iter().any(|cut| cut.nodes.len() == count));
        }
        let active_alone = |cut: &Cut| cut.nodes == ["n2"];
        assert!(drawn(1).iter().any(active_alone));
    }
}
