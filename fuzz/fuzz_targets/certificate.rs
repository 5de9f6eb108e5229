#![no_main]

holdfast_fuzz::decoder!(holdfast_config::fuzzing::certificate);
