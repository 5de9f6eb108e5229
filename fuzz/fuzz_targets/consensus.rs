#![no_main]

// The consensus core keeps its messages and its log in memory.
holdfast_fuzz::decoder!(holdfast_replicator::fuzzing::consensus, 1024, 1 << 20);
