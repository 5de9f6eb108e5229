//! Random operations on a real file system against a model in memory, as fsx and fsstress do, and through failovers: what
//! was acknowledged must be there on the next node, what ended with an error must be there as a whole or not at all.

pub mod course;
mod data;
mod fault;
mod names;
pub mod place;
mod story;
pub mod work;
