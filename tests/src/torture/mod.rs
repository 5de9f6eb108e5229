//! Random operations on a real file system against a model in memory, as fsx and fsstress do, and through failovers: what
//! was acknowledged must be there on the next node, what ended with an error must be there as a whole or not at all.

mod appended;
mod compare;
pub mod course;
mod data;
mod fault;
mod mapping;
mod names;
pub mod place;
mod shared;
mod story;
pub mod work;
