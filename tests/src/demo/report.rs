//! What the demo prints at its end.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Ack;
use super::verify::Finding;
use crate::lab::cluster_status;

/// One fault and what followed.
#[derive(Debug)]
pub struct Fault {
    pub what: String,
    pub at: Instant,
    pub from: String,
    pub to: String,
    /// `last_failover` of the node that took over.
    pub phases: Value,
}

const COLUMNS: [(&str, &str); 5] = [
    ("detected", "detected_ms"),
    ("lease", "lease_ms"),
    ("mount", "mounted_ms"),
    ("VIP", "vip_ms"),
    ("PostgreSQL", "units_ms"),
];

/// The phases of the last failover, as the node that took over measured them.
pub fn phases(view: &Value, node: &str) -> Value {
    let own = &cluster_status::entry(view, node)["last_failover"];
    if own.is_object() {
        own.clone()
    } else {
        view["last_failover"].clone()
    }
}

/// The client's own measure: from the fault to the first acknowledgement after the longest silence, and that silence.
pub fn silence(acks: &[Ack], fault: Instant, until: Instant) -> Option<(Duration, Duration)> {
    let from = acks.partition_point(|ack| ack.at < fault).saturating_sub(1);
    let window = acks.get(from..)?;
    let pairs = window.windows(2).take_while(|pair| pair[1].at < until);
    let longest = pairs.max_by_key(|pair| pair[1].at - pair[0].at)?;
    Some((
        longest[1].at.saturating_duration_since(fault),
        longest[1].at - longest[0].at,
    ))
}

/// The table of phases. Their times count from the former active node's last sign of life, the last two columns the client's.
pub fn table(faults: &[Fault], acks: &[Ack]) -> String {
    let mut out = format!("{:<34}{:<10}", "fault", "from, to");
    for (title, _) in COLUMNS {
        out += &format!("{title:>12}");
    }
    out += &format!("{:>14}{:>12}\n", "first commit", "silence");
    for (at, fault) in faults.iter().enumerate() {
        let until = faults.get(at + 1).map_or_else(crate::clock::now, |next| next.at);
        out += &format!("{:<34}{:<10}", fault.what, format!("{} → {}", fault.from, fault.to));
        for (_, key) in COLUMNS {
            let time = fault.phases[key].as_u64().filter(|ms| *ms > 0);
            out += &format!("{:>12}", time.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")));
        }
        match silence(acks, fault.at, until) {
            Some((first, gap)) => {
                out += &format!(
                    "{:>14}{:>12}\n",
                    format!("{} ms", first.as_millis()),
                    format!("{} ms", gap.as_millis())
                );
            }
            None => out += &format!("{:>14}{:>12}\n", "-", "-"),
        }
    }
    out += "Phases count from the former active node's last sign of life, or from the switch's start; \
            first commit from the fault, by the client.\n";
    out
}

/// The findings, a line each, and the verdict.
pub fn verdict(findings: &[Finding], faults: &str) -> (String, bool) {
    let mut out = String::new();
    for finding in findings {
        out += &format!(
            "{} {}\n",
            if finding.holds { "ok    " } else { "FAILED" },
            finding.sentence
        );
    }
    let good = findings.iter().all(|finding| finding.holds);
    out += &if good {
        format!(
            "\nVerdict: through {faults} nothing that was acknowledged was lost, and there was one writer and one address at any time.\n"
        )
    } else {
        "\nVerdict: a promise was broken; see what failed above.\n".to_owned()
    };
    (out, good)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ack, silence};
    use crate::clock::now;

    #[test]
    fn silence_is_the_longest_pause_after_the_fault() {
        let start = now();
        let at = |ms| start + Duration::from_millis(ms);
        let acks: Vec<_> = [0, 10, 20, 30, 1530, 1540]
            .into_iter()
            .map(|ms| Ack { number: ms, at: at(ms) })
            .collect();
        let found = silence(&acks, at(35), at(5000));
        assert_eq!(found, Some((Duration::from_millis(1495), Duration::from_millis(1500))));
    }
}
