//! What fate does in a run, drawn before it begins: each fault has a number, a moment, and a seed of its own for what else it
//! needs, so that a run can leave any of them out.

use super::clock::SECOND;
use super::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed; what it had written stays.
    Kill,
    PowerLoss,
    PowerLossOfAll,
    /// The node that serves, of all.
    KillActive,
    PowerLossOfActive,
    Stop,
    Isolate,
    IsolateActive,
    CutOneWay,
    CutPair,
    Flap,
    Weather,
    Heal,
    FreezeDaemon,
    FreezeAgent,
    FreezeNode,
    KillAgent,
    SlowDisk,
    LogRefuses,
    DataRefuses,
    Unreadable,
    Full,
    Rot,
    NewDisk,
    Away,
    HandOver,
    ClockJump,
    /// The active node is cut off, and before its lease is over its agent hangs or is killed: its kernel still has the address.
    CutOffThenHung,
    /// One standby no longer hears the active node, only the other one, which is started anew again and again; nobody
    /// changes anything meanwhile.
    VoterReturns,
    /// A write of data ends up in another file, or at another place of its own.
    Misdirect,
    /// A write of the log is called done and never is.
    LogWriteLost,
    LogRots,
    /// The PBX ends where it runs, and doesn't start there for a while, or on no machine.
    PbxFails,
}

impl Kind {
    pub const ALL: [Self; 30] = [
        Self::Kill,
        Self::PowerLoss,
        Self::PowerLossOfAll,
        Self::KillActive,
        Self::PowerLossOfActive,
        Self::Stop,
        Self::Isolate,
        Self::IsolateActive,
        Self::CutOneWay,
        Self::CutPair,
        Self::Flap,
        Self::Weather,
        Self::Heal,
        Self::FreezeDaemon,
        Self::FreezeAgent,
        Self::FreezeNode,
        Self::KillAgent,
        Self::SlowDisk,
        Self::LogRefuses,
        Self::DataRefuses,
        Self::Unreadable,
        Self::Full,
        Self::Rot,
        Self::NewDisk,
        Self::Away,
        Self::HandOver,
        Self::ClockJump,
        Self::CutOffThenHung,
        Self::VoterReturns,
        Self::Misdirect,
    ];

    fn weight(self) -> u64 {
        match self {
            Self::Kill | Self::PowerLoss | Self::KillActive | Self::PowerLossOfActive => 6,
            Self::PowerLossOfAll | Self::Isolate | Self::IsolateActive | Self::HandOver | Self::NewDisk | Self::Rot => {
                4
            }
            Self::Heal | Self::CutOneWay | Self::CutPair | Self::Weather | Self::FreezeDaemon | Self::FreezeAgent => 3,
            _ => 2,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub number: u32,
    pub at_us: u64,
    pub kind: Kind,
    pub seed: u64,
}

pub struct Plan {
    pub faults: Vec<Fault>,
    pub ends_us: u64,
}

impl Plan {
    /// Some runs are restless, some have long pauses in which copies end and logs wrap around.
    pub fn drawn(seed: u64) -> Self {
        let mut random = Random::of(seed, 1);
        let pause_us = random.one_of(&[300_000, SECOND, 3 * SECOND]);
        // Each run has its own taste: half of all kinds don't come up in it.
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|_| random.chance(550)).collect();
        let kinds = if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds };
        let total: u64 = kinds.iter().map(|kind| kind.weight()).sum();
        let ends_us = random.between(20, 50) * SECOND;
        let mut at_us = random.between(SECOND, 4 * SECOND);
        let mut faults = Vec::new();
        while at_us < ends_us {
            let mut drawn = random.between(0, total);
            let kind = kinds.iter().find(|kind| match drawn.checked_sub(kind.weight()) {
                Some(rest) => {
                    drawn = rest;
                    false
                }
                None => true,
            });
            faults.push(Fault {
                number: faults.len() as u32,
                at_us,
                kind: kind.copied().unwrap_or(Kind::Heal),
                seed: random.next(),
            });
            at_us += random.between(pause_us / 20, 2 * pause_us);
        }
        harm_logs(seed, ends_us, &mut faults);
        break_pbx(seed, ends_us, &mut faults);
        Self { faults, ends_us }
    }
}

/// In some runs, beside all else: drawn apart, so that the others are what they were without.
fn harm_logs(seed: u64, ends_us: u64, faults: &mut Vec<Fault>) {
    let mut random = Random::of(seed, 2);
    if random.chance(400) {
        let kind = |random: &mut Random| random.one_of(&[Kind::LogWriteLost, Kind::LogRots]);
        add(&mut random, 6, ends_us, kind, faults);
    }
}

/// The same for the PBX.
fn break_pbx(seed: u64, ends_us: u64, faults: &mut Vec<Fault>) {
    let mut random = Random::of(seed, 3);
    if random.chance(300) {
        add(&mut random, 5, ends_us, |_| Kind::PbxFails, faults);
    }
}

fn add(random: &mut Random, below: u64, ends_us: u64, kind: impl Fn(&mut Random) -> Kind, faults: &mut Vec<Fault>) {
    for _ in 0..random.between(1, below) {
        faults.push(Fault {
            number: faults.len() as u32,
            at_us: random.between(SECOND, ends_us),
            kind: kind(random),
            seed: random.next(),
        });
    }
    faults.sort_by_key(|fault| fault.at_us);
}
