//! The narrow seam to the metadata store: ordered keys and values, written in atomic batches that are
//! stable only after a flush. `rocks` is the real one, `sim` its twin that reverts at a crash.

use crate::error::StoreError;
use bytes::Bytes;

pub mod rocks;
pub mod sim;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Bytes, Bytes),
    Delete(Bytes),
    /// All keys from the first (included) to the second (excluded).
    DeleteRange(Bytes, Bytes),
}

pub trait Meta: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// Keys from `from` (included) that begin with `prefix`, in order, until `each` returns false.
    fn scan(&self, prefix: &[u8], from: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>;
    /// About how many keys there are.
    fn count(&self) -> Result<u64, StoreError>;
    /// All or nothing, in memory; stable at the latest after the next `flush`, and possibly before.
    fn write(&self, changes: Vec<Change>) -> Result<(), StoreError>;
    /// Everything written so far is stable when it returns.
    fn flush(&self) -> Result<(), StoreError>;
}
