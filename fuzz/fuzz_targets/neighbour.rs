#![no_main]

holdfast_fuzz::decoder!(vip_agent::fuzzing::neighbour);
