//! What an operator should hear of. Each is kept for a while after it was last raised.

use std::collections::BTreeMap;

use crate::clock::UnixMs;

const KEPT_MS: u64 = 10 * 60 * 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub what: String,
    pub advice: String,
    pub since: UnixMs,
    pub serious: bool,
}

#[derive(Default)]
pub struct Notices(BTreeMap<String, Notice>);

impl Notices {
    /// `key` names the state: raised again it replaces the older one.
    pub fn raise(&mut self, key: impl Into<String>, notice: Notice) {
        self.0.insert(key.into(), notice);
    }

    pub fn clear(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub fn forget_old(&mut self, now: UnixMs) {
        self.0
            .retain(|_, notice| now.0.saturating_sub(notice.since.0) < KEPT_MS);
    }

    pub fn all(&self) -> Vec<Notice> {
        self.0.values().cloned().collect()
    }
}
