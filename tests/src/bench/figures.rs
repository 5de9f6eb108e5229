//! What a load measured.

use std::time::{Duration, Instant};

use crate::clock::now;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// One number, with the words and the unit of its row in the report.
#[derive(Debug, Clone)]
pub struct Figure {
    pub row: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub value: f64,
}

impl Figure {
    pub fn less(row: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            row,
            unit,
            better: Better::Less,
            value,
        }
    }

    pub fn more(row: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            row,
            unit,
            better: Better::More,
            value,
        }
    }
}

/// How long each of many equal operations took.
#[derive(Default)]
pub struct Laps {
    micros: Vec<f64>,
    last: Option<Instant>,
}

impl Laps {
    /// The next operation begins now.
    pub fn begin(&mut self) {
        self.last = Some(now());
    }

    /// It has ended, and the next one begins.
    pub fn lap(&mut self) {
        let at = now();
        if let Some(last) = self.last.replace(at) {
            self.micros.push((at - last).as_secs_f64() * 1e6);
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.micros.extend(&other.micros);
    }

    pub fn mean(&self) -> f64 {
        self.micros.iter().sum::<f64>() / self.micros.len().max(1) as f64
    }

    /// `part` of 0.99: one of a hundred took longer.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() as f64 * part) as usize;
        sorted.get(at).or(sorted.last()).copied().unwrap_or(0.0)
    }
}

pub fn rate(count: f64, took: Duration) -> f64 {
    count / took.as_secs_f64()
}

/// In MB/s, of a million bytes.
pub fn megabytes(bytes: u64, took: Duration) -> f64 {
    rate(bytes as f64 / 1e6, took)
}

#[cfg(test)]
mod tests {
    use super::Laps;

    #[test]
    fn quantiles_are_of_the_sorted_laps() {
        let laps = Laps {
            micros: (1..=100).rev().map(f64::from).collect(),
            last: None,
        };
        assert_eq!(
            (laps.mean(), laps.quantile(0.5), laps.quantile(0.99)),
            (50.5, 51.0, 100.0)
        );
        assert_eq!(Laps::default().quantile(0.99), 0.0);
    }
}
