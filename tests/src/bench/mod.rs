//! The same loads on a local disk, on GlusterFS and on Holdfast, by turns on one machine, with the least that any
//! replicated write could cost beside them. What counts is the ratios of one run.

pub mod builds;
pub mod catch_up;
pub mod database;
pub mod figures;
pub mod files;
pub mod floor;
pub mod gluster;
pub mod many;
pub mod report;
pub mod run;
