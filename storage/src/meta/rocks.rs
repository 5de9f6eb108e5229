//! RocksDB without its own log: ours is the log, and redo starts at the published checkpoint.

use super::{Change, Meta};
use crate::error::StoreError;
use bytes::Bytes;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

pub struct Rocks {
    db: rocksdb::DB,
    unlogged: rocksdb::WriteOptions,
}

/// Of blocks, indexes and filters: what memory the metadata takes, however many files there are.
const CACHE: usize = 32 << 20;
const PIECE: usize = 4096;

fn failed(what: &'static str) -> impl FnOnce(rocksdb::Error) -> StoreError {
    move |source| StoreError::Meta {
        what,
        source: Box::new(source),
    }
}

impl Rocks {
    /// Opens the store in `folder`, which nobody but its owner can look into, making it if it isn't there.
    pub fn create(folder: &Path) -> Result<Self, StoreError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(StoreError::disk("making", "meta"))?;
        Self::close_to_others(folder)?;
        Self::open_or(folder, true)
    }

    /// Names say as much as contents.
    pub fn close_to_others(folder: &Path) -> Result<(), StoreError> {
        std::fs::set_permissions(folder, Permissions::from_mode(0o700))
            .map_err(StoreError::disk("closing to others", "meta"))
    }

    /// Never makes one: where its files are damaged, an empty one in their place would remove what is left of them.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_or(folder, false)
    }

    fn open_or(folder: &Path, create: bool) -> Result<Self, StoreError> {
        let mut table = rocksdb::BlockBasedOptions::default();
        let cache = rocksdb::Cache::new_lru_cache(CACHE);
        table.set_block_cache(&cache);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        // In pieces: an index or a filter in one piece is larger than the cache's share for it from some 100,000 files on, and
        // would be read, checked and unpacked as a whole for each key.
        table.set_index_type(rocksdb::BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(PIECE);
        table.set_pin_top_level_index_and_filter(true);
        let mut options = rocksdb::Options::default();
        options.create_if_missing(create);
        options.set_atomic_flush(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_write_buffer_size(16 << 20);
        options.set_max_write_buffer_number(3);
        options.set_max_open_files(256);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        options.set_paranoid_checks(true);
        let db = rocksdb::DB::open(&options, folder).map_err(failed("opening"))?;
        let mut unlogged = rocksdb::WriteOptions::default();
        unlogged.disable_wal(true);
        Ok(Self { db, unlogged })
    }
}

impl Meta for Rocks {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_pinned(key).map_err(failed("reading a key of"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            if !key.starts_with(prefix) || !each(key, value) {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(failed("scanning"))
    }

    fn count(&self) -> Result<u64, StoreError> {
        let told = self.db.property_int_value(rocksdb::properties::ESTIMATE_NUM_KEYS);
        Ok(told.map_err(failed("counting the keys of"))?.unwrap_or(0))
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = rocksdb::WriteBatch::default();
        for change in changes {
            match change {
                Change::Put(key, value) => batch.put(key, value),
                Change::Delete(key) => batch.delete(key),
                Change::DeleteRange(from, to) => batch.delete_range(from, to),
            }
        }
        self.db.write_opt(batch, &self.unlogged).map_err(failed("writing to"))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(failed("flushing"))
    }
}
