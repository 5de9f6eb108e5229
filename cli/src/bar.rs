//! How far something is, as a bar, and how long it will take.

use std::time::Duration;

use crate::clock::Stopwatch;

const WIDTH: usize = 24;
/// Before so much is done nobody can say how long the rest takes.
const KNOWN_FROM: f64 = 0.01;

/// `part`: the share that is done, 0 to 1.
pub fn bar(part: f64) -> String {
    let part = part.clamp(0.0, 1.0);
    let full = (part * WIDTH as f64) as usize;
    format!(
        "[{}{}] {:3.0} %",
        "#".repeat(full),
        ".".repeat(WIDTH - full),
        part * 100.0
    )
}

/// `, about 5 s left`, or nothing.
pub fn left(part: f64, elapsed: Duration) -> String {
    if part < KNOWN_FROM {
        return String::new();
    }
    let seconds = elapsed.as_secs_f64() * (1.0 - part.min(1.0)) / part;
    format!(", about {} left", duration(seconds as u64))
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// One that is drawn again and again, from its first look on.
#[derive(Default)]
pub struct Bar {
    /// Where it was then, and since when.
    began: Option<(f64, Stopwatch)>,
}

impl Bar {
    /// The bar for what is done of all; empty if nobody knows how much that is.
    pub fn line(&mut self, done: u64, all: u64) -> String {
        if all == 0 {
            return String::new();
        }
        let part = (done as f64 / all as f64).min(1.0);
        let (from, began) = *self.began.get_or_insert_with(|| (part, Stopwatch::start()));
        let since = (part - from) / (1.0 - from).max(f64::EPSILON);
        format!("{}{}", bar(part), left(since, began.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_the_share_and_what_is_left() {
        assert_eq!(bar(0.5), "[############............]  50 %");
        assert_eq!(bar(7.0), format!("[{}] 100 %", "#".repeat(WIDTH)));
        assert_eq!(left(0.25, Duration::from_secs(30)), ", about 1 min 30 s left");
        assert_eq!(left(0.0, Duration::from_secs(30)), "");
        assert_eq!(left(0.5, Duration::from_secs(8000)), ", about 2 h 13 min left");
    }

    #[test]
    fn one_without_an_end_is_none() {
        let mut bar = Bar::default();
        assert_eq!(bar.line(5, 0), "");
        assert!(bar.line(5, 10).starts_with("[############"), "{}", bar.line(5, 10));
    }
}
