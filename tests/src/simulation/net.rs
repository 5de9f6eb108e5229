//! The network: delay, loss, doubling, overtaking, cuts in one or both directions; and the connections over it, which belong
//! to one start of each of their two ends.

use super::random::Random;

#[derive(Clone, Copy)]
pub struct Weather {
    pub loss_permille: u64,
    pub double_permille: u64,
    /// Messages that take up to `slow_us` instead of a fraction of a millisecond.
    pub slow_permille: u64,
    pub slow_us: u64,
    /// Messages overtake each other.
    pub reorders: bool,
}

impl Weather {
    pub const FAIR: Self = Self {
        loss_permille: 0,
        double_permille: 0,
        slow_permille: 0,
        slow_us: 1,
        reorders: false,
    };

    pub fn drawn(random: &mut Random) -> Self {
        Self {
            loss_permille: random.one_of(&[0, 10, 100]),
            double_permille: random.one_of(&[0, 20, 100]),
            slow_permille: random.one_of(&[0, 10, 50]),
            slow_us: random.one_of(&[20_000, 300_000, 1_500_000]),
            reorders: random.chance(500),
        }
    }
}

pub struct Net {
    pub weather: Weather,
    random: Random,
    /// `cut[from][to]`: until then.
    cut: [[u64; 4]; 4],
    /// When the last message of a link arrives.
    busy_us: [[u64; 4]; 4],
    /// The sender's connection is up: to this start of the receiver, of this start of its own.
    links: [[Option<(u64, u64)>; 4]; 4],
}

impl Net {
    pub fn new(random: Random) -> Self {
        Self {
            weather: Weather::FAIR,
            random,
            cut: Default::default(),
            busy_us: Default::default(),
            links: Default::default(),
        }
    }

    pub fn cut(&mut self, from: u64, to: u64, until_us: u64) {
        let cut = &mut self.cut[from as usize][to as usize];
        *cut = (*cut).max(until_us);
    }

    pub fn heal(&mut self) {
        self.cut = Default::default();
        self.weather = Weather::FAIR;
    }

    pub fn is_cut(&self, from: u64, to: u64, now_us: u64) -> bool {
        now_us < self.cut[from as usize][to as usize]
    }

    /// Question and answer get through.
    pub fn reaches(&self, one: u64, other: u64, now_us: u64) -> bool {
        !self.is_cut(one, other, now_us) && !self.is_cut(other, one, now_us)
    }

    pub fn link(&mut self, from: u64, to: u64) -> &mut Option<(u64, u64)> {
        &mut self.links[from as usize][to as usize]
    }

    /// When copies of a message that is sent now arrive.
    pub fn arrivals(&mut self, from: u64, to: u64, now_us: u64) -> Vec<u64> {
        if self.is_cut(from, to, now_us) || self.random.chance(self.weather.loss_permille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.random.chance(self.weather.double_permille));
        (0..copies).map(|_| self.arrival(from, to, now_us)).collect()
    }

    fn arrival(&mut self, from: u64, to: u64, now_us: u64) -> u64 {
        let slow = self.random.chance(self.weather.slow_permille);
        let takes = if slow {
            self.random.between(1000, 1000 + self.weather.slow_us)
        } else {
            self.random.between(50, 1000)
        };
        let busy = &mut self.busy_us[from as usize][to as usize];
        let at = now_us + takes;
        let at = if self.weather.reorders { at } else { at.max(*busy + 1) };
        *busy = at.max(*busy);
        at
    }
}
