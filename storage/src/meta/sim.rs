//! A metadata store in memory that reverts at a crash, as RocksDB without its log does: to some state
//! that was flushed, either asked for or by itself at a moment of its own choosing.

use super::{Change, Meta};
use crate::error::StoreError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type Map = BTreeMap<Bytes, Bytes>;

#[derive(Default)]
struct State {
    now: Map,
    /// States since the last flush that was asked for (the first of them), one a batch.
    flushable: Vec<Map>,
}

#[derive(Clone, Default)]
pub struct SimMeta(Arc<Mutex<State>>);

impl SimMeta {
    pub fn new() -> Self {
        let sim = Self::default();
        sim.state().flushable.push(Map::new());
        sim
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("the simulation doesn't panic inside")
    }

    /// Loses what wasn't flushed; `pick` chooses among the states that RocksDB may have flushed by itself.
    pub fn crash(&self, pick: u64) {
        let mut state = self.state();
        let which = (pick % state.flushable.len() as u64) as usize;
        state.now = state.flushable[which].clone();
        state.flushable = vec![state.now.clone()];
    }
}

impl Meta for SimMeta {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().now.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let state = self.state();
        for (key, value) in state.now.range(Bytes::copy_from_slice(from)..) {
            if !key.starts_with(prefix) || !each(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn count(&self) -> Result<u64, StoreError> {
        Ok(self.state().now.len() as u64)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut state = self.state();
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    state.now.insert(key, value);
                }
                Change::Delete(key) => {
                    state.now.remove(&key);
                }
                Change::DeleteRange(from, to) => {
                    let keys: Vec<Bytes> = state.now.range(from..to).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        state.now.remove(&key);
                    }
                }
            }
        }
        let now = state.now.clone();
        state.flushable.push(now);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        state.flushable = vec![state.now.clone()];
        Ok(())
    }
}
