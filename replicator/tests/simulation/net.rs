//! The network between the nodes: delay, loss, doubling, cuts in one or both directions. A connection belongs to
//! one start of the receiver: what was on its way to an earlier start never reaches a later one.

use crate::random::Random;

#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss_permille: u64,
    pub(crate) double_permille: u64,
    /// Messages that take up to `slow_us` instead of a fraction of a millisecond.
    pub(crate) slow_permille: u64,
    pub(crate) slow_us: u64,
    /// Messages overtake each other.
    pub(crate) reorders: bool,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        loss_permille: 0,
        double_permille: 0,
        slow_permille: 0,
        slow_us: 1,
        reorders: false,
    };

    pub(crate) fn drawn(random: &mut Random) -> Self {
        Self {
            loss_permille: [0, 10, 100][random.between(0, 3) as usize],
            double_permille: [0, 20, 100][random.between(0, 3) as usize],
            slow_permille: [0, 10, 50][random.between(0, 3) as usize],
            slow_us: [20_000, 300_000, 1_500_000][random.between(0, 3) as usize],
            reorders: random.chance(500),
        }
    }
}

pub(crate) struct Net {
    pub(crate) weather: Weather,
    /// `cut[from][to]`.
    cut: [[bool; 4]; 4],
    /// When the last message of a link arrives.
    busy_us: [[u64; 4]; 4],
}

impl Net {
    pub(crate) fn new(weather: Weather) -> Self {
        Self {
            weather,
            cut: Default::default(),
            busy_us: Default::default(),
        }
    }

    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        self.cut[from as usize][to as usize] = true;
    }

    pub(crate) fn heal(&mut self) {
        self.cut = Default::default();
    }

    pub(crate) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut[from as usize][to as usize]
    }

    /// When copies of a message that is sent now arrive.
    pub(crate) fn arrivals(&mut self, from: u64, to: u64, now_us: u64, random: &mut Random) -> Vec<u64> {
        if self.is_cut(from, to) || random.chance(self.weather.loss_permille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.chance(self.weather.double_permille));
        (0..copies).map(|_| self.arrival(from, to, now_us, random)).collect()
    }

    fn arrival(&mut self, from: u64, to: u64, now_us: u64, random: &mut Random) -> u64 {
        let slow = random.chance(self.weather.slow_permille);
        let at = now_us
            + if slow {
                random.between(1000, 1000 + self.weather.slow_us)
            } else {
                random.between(50, 1000)
            };
        let busy = &mut self.busy_us[from as usize][to as usize];
        let at = if self.weather.reorders { at } else { at.max(*busy + 1) };
        *busy = at.max(*busy);
        at
    }
}
