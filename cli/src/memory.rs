//! Where the daemon's memory comes from: jemalloc, for RocksDB too. docs/adr/0008-memory.md has the comparison with glibc's.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Few arenas, for most work is done in three threads, and what was freed goes back to the system in the background.
#[unsafe(export_name = "malloc_conf")]
static SETTINGS: &[u8; 58] = b"narenas:4,background_thread:true,max_background_threads:1\0";
