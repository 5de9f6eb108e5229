//! What `storage::meta::rocks` calls of RocksDB, without it: to compile it for fuzzing takes a quarter of an hour, and no
//! target opens one (they use `storage::meta::sim`). Whoever opens it all the same gets an error.

use std::fmt;
use std::path::Path;

#[derive(Debug)]
pub struct Error;

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("there is no RocksDB in a build for fuzzing")
    }
}

impl std::error::Error for Error {}

pub enum BlockBasedIndexType {
    TwoLevelIndexSearch,
}

pub enum DBCompressionType {
    Lz4,
}

pub mod properties {
    pub const ESTIMATE_NUM_KEYS: &str = "";
}

pub struct Cache;

impl Cache {
    pub fn new_lru_cache(_bytes: usize) -> Self {
        Self
    }
}

#[derive(Default)]
pub struct BlockBasedOptions;

impl BlockBasedOptions {
    pub fn set_block_cache(&mut self, _cache: &Cache) {}
    pub fn set_bloom_filter(&mut self, _bits: f64, _block: bool) {}
    pub fn set_cache_index_and_filter_blocks(&mut self, _yes: bool) {}
    pub fn set_index_type(&mut self, _kind: BlockBasedIndexType) {}
    pub fn set_partition_filters(&mut self, _yes: bool) {}
    pub fn set_metadata_block_size(&mut self, _bytes: usize) {}
    pub fn set_pin_top_level_index_and_filter(&mut self, _yes: bool) {}
}

#[derive(Default)]
pub struct Options;

impl Options {
    pub fn create_if_missing(&mut self, _yes: bool) {}
    pub fn set_atomic_flush(&mut self, _yes: bool) {}
    pub fn set_block_based_table_factory(&mut self, _table: &BlockBasedOptions) {}
    pub fn set_compression_type(&mut self, _kind: DBCompressionType) {}
    pub fn set_write_buffer_size(&mut self, _bytes: usize) {}
    pub fn set_max_write_buffer_number(&mut self, _number: i32) {}
    pub fn set_max_open_files(&mut self, _number: i32) {}
    pub fn set_max_background_jobs(&mut self, _number: i32) {}
    pub fn set_keep_log_file_num(&mut self, _number: usize) {}
    pub fn set_paranoid_checks(&mut self, _yes: bool) {}
}

#[derive(Default)]
pub struct WriteOptions;

impl WriteOptions {
    pub fn disable_wal(&mut self, _yes: bool) {}
}

#[derive(Default)]
pub struct WriteBatch;

impl WriteBatch {
    pub fn put(&mut self, _key: impl AsRef<[u8]>, _value: impl AsRef<[u8]>) {}
    pub fn delete(&mut self, _key: impl AsRef<[u8]>) {}
    pub fn delete_range(&mut self, _from: impl AsRef<[u8]>, _to: impl AsRef<[u8]>) {}
}

pub struct DB;

impl DB {
    pub fn open(_options: &Options, _folder: impl AsRef<Path>) -> Result<Self, Error> {
        Err(Error)
    }

    pub fn get_pinned(&self, _key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        Err(Error)
    }

    pub fn raw_iterator(&self) -> Iterator<'_> {
        Iterator(self)
    }

    pub fn property_int_value(&self, _name: &str) -> Result<Option<u64>, Error> {
        Err(Error)
    }

    pub fn write_opt(&self, _batch: WriteBatch, _how: &WriteOptions) -> Result<(), Error> {
        Err(Error)
    }

    pub fn flush(&self) -> Result<(), Error> {
        Err(Error)
    }
}

pub struct Iterator<'a>(#[expect(dead_code, reason = "only its lifetime counts")] &'a DB);

impl Iterator<'_> {
    pub fn seek(&mut self, _from: impl AsRef<[u8]>) {}
    pub fn next(&mut self) {}

    pub fn item(&self) -> Option<(&[u8], &[u8])> {
        None
    }

    pub fn status(&self) -> Result<(), Error> {
        Err(Error)
    }
}
