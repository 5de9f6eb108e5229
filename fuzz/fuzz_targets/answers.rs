#![no_main]

// A byte stands for a block that three nodes may have otherwise, and a difference names each of them.
holdfast_fuzz::decoder!(holdfast::fuzzing::answers, 2048, 256 << 10);
