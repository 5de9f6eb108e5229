//! What tests, drills and newcomers use: a real three-node cluster on one machine (`lab`), the same on booted machines
//! (`machines`), the demonstration of its failovers (`demo`), random operations against a model (`torture`),
//! power cuts (`power`), the comparison of its speed (`bench`), and the whole product simulated in one thread (`simulation`). Nothing that runs on a customer's server belongs here.

#[cfg(feature = "clusters")]
pub mod bench;
pub mod clock;
#[cfg(feature = "clusters")]
pub mod demo;
#[cfg(feature = "clusters")]
pub mod faults;
#[cfg(feature = "clusters")]
pub mod lab;
#[cfg(feature = "clusters")]
pub mod machines;
#[cfg(feature = "clusters")]
pub mod power;
#[cfg(feature = "clusters")]
pub mod process;
#[cfg(feature = "clusters")]
pub mod signals;
pub mod simulation;
#[cfg(feature = "clusters")]
pub mod torture;
