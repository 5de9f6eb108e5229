//! The configuration's defaults, as they follow from each other in `config`.

pub const TICK_MS: u64 = 50;
pub const ELECTION_TICKS: u32 = 20;
pub const HEARTBEAT_TICKS: u32 = 2;
pub const DRIFT_PERMILLE: u64 = 10;
/// Tick × (election − 1), less the drift.
pub const LEASE_MS: u64 = 940;
pub const GRACE_MS: u64 = 3000;
pub const FORGETFUL_WAIT_MS: u64 = 10_000;
pub const VALID_MS: u64 = 1000;
pub const RENEW_EVERY_MS: u64 = 200;
pub const RENEW_MIN_LEASE_MS: u64 = 550;
/// Valid + 300 ms − renew_min_lease.
pub const VIP_WAIT_MS: u64 = 750;

pub const UNITS_STOP_MS: u64 = 5000;

pub const CLIENTS: usize = 4;
pub const DEADLINE_MS: u64 = 8000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_defaults_of_the_configuration() {
        let timers = holdfast_config::Timers::default();
        assert_eq!(timers.tick.as_millis() as u64, TICK_MS);
        assert_eq!(
            (timers.election_ticks, timers.heartbeat_ticks),
            (ELECTION_TICKS, HEARTBEAT_TICKS)
        );
        assert_eq!(timers.lease().as_millis() as u64, LEASE_MS);
        assert_eq!(timers.grace.as_millis() as u64, GRACE_MS);
        assert_eq!(timers.forgetful_wait.as_millis() as u64, FORGETFUL_WAIT_MS);
    }
}
