//! The table of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::figures::{Better, Figure};

/// What was measured, by row and place, in the order in which the rows came first.
#[derive(Default)]
pub struct Report {
    rows: Vec<Figure>,
    values: BTreeMap<(&'static str, &'static str), Vec<f64>>,
}

pub const LOCAL: &str = "local disk";
pub const GLUSTER: &str = "GlusterFS";
pub const FLOOR: &str = "floor";
pub const HOLDFAST: &str = "Holdfast";

impl Report {
    pub fn add(&mut self, place: &'static str, figure: Figure) {
        self.values.entry((figure.row, place)).or_default().push(figure.value);
        if self.rows.iter().all(|known| known.row != figure.row) {
            self.rows.push(figure);
        }
    }

    /// Of all rounds.
    fn median(&self, row: &'static str, place: &'static str) -> Option<f64> {
        let mut sorted = self.values.get(&(row, place))?.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
        Some(f64::midpoint(sorted[low], sorted[high]))
    }

    /// How many times better Holdfast did.
    fn times_better(&self, figure: &Figure, than: &'static str) -> Option<f64> {
        let (own, theirs) = (self.median(figure.row, HOLDFAST)?, self.median(figure.row, than)?);
        Some(match figure.better {
            Better::More => own / theirs,
            Better::Less => theirs / own,
        })
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let places = [LOCAL, GLUSTER, FLOOR, HOLDFAST];
        let _ = writeln!(out, "| work | {} | against GlusterFS |", places.join(" | "));
        let _ = writeln!(out, "|---|---|---|---|---|---|");
        for figure in &self.rows {
            let cell = |place| self.median(figure.row, place).map_or_else(|| "–".to_owned(), number);
            let times = self.times_better(figure, GLUSTER);
            let times = times.map_or_else(|| "–".to_owned(), |times| format!("{times:.1} ×"));
            let cells = places.map(cell).join(" | ");
            let _ = writeln!(out, "| {}, {} | {cells} | {times} |", figure.row, figure.unit);
        }
        out
    }

    pub fn json(&self) -> serde_json::Value {
        let line = |((row, place), values): (&(&str, &str), &Vec<f64>)| {
            let unit = self
                .rows
                .iter()
                .find(|figure| figure.row == *row)
                .map(|figure| figure.unit);
            serde_json::json!({ "work": row, "unit": unit, "place": place, "rounds": values })
        };
        self.values.iter().map(line).collect()
    }
}

/// Three digits are as many as anybody can repeat.
fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{},{:03}", v as u64 / 1000, v as u64 % 1000),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_says_how_many_times_better() {
        let mut report = Report::default();
        for value in [300.0, 100.0, 200.0] {
            report.add(HOLDFAST, Figure::less("append", "µs", value));
        }
        report.add(GLUSTER, Figure::less("append", "µs", 1500.0));
        report.add(LOCAL, Figure::more("stream", "MB/s", 12.34));
        let table = report.table();
        assert!(
            table.contains("| append, µs | – | 1,500 | – | 200 | 7.5 × |"),
            "{table}"
        );
        assert!(table.contains("| stream, MB/s | 12.3 | – | – | – | – |"), "{table}");
    }
}
