#![no_main]

holdfast_fuzz::decoder!(holdfast_fuse_mount::fuzzing::mounts);
