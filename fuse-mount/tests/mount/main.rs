//! Real system calls on a real mount, over the real planner in memory. Needs root and /dev/fuse.

mod attributes;
mod classes;
mod data;
mod directories;
mod fixture;
mod life;
mod memory;
mod names;
mod standby;
mod xattrs;
