#![no_main]

holdfast_fuzz::decoder!(holdfast_storage::fuzzing::identity);
