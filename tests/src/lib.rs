//! What tests, drills and newcomers use: a real three-node cluster on one machine (`lab`), and the
//! demonstration of its failovers (`demo`). Nothing that runs on a customer's server belongs here.

pub mod clock;
pub mod demo;
pub mod lab;
pub mod process;
