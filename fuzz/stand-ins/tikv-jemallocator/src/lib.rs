//! Nothing: the daemon's allocator isn't used in a build for fuzzing, where allocations are counted, and needn't be compiled.
