#![no_main]

// Texts and tables about nodes and notices, each of which two bytes can stand for, in columns as wide as the widest of them.
holdfast_fuzz::decoder!(holdfast::fuzzing::status, 8192, 4 << 20);
