#![no_main]

// Base64 of a message, behind a checksum.
holdfast_fuzz::decoder!(holdfast::fuzzing::token, 16, 64 << 10);
