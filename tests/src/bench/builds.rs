//! Two builds under the same loads, by turns: what something costs, throughput and processor time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::figures::{Better, Figure};
use super::run::{Load, prepared};
use crate::lab::{Lab, LabOptions};

const LOG_MIB: u64 = 256;
/// Loads that go on for a set time; their first figure says how often something was done.
const LOADS: [Load; 3] = [Load::Append, Load::Overwrite, Load::Record];

#[derive(Debug, Args)]
pub struct Builds {
    /// Folder of the other build's `holdfast` and `vip-agent`.
    #[arg(long, value_name = "DIR")]
    other: PathBuf,
    /// Each load so often on each; the table has medians of the ratios of the two, round by round.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// How long each load goes on.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
}

struct Measured {
    figure: Figure,
    /// Processor time of all three daemons for what was done, in no unit.
    work: f64,
}

impl Measured {
    /// How much more often something is done in the same time.
    fn faster_than(&self, other: &Self) -> f64 {
        match self.figure.better {
            Better::More => self.figure.value / other.figure.value,
            Better::Less => other.figure.value / self.figure.value,
        }
    }
}

impl Builds {
    pub fn run(&self, dir: &Path) -> Result<String> {
        let length = Duration::from_secs(self.seconds);
        let (own, other) = (dir.join("lab"), dir.join("other"));
        let one = up(own, None)?;
        let two = up(other, Some(self.other.clone()))?;
        let mut table =
            "| work | throughput of this build, the other's being 1 | processor time for the same |\n|---|---|---|\n"
                .to_owned();
        for load in LOADS {
            let (mut throughput, mut work) = (Vec::new(), Vec::new());
            let mut row = "";
            for round in 0..self.rounds {
                // Whoever comes first has other neighbours.
                let (this, that) = if round % 2 == 0 {
                    let this = measure(&one, load, length)?;
                    (this, measure(&two, load, length)?)
                } else {
                    let that = measure(&two, load, length)?;
                    (measure(&one, load, length)?, that)
                };
                let ratios = (this.faster_than(&that), this.work / that.work);
                println!(
                    "  {load:?} {}: {:.3}, processor time {:.3}",
                    round + 1,
                    ratios.0,
                    ratios.1
                );
                throughput.push(ratios.0);
                work.push(ratios.1);
                row = this.figure.row;
            }
            table += &format!("| {row} | {} | {} |\n", spread(&mut throughput), spread(&mut work));
        }
        one.down(false)?;
        two.down(false)?;
        Ok(table)
    }
}

fn up(dir: PathBuf, binaries: Option<PathBuf>) -> Result<Lab> {
    let lab = Lab::up(LabOptions {
        dir: Some(dir),
        log_mib: LOG_MIB,
        agent: false,
        binaries,
        ..LabOptions::default()
    })?;
    lab.wait_active(Duration::from_secs(30))?;
    Ok(lab)
}

fn measure(lab: &Lab, load: Load, length: Duration) -> Result<Measured> {
    let active = lab.wait_active(Duration::from_secs(30))?;
    let dir = prepared(load, &lab.node(&active).mnt(), true)?;
    let before = processor_time(lab)?;
    let figures = load.run(&dir, length)?;
    fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    // What was acknowledged is carried out.
    lab.wait_all_up_to_date(Duration::from_secs(60))?;
    let spent = processor_time(lab)? - before;
    let figure = figures.into_iter().next().context("a load without a figure")?;
    let times = match figure.better {
        Better::More => figure.value,
        Better::Less => 1.0 / figure.value,
    };
    Ok(Measured {
        work: spent / times,
        figure,
    })
}

/// Of the daemons of all nodes so far, in ticks.
fn processor_time(lab: &Lab) -> Result<f64> {
    let mut ticks = 0.0;
    for node in lab.nodes() {
        let daemon = node.daemon("holdfast").context("a daemon doesn't run")?;
        let path = format!("/proc/{}/stat", daemon.id.pid);
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        // Behind the program's name, which may hold anything: the 14th and 15th word of all are user and system time.
        let words = stat
            .rsplit_once(')')
            .context("no program's name")?
            .1
            .split_ascii_whitespace();
        for word in words.skip(11).take(2) {
            ticks += word.parse::<f64>().context("a number of ticks")?;
        }
    }
    Ok(ticks)
}

/// Median, least and greatest.
fn spread(ratios: &mut [f64]) -> String {
    ratios.sort_by(f64::total_cmp);
    let (low, high) = ((ratios.len() - 1) / 2, ratios.len() / 2);
    let median = f64::midpoint(ratios[low], ratios[high]);
    format!("{median:.3} ({:.3} to {:.3})", ratios[0], ratios[ratios.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_has_the_median() {
        assert_eq!(spread(&mut [1.0, 0.5, 0.9, 1.1]), "0.950 (0.500 to 1.100)");
    }

    #[test]
    fn less_time_is_faster() {
        let measured = |figure| Measured { figure, work: 1.0 };
        let (fast, slow) = (
            measured(Figure::less("a", "µs", 50.0)),
            measured(Figure::less("a", "µs", 100.0)),
        );
        assert_eq!(fast.faster_than(&slow), 2.0);
        let (fast, slow) = (
            measured(Figure::more("a", "MB/s", 8.0)),
            measured(Figure::more("a", "MB/s", 4.0)),
        );
        assert_eq!(fast.faster_than(&slow), 2.0);
    }
}
