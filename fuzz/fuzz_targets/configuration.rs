#![no_main]

// The parsed document, with places of all keys, several times over.
holdfast_fuzz::decoder!(holdfast_config::fuzzing::configuration, 256, 256 << 10);
