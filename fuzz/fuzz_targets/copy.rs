#![no_main]

// A whole store in memory; each two bytes may stand for a block that the source sends.
holdfast_fuzz::decoder!(holdfast_storage::fuzzing::copy, 8192, 16 << 20);
