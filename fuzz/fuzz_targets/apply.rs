#![no_main]

// A whole store in memory: what is written lies there in blocks of 4 KiB, also the first of a few bytes.
holdfast_fuzz::decoder!(holdfast_storage::fuzzing::apply, 1024, 8 << 20);
