//! What happened, as a running hash: two runs of one seed are the same exactly if their hashes are. As text only on demand.

pub struct Trace {
    hash: blake3::Hasher,
    shown: bool,
}

impl Trace {
    pub fn new(shown: bool) -> Self {
        Self {
            hash: blake3::Hasher::new(),
            shown,
        }
    }

    pub fn is_shown(&self) -> bool {
        self.shown
    }

    pub fn event(&mut self, now_us: u64, node: u64, what: &str, numbers: &[u64]) {
        self.hash.update(&now_us.to_le_bytes());
        self.hash.update(what.as_bytes());
        for number in [node].iter().chain(numbers) {
            self.hash.update(&number.to_le_bytes());
        }
        if self.shown {
            eprintln!("{:>12.6} n{node} {what} {numbers:?}", now_us as f64 / 1e6);
        }
    }

    pub fn say(&mut self, now_us: u64, text: &str) {
        self.hash.update(text.as_bytes());
        if self.shown {
            eprintln!("{:>12.6} -- {text}", now_us as f64 / 1e6);
        }
    }

    pub fn hash(&self) -> String {
        self.hash.finalize().to_hex()[..16].to_owned()
    }
}
