//! What tests, drills and newcomers use: a real three-node cluster on one machine (`lab`), the same on booted machines
//! (`machines`), the demonstration of its failovers (`demo`), random operations against a model (`torture`), and the
//! comparison of its speed (`bench`). Nothing that runs on a customer's server belongs here.

pub mod bench;
pub mod clock;
pub mod demo;
pub mod faults;
pub mod lab;
pub mod machines;
pub mod process;
pub mod signals;
pub mod torture;
