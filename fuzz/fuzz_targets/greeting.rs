#![no_main]

holdfast_fuzz::decoder!(holdfast_replicator::fuzzing::greeting);
