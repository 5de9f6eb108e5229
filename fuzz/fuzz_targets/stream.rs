#![no_main]

// An entry takes two bytes of a header at least, and some hundred in memory; and the first step of a frame is taken at once.
holdfast_fuzz::decoder!(holdfast_replicator::fuzzing::stream, 256, 3 << 20);
