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

/// With the moment at which each was last raised.
#[derive(Default)]
pub struct Notices(BTreeMap<String, (Notice, UnixMs)>);

impl Notices {
    /// `key` names the state: raised again it replaces the older one.
    pub fn raise(&mut self, key: impl Into<String>, notice: Notice) {
        let raised = notice.since;
        self.0.insert(key.into(), (notice, raised));
    }

    /// As `raise`, for a state that lasts: the same notice keeps its beginning.
    pub fn go_on(&mut self, key: &str, notice: Notice, now: UnixMs) {
        match self.0.get_mut(key) {
            Some((known, raised)) if known.what == notice.what => *raised = now,
            _ => drop(self.0.insert(key.to_owned(), (notice, now))),
        }
    }

    pub fn clear(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub fn forget_old(&mut self, now: UnixMs) {
        self.0.retain(|_, (_, raised)| now.0.saturating_sub(raised.0) < KEPT_MS);
    }

    pub fn all(&self) -> Vec<Notice> {
        self.0.values().map(|(notice, _)| notice.clone()).collect()
    }
}
