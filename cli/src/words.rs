//! Quantities and roles as people read them.

use holdfast_proto::control::Role;

/// Also the value of `role` in the JSON output: a stable interface.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Unspecified | Role::Starting => "starting",
        Role::Standby => "standby",
        Role::CatchingUp => "catching-up",
        Role::Promoting => "promoting",
        Role::Active => "active",
        Role::Suspended => "suspended",
        Role::Lost => "lost",
        Role::Handover => "handover",
        Role::Candidate => "candidate",
        Role::Halted => "halted",
        Role::Down => "down",
    }
}

/// `0 B`, `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let Some(power) = bytes
        .checked_ilog2()
        .map(|log| (log / 10) as usize)
        .filter(|&power| power > 0)
    else {
        return format!("{bytes} B");
    };
    let power = power.min(units.len());
    let tenths = u128::from(bytes) * 10 / (1u128 << (10 * power));
    format!("{}.{} {}", tenths / 10, tenths % 10, units[power - 1])
}

/// `0.61 s`.
pub fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

/// `0 B`, `1.5 MiB, 3.20 s`.
pub fn behind(lag_bytes: u64, lag_ms: u64) -> String {
    if lag_ms == 0 {
        bytes(lag_bytes)
    } else {
        format!("{}, {}", bytes(lag_bytes), seconds(lag_ms))
    }
}

/// "1 file", "2 files".
pub fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(behind(0, 0), "0 B");
        assert_eq!(behind(2 << 20, 3204), "2.0 MiB, 3.20 s");
        assert_eq!(count(1, "file"), "1 file");
    }
}
