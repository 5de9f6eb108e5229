#![no_main]

// Four segments on a disk in memory, and the window in which recovery reads them.
holdfast_fuzz::decoder!(holdfast_storage::fuzzing::log, 1024, 8 << 20);
