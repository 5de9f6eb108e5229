#![no_main]

// Texts and tables about nodes, each of which two bytes can stand for.
holdfast_fuzz::decoder!(holdfast::fuzzing::status, 1024, 1 << 20);
