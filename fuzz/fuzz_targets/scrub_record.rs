#![no_main]

holdfast_fuzz::decoder!(holdfast::fuzzing::scrub_record);
