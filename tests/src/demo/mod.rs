//! The demonstration: a PBX stand-in (PostgreSQL, fifty recordings, a log) on a real cluster, three faults, and a
//! verification of everything that anyone was told is written.

pub mod client;
pub mod pattern;
pub mod postgresql;
pub mod report;
pub mod run;
pub mod sampler;
pub mod service;
pub mod soak;
pub mod unit;
pub mod verify;
